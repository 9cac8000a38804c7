"""A first guess from driving: each candidate follows its lane by the intelligent driver model.

A straight line through an obstacle leaves the side on which to pass undecided. A roll-out that brakes behind its
leader and blends over to its goal lane picks one, the same for the whole curve.

Source: Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and microscopic simulations"
(2000) for the car-following law; the quintic blend is the minimum-jerk curve between two lateral states at rest.
"""

from __future__ import annotations

import numba
import numpy as np

from sfumato_cpto.admm import Array, fixed_coefficients
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import N_FIXED, Transcription

BLEND_SECONDS = 3.0
_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _roll(start, goal_y, goal_speed, centre, axes, present, cap, accel, dt, n, jam, stop, gives_way, path):
    c = goal_y.shape[0]
    m = centre.shape[0]
    for i in range(c):
        x, v = start[0, 0], start[0, 1]
        y0, w0 = start[1, 0], start[1, 1]
        path[0, i, 0] = x
        path[1, i, 0] = y0
        desired = max(goal_speed[i], 0.5)
        for k in range(1, n):
            t = k * dt
            s = min(t / BLEND_SECONDS, 1.0)
            blend = s * s * s * (10.0 - 15.0 * s + 6.0 * s * s)
            # The present lateral velocity dies away over the blend, so the guess leaves along the start's tangent.
            drift = w0 * t * (1.0 - s) ** 3
            y = y0 + (goal_y[i] - y0) * blend + drift
            gap, closing = 1e6, 0.0
            for j in range(m):
                if not present[i, j]:
                    continue
                # Whoever will yet be in the lane is a leader already for one who gives way.
                b, at = axes[j, 1, k], k
                lateral = min(abs(centre[j, 1, k] - y), abs(centre[j, 1, k] - goal_y[i]))
                while gives_way and lateral >= 0.85 * b and at + 1 < n:
                    at += 1
                    lateral = min(abs(centre[j, 1, at] - y), abs(centre[j, 1, at] - goal_y[i]))
                ahead = centre[j, 0, at] - x
                if ahead > 0.0 and lateral < 0.85 * b and ahead - axes[j, 0, k] < gap:
                    gap = ahead - axes[j, 0, k]
                    closing = v - (centre[j, 0, k] - centre[j, 0, k - 1]) / dt
            a = accel[1] * (1.0 - (v / desired) ** 4)
            if gap < 1e5:
                wish = jam + max(0.0, v * 1.0 + v * closing / (2.0 * (accel[1] * -accel[0]) ** 0.5))
                a -= accel[1] * (wish / max(gap, 0.1)) ** 2
            a = min(max(a, accel[0]), accel[1])
            if stop:
                a = 0.6 * accel[0]
            fresh = min(max(v + a * dt, 0.0), cap[i, k])
            x += 0.5 * (v + fresh) * dt
            v = fresh
            path[0, i, k] = x
            path[1, i, k] = y


def fit(t: Transcription, problem: Problem, path: Array) -> Array:
    """Return coefficients [2, C, n + 1] of the least-squares curves through path [2, C, N], start kept exactly."""
    fixed, _ = fixed_coefficients(t, problem)
    if not hasattr(t, "_fit"):
        t._fit = np.linalg.pinv(t.p[:, N_FIXED:]).T  # type: ignore[attr-defined]
    known = np.einsum("nk,ak->an", t.p[:, :N_FIXED], fixed)
    free = (path - known[:, None]) @ t._fit  # type: ignore[attr-defined]
    head = np.broadcast_to(fixed[:, None], (*free.shape[:2], N_FIXED))
    return np.concatenate([head, free], axis=2)


def roll_out(
    t: Transcription,
    problem: Problem,
    jam: float = 1.0,
    hold: bool = False,
    stop: bool = False,
    gives_way: bool = False,
) -> Array:
    """Return initial coefficients [2, C, n + 1], one lane-following roll-out per hypothesis.

    Arguments: jam: gap kept at rest behind a leader's ellipse, m; hold: stay on the present line and slow down
    instead of heading for the goal (a second, more timid start); stop: brake to a standstill on the present line,
    which is the side to be on when something is about to cross; gives_way: brake in good time for everybody who is going
    to cross, and go on behind them.
    """
    c = problem.n_candidates
    path = np.empty((2, c, t.n))
    goal_y = np.full(c, problem.start[1, 0]) if hold or stop else problem.goal_y
    goal_speed = problem.goal_speed * (0.3 if hold else 1.0)
    bounds = t.settings.bounds
    accel = np.array([max(bounds.a_x[0], -8.0), min(bounds.a_x[1], 4.0)])
    _roll(
        problem.start, np.ascontiguousarray(goal_y), goal_speed, problem.centre, problem.axes, problem.present,
        problem.speed_cap, accel, t.dt, t.n, jam, stop, gives_way, path,
    )  # fmt: skip
    return fit(t, problem, path)
