"""Rectangles and lines of sight, vectorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def corners(position: Array, heading: Array, size: Array) -> Array:
    """Return the corners [..., 4, 2] of rectangles: position [..., 2] m, heading [...] rad, size [..., 2] m."""
    unit = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = unit * size[..., None, :]
    c, s = np.cos(heading)[..., None], np.sin(heading)[..., None]
    x = local[..., 0] * c - local[..., 1] * s
    y = local[..., 0] * s + local[..., 1] * c
    result: Array = np.stack([x, y], axis=-1) + position[..., None, :]
    return result


def overlap(
    position_a: Array, heading_a: Array, size_a: Array, position_b: Array, heading_b: Array, size_b: Array
) -> NDArray[np.bool_]:
    """Return whether rectangles overlap, by separating axes; all arguments broadcast over leading axes."""
    a, b = corners(position_a, heading_a, size_a), corners(position_b, heading_b, size_b)
    a, b = np.broadcast_arrays(a, b)
    apart = np.zeros(a.shape[:-2], dtype=bool)
    for heading in (heading_a, heading_b):
        for turn in (0.0, 0.5 * np.pi):
            axis = np.stack([np.cos(heading + turn), np.sin(heading + turn)], axis=-1)
            p, q = (a * axis[..., None, :]).sum(-1), (b * axis[..., None, :]).sum(-1)
            apart |= (p.max(-1) < q.min(-1)) | (q.max(-1) < p.min(-1))
    return ~apart


def visible(eye: Array, position: Array, heading: Array, size: Array, walls: Array) -> NDArray[np.bool_]:
    """Return which targets [M] the eye [2] sees past walls [W, 2, 2] (end points): one of five points is enough.

    The points are the centre and the corners of the target's rectangle.
    """
    m = len(position)
    if len(walls) == 0 or m == 0:
        return np.ones(m, dtype=bool)
    points = np.concatenate([position[:, None], corners(position, heading, size)], axis=1)  # [M, 5, 2]
    ray = points - eye
    p, r = walls[:, 0], walls[:, 1] - walls[:, 0]
    cross = ray[..., None, 0] * r[:, 1] - ray[..., None, 1] * r[:, 0]
    offset = p - eye
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (offset[:, 0] * r[:, 1] - offset[:, 1] * r[:, 0]) / cross
        u = (offset[:, 0] * ray[..., None, 1] - offset[:, 1] * ray[..., None, 0]) / cross
    blocked = (t > 1e-9) & (t < 1.0 - 1e-9) & (u >= 0.0) & (u <= 1.0)
    seen: NDArray[np.bool_] = np.logical_not(
        np.logical_and.reduce(np.logical_or.reduce(blocked, axis=2), axis=1)
    )
    return seen


def rectangle_walls(position: Array, heading: Array, size: Array) -> Array:
    """Return the edges [4 M, 2, 2] of rectangles as walls."""
    c = corners(position, heading, size)
    return np.stack([c, np.roll(c, -1, axis=1)], axis=2).reshape(-1, 2, 2)


def shadow(eye: Array, wall: Array, lane_x: float) -> tuple[float, float] | None:
    """Return the hidden interval (low y, high y) of the line x = lane_x behind a wall at constant x, or None.

    By similar triangles; None once the eye is level with the wall or past it.
    """
    wall_x = float(wall[0, 0])
    if eye[0] >= wall_x - 1e-6 or lane_x <= wall_x:
        return None
    ratio = (lane_x - eye[0]) / (wall_x - eye[0])
    ends = eye[1] + ratio * (wall[:, 1] - eye[1])
    return float(ends.min()), float(ends.max())
