"""What a cycle looked like to the planner, small enough to keep every cycle: candidates, phantoms, shadows, in the world's frame."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_cpto.hypotheses import Situation
from sfumato_cpto.solver import Plan

EVERY = 5  # samples of a candidate between two that are kept
LEAST_BREADTH = 2.0  # m, at which a shadow is drawn that has no breadth of its own (a lane's)
Array32 = NDArray[np.float32]


@attrs.frozen(eq=False)
class Picture:
    """Attributes: candidates [C, 2, S], phantoms [Q, 2], shadows [R, 4, 2] (corners), all in m."""

    candidates: Array32
    phantoms: Array32
    shadows: Array32


def picture(plan: Plan, situation: Situation) -> Picture:
    """Return what is drawn of a cycle."""
    candidates = plan.position[:, :, ::EVERY]
    if situation.frame is not None and len(candidates):
        candidates = situation.frame.from_frame(candidates.transpose(0, 2, 1)).transpose(0, 2, 1)
    position = np.asarray(situation.obstacles.position, dtype=float).reshape(-1, 2)
    phantoms = position[np.asarray(situation.user) < 0]
    return Picture(candidates.astype(np.float32), phantoms.astype(np.float32), shadows(situation))


def shadows(situation: Situation) -> Array32:
    """Return the corners [R, 4, 2] of the shadows that the safety check was told of."""
    known = situation.known
    if known is None or not (known.depth > 0.0).any():
        return np.zeros((0, 4, 2), dtype=np.float32)
    rows = known.depth > 0.0
    along = known.velocity[rows] / np.hypot(*known.velocity[rows].T)[:, None]
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    front, depth = known.position[rows], known.depth[rows, None]
    half = 0.5 * np.where(known.breadth[rows] > 0.0, known.breadth[rows], LEAST_BREADTH)[:, None]
    back = front - along * depth
    corners: Array32 = np.stack(
        [front - side * half, front + side * half, back + side * half, back - side * half], axis=1
    )
    return corners.astype(np.float32)


def padded(values: Sequence[Array32]) -> Array32:
    """Return arrays [k_t, ...] of one trailing shape as one array [T, max k, ...], NaN where there is none."""
    most = max((len(v) for v in values), default=0)
    shape = next((v.shape[1:] for v in values if len(v)), values[0].shape[1:] if values else ())
    out = np.full((len(values), most, *shape), np.nan, dtype=np.float32)
    for row, v in zip(out, values, strict=True):
        if len(v):
            row[: len(v)] = v
    return out
