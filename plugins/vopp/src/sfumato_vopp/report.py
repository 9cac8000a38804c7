"""A section of the report: an episode's actions, observations and rewards over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Plot, RunView, Table, Text

MAX_ROWS = 200


def episode(view: RunView) -> list[Any]:
    """Return the first episode: cumulative reward, and what was done and seen (seen at level `full` alone)."""
    trace = view.trace()
    actions, rewards = trace.get("native.actions"), trace.get("native.rewards")
    if actions is None or rewards is None:
        return [Text("The trace was not kept.")]
    total = np.cumsum(np.asarray(rewards, float))
    figure = {
        "data": [
            {"type": "scatter", "mode": "lines", "y": total, "name": "sum of rewards", "line": {"color": PALETTE[0], "shape": "hv"}},
        ],
        "layout": {
            "height": 260, "margin": {"l": 50, "r": 20, "t": 10, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "sum of rewards (undiscounted)"}},
        },
    }  # fmt: skip
    observed = trace.get("observations")
    rows = [
        (t, int(a), "" if observed is None else int(observed[t + 1]), float(r))
        for t, (a, r) in enumerate(zip(actions[:MAX_ROWS], rewards[:MAX_ROWS], strict=True))
    ]
    plot = Plot(figure, f"First episode: {len(total)} steps, rewards sum to {total[-1]:.4g}")
    return [plot, Table(("step", "action", "observation", "reward"), rows, "What was done and seen (observations with --level full)")]
