"""The plots that fit every kind of task: figures side by side with intervals, and values by item."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from sfumato.records import Figure
from sfumato.report.parts import PALETTE, Plot, Text

LABEL_WIDTH = 30
"""Characters of a line of a run's label: longer ones would leave no room for the plot in a narrow window."""

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


def side_by_side(name: str, pairs: Sequence[tuple[str, Figure]], left_out: int = 0) -> Plot:
    """Return one metric of several runs as dots with intervals, one line a run; `left_out` runs more are not shown.

    What is no finite number has no dot, and is named.
    """
    broken = [label for label, f in pairs if not math.isfinite(f.value)]
    pairs = [(label, f) for label, f in pairs if math.isfinite(f.value)]
    labels = [label for label, _ in pairs]
    ticks = ["<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(label, LABEL_WIDTH)) for label in labels]
    values = [figure.value for _, figure in pairs]
    first = pairs[0][1]
    above = [(f.high - f.value) if f.high is not None else 0.0 for _, f in pairs]
    below = [(f.value - f.low) if f.low is not None else 0.0 for _, f in pairs]
    lines = max(tick.count("<br>") for tick in ticks)
    figure = {
        "data": [
            {
                "type": "scatter", "mode": "markers", "x": values, "y": ticks, "marker": {"size": 10, "color": PALETTE[0]},
                "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2},
                "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
            }
        ],
        "layout": {
            **LAYOUT,
            "height": 70 + (28 + 17 * lines) * len(pairs),
            "xaxis": {**LAYOUT["xaxis"], "title": {"text": named(name, first.unit)}},
            "yaxis": {**LAYOUT["yaxis"], "autorange": "reversed", "type": "category"},
        },
    }  # fmt: skip
    alt = "; ".join(f"{label}: {value:.4g}" for label, value in zip(labels, values, strict=True))
    alt += f"; not finite: {'; '.join(broken)}" if broken else ""
    alt += f"; {left_out} runs more are in the table alone" if left_out > 0 else ""
    return Plot(figure, f"{named(name, first.unit)}. {alt}")


def by_item(name: str, unit: str, pairs: Sequence[tuple[int, float]]) -> Plot | Text:
    """Return a metric's values over its items, given as (item, value): a histogram for many, points for few.

    What is no finite number has no place in a plot, and is counted.
    """
    shown = [(k, v) for k, v in pairs if math.isfinite(v)]
    broken = f"{len(pairs) - len(shown)} of {len(pairs)} not finite" if len(shown) < len(pairs) else ""
    if not shown:
        return Text(f"No value to show: {broken}.")
    items, values = zip(*shown, strict=True)
    if len(values) > 60:
        data: dict[str, Any] = {"type": "histogram", "x": values, "nbinsx": 40, "marker": {"color": PALETTE[0]}}
        axes = {"xaxis": {**LAYOUT["xaxis"], "title": {"text": named(name, unit)}}, "yaxis": {**LAYOUT["yaxis"], "title": {"text": "items"}}}
    else:
        data = {"type": "scatter", "mode": "markers", "x": items, "y": values, "marker": {"size": 7, "color": PALETTE[0]}}
        axes = {"xaxis": {**LAYOUT["xaxis"], "title": {"text": "item"}}, "yaxis": {**LAYOUT["yaxis"], "title": {"text": named(name, unit)}}}
    alt = f"{named(name, unit)} of {len(values)} items, from {min(values):.4g} to {max(values):.4g}" + (f"; {broken}" if broken else "")
    return Plot({"data": [data], "layout": {**LAYOUT, **axes, "height": 260}}, alt)
