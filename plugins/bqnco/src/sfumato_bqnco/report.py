"""A section of the report: the first solutions drawn over their instances."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.report.parts import Playback, RunView, Text

from .errors import BqncoError
from .plots import draw_solution
from .tasks import decode

MAX_DRAWN = 12


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
