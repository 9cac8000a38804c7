"""Sections of the report: gap against time, and the first solutions drawn over their instances."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Playback, Plot, RunView, Text

from .errors import BqncoError
from .plots import draw_solution
from .tasks import decode

MAX_DRAWN = 12
MAX_LINES = 20


def gap_against_time(view: RunView) -> list[Any]:
    """Return the incumbents of the first items as steps over time: the gap in per cent, or else the objective."""
    notes = view.trace().get("notes")
    if not isinstance(notes, Mapping) or "incumbent_item" not in notes:
        return [Text("The solver noted no incumbents: it is no anytime method, or the trace was not kept.")]
    item, seconds, value = (np.asarray(notes[f"incumbent_{k}"]) for k in ("item", "seconds", "value"))
    try:
        items = view.instance(0).items
        references = [i.reference for i in items]
        names = [i.name for i in items]
    except Exception:  # a file or data set that is not here: objectives can still be drawn
        references, names = [], []
    count = int(item.max()) + 1 if len(item) else 0
    known = len(references) >= count and all(r for r in references[:count])
    data = []
    for b in range(min(count, MAX_LINES)):
        mine = item == b
        y = value[mine]
        if known:
            y = 100.0 * np.abs(y - references[b]) / abs(references[b])
        # The line goes on to the limit, where the last incumbent still stands.
        x = [*seconds[mine].tolist(), max(float(notes.get("limit_seconds", 0.0)), float(seconds[mine][-1]))]
        data.append({
            "type": "scatter", "mode": "lines", "line": {"shape": "hv", "color": PALETTE[b % len(PALETTE)]},
            "name": names[b] if b < len(names) else f"item {b}", "x": x, "y": [*y.tolist(), float(y[-1])],
        })  # fmt: skip
    label = "gap to the reference, %" if known else "objective"
    axis = {"gridcolor": "rgba(128,128,128,.25)", "automargin": True}
    layout = {
        "margin": {"l": 10, "r": 20, "t": 10, "b": 40}, "height": 340, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {**axis, "type": "log", "title": {"text": "seconds"}},
        "yaxis": {**axis, "title": {"text": label}},
    }  # fmt: skip
    alt = f"{label} against seconds, one line for each of the first {len(data)} of {count} items"
    return [Plot({"data": data, "layout": layout}, alt)]


def routes(view: RunView) -> list[Any]:
    """Return the first items' solutions as drawings to leaf through; instances are made again from the seed."""
    actions = view.trace().get("native.actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 3:
        return [Text("The trace holds no solutions.")]
    try:
        batch = view.instance(0)
    except Exception as error:  # a file or data set that is not here
        return [Text(f"The instances could not be made again: {error}")]
    frames, captions = [], []
    with tempfile.TemporaryDirectory() as folder:
        for b, instance in enumerate(batch.items[:MAX_DRAWN]):
            path = Path(folder) / f"{b}.svg"
            try:
                draw_solution(instance, decode(batch.problem, actions[0, b]), path)
            except BqncoError as error:
                return [Text(str(error))]
            frames.append(path.read_text(encoding="utf-8"))
            captions.append(instance.name)
    return [
        Playback(
            frames, captions, f"Solutions of the first {len(frames)} instances, one a frame", seconds=1.5
        )
    ]
