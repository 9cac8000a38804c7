"""The plots that fit every kind of task: figures side by side with intervals, and values by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfumato.records import Figure, RunRecord
from sfumato.report.parts import PALETTE, Plot

LAYOUT: dict[str, Any] = {
    "margin": {"l": 10, "r": 20, "t": 10, "b": 40},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "colorway": list(PALETTE),
    "font": {"size": 13},
    "xaxis": {"automargin": True, "gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.5)"},
    "yaxis": {"automargin": True, "gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.5)"},
}


def named(name: str, unit: str) -> str:
    """Return a figure's name with its unit, which a plain number has not."""
    return name if unit == "1" else f"{name} ({unit})"


def side_by_side(name: str, pairs: Sequence[tuple[str, Figure]]) -> Plot:
    """Return one metric of several runs as dots with intervals, one line a run."""
    labels = [label for label, _ in pairs]
    values = [figure.value for _, figure in pairs]
    first = pairs[0][1]
    above = [(f.high - f.value) if f.high is not None else 0.0 for _, f in pairs]
    below = [(f.value - f.low) if f.low is not None else 0.0 for _, f in pairs]
    figure = {
        "data": [
            {
                "type": "scatter", "mode": "markers", "x": values, "y": labels, "marker": {"size": 10, "color": PALETTE[0]},
                "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2},
                "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
            }
        ],
        "layout": {
            **LAYOUT,
            "height": 70 + 28 * len(pairs),
            "xaxis": {**LAYOUT["xaxis"], "title": {"text": named(name, first.unit)}},
            "yaxis": {**LAYOUT["yaxis"], "autorange": "reversed", "type": "category"},
        },
    }  # fmt: skip
    alt = "; ".join(f"{label}: {value:.4g}" for label, value in zip(labels, values, strict=True))
    return Plot(figure, f"{named(name, first.unit)}. {alt}")


def by_item(name: str, unit: str, values: Sequence[float], record: RunRecord) -> Plot:
    """Return a metric's values over its items: a histogram for many, points for few."""
    if len(values) > 60:
        data: dict[str, Any] = {"type": "histogram", "x": list(values), "nbinsx": 40, "marker": {"color": PALETTE[0]}}
        axes = {"xaxis": {**LAYOUT["xaxis"], "title": {"text": named(name, unit)}}, "yaxis": {**LAYOUT["yaxis"], "title": {"text": "items"}}}
    else:
        first = record.spec.indices.start
        data = {"type": "scatter", "mode": "markers", "x": list(range(first, first + len(values))), "y": list(values),
                "marker": {"size": 7, "color": PALETTE[0]}}  # fmt: skip
        axes = {"xaxis": {**LAYOUT["xaxis"], "title": {"text": "item"}}, "yaxis": {**LAYOUT["yaxis"], "title": {"text": named(name, unit)}}}
    low, high = min(values), max(values)
    return Plot(
        {"data": [data], "layout": {**LAYOUT, **axes, "height": 260}},
        f"{named(name, unit)} of {len(values)} items, from {low:.4g} to {high:.4g}",
    )
