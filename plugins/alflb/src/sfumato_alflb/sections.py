"""A section of the runner's report: the load of each expert over batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Plot, Text

from .pictures import thinned
from .problem import AlfProblem, Floats, max_vio
from .report import LOW_TO_HIGH
from .tasks import chosen_by


def loads(view: Any) -> Plot | Text:
    """Draw each expert's load over the batches of the first episode, relative to the mean.

    Recomputed from the instance and the actions that reached the task, like the figures.
    """
    trace = view.trace(0)
    if "native.actions" not in trace:
        return Text("The trace of this run was not kept, so its loads cannot be drawn.")
    instance = view.instance(0)
    pairs = list(zip(trace["native.actions"], instance, strict=False))
    table = np.array([chosen_by(action, scores, instance.k)[0].sum(axis=0) for action, (scores, _) in pairs])
    relative = table / np.maximum(table.mean(axis=1, keepdims=True), 1e-300)
    vio = max_vio(table.sum(axis=0))
    if len(table) == 1:
        plain = AlfProblem(pairs[0][1][0], instance.k).route().loads
        return _bars(relative[0], plain / max(plain.mean(), 1e-300), vio, max_vio(plain))
    shown, run = thinned(relative)
    data = {
        "type": "heatmap", "z": shown.T.round(3).tolist(), "dx": run, "zmin": 0.0, "zmax": 2.0, "zmid": 1.0,
        "colorscale": LOW_TO_HIGH, "colorbar": {"title": {"text": "load / mean"}},
    }  # fmt: skip
    x = "batch" if run == 1 else f"batch (means of {run})"
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": "expert"}}}
    alt = f"Load of {table.shape[1]} experts over {len(table)} batches, relative to the mean: MaxVio of the sum {vio:.4f}."
    return Plot({"data": [data], "layout": layout}, alt)


def _bars(ours: Floats, plain: Floats, vio: float, plain_vio: float) -> Plot:
    """Draw the loads of one batch beside those of plain top-K."""
    data = [
        {"type": "bar", "name": name, "y": values.round(3).tolist(), "marker": {"color": color}}
        for name, values, color in (("plain top-K", plain, PALETTE[1]), ("as routed", ours, PALETTE[0]))
    ]
    layout = {
        "xaxis": {"title": {"text": "expert"}}, "yaxis": {"title": {"text": "load / mean"}}, "barmode": "group",
        "legend": {"orientation": "h", "y": 1.1},
    }  # fmt: skip
    alt = (
        f"Load of {len(ours)} experts in one batch, relative to the mean: MaxVio {vio:.4f}, of plain top-K "
        f"{plain_vio:.4f}."
    )
    return Plot({"data": data, "layout": layout}, alt)
