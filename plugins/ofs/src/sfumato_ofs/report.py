"""Sections of the report: reward, violation, rates and population over time; where each learner played."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Plot, RunView, Text


def _band(values: np.ndarray, x: np.ndarray, name: str, colour: str) -> list[dict[str, Any]]:
    """Return a mean line with the band of the middle 90 % of items; values [B, T]."""
    low, mid, high = np.quantile(values, 0.05, axis=0), values.mean(axis=0), np.quantile(values, 0.95, axis=0)
    band = {
        "type": "scatter", "x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "line": {"width": 0},
        "fillcolor": colour, "opacity": 0.18, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    return [
        band,
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": mid,
            "name": name,
            "line": {"color": colour, "width": 2},
        },
    ]


def _axes(title: str, height: int = 280) -> dict[str, Any]:
    return {
        "height": height, "margin": {"l": 60, "r": 20, "t": 10, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {"title": {"text": "round"}}, "yaxis": {"title": {"text": title}},
        "legend": {"orientation": "h", "y": 1.12},
    }  # fmt: skip


def curves(view: RunView) -> list[Plot | Text]:
    """Return reward, violation, group rates and shares over time: mean of the items, band of their middle 90 %."""
    truth = view.trace().get("truth")
    if not truth or "curve_reward" not in truth:
        return [Text("The trace holds no curves (it was over its size limit, or made by an older version).")]
    reward, violation = np.array(truth["curve_reward"]), np.array(truth["curve_violation"])
    rates, shares = np.array(truth["curve_rates"]), np.array(truth["curve_shares"])
    x = (np.arange(reward.shape[1]) + 0.5) * truth["rounds"] / reward.shape[1]
    made: list[Plot | Text] = [
        Plot({"data": _band(reward, x, "reward", PALETTE[0]), "layout": _axes("expected reward a round")},
             f"Expected reward a round over {truth['rounds']} rounds, {len(reward)} items: from {reward[:, 0].mean():.4g} to {reward[:, -1].mean():.4g}"),
        Plot({"data": _band(violation, x, "violation", PALETTE[4]), "layout": _axes("violation a round")},
             f"Violation a round (gap and service beyond their limits): from {violation[:, 0].mean():.4g} to {violation[:, -1].mean():.4g}"),
    ]  # fmt: skip
    for values, title in ((rates, "acceptance rate of each group"), (shares, "share of each group")):
        data = [
            line
            for g in range(values.shape[2])
            for line in _band(values[:, :, g], x, f"group {g}", PALETTE[g])
        ]
        ends = ", ".join(f"group {g} ends at {values[:, -1, g].mean():.3f}" for g in range(values.shape[2]))
        made.append(Plot({"data": data, "layout": _axes(title)}, f"{title.capitalize()}: {ends}"))
    return made


def plays(view: RunView) -> Plot | Text:
    """Return how often each arm was played, a row an item."""
    truth = view.trace().get("truth")
    if not truth or "plays" not in truth:
        return Text("The trace holds no counts of plays.")
    counts = np.array(truth["plays"])[:100]
    figure = {
        "data": [{"type": "heatmap", "z": np.log10(counts + 1), "colorscale": "Cividis", "colorbar": {"title": {"text": "log10(1 + plays)"}}}],
        "layout": {**_axes("item", 120 + 12 * len(counts)), "xaxis": {"title": {"text": "arm (threshold, low to high)"}}},
    }  # fmt: skip
    return Plot(
        figure,
        f"Plays of {counts.shape[1]} arms by {len(counts)} items; most played arm in the median item: {int(np.median(counts.argmax(axis=1)))}",
    )
