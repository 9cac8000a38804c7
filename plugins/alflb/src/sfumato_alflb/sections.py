"""A section of the runner's report: the load of each expert over batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import Plot, Text

from .problem import max_vio
from .tasks import chosen_by


def loads(view: Any) -> Plot | Text:
    """Draw each expert's load over the batches of the first episode, relative to the mean.

    Recomputed from the instance and the actions that reached the task, like the figures.
    """
    trace = view.trace(0)
    if "native.actions" not in trace:
        return Text("The trace of this run was not kept, so its loads cannot be drawn.")
    instance = view.instance(0)
    pairs = zip(trace["native.actions"], instance, strict=False)
    table = np.array([chosen_by(action, scores, instance.k)[0].sum(axis=0) for action, (scores, _) in pairs])
    relative = table / np.maximum(table.mean(axis=1, keepdims=True), 1e-300)
    data = {
        "type": "heatmap", "z": relative.T.round(3).tolist(), "zmin": 0.0, "zmax": 2.0, "zmid": 1.0,
        "colorscale": "RdBu", "reversescale": True, "colorbar": {"title": {"text": "load / mean"}},
    }  # fmt: skip
    layout = {"xaxis": {"title": {"text": "batch"}}, "yaxis": {"title": {"text": "expert"}}}
    alt = (
        f"Load of {table.shape[1]} experts over {len(table)} batch(es), relative to the mean: "
        f"MaxVio of the sum {max_vio(table.sum(axis=0)):.4f}."
    )
    return Plot({"data": [data], "layout": layout}, alt)
