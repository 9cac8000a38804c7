"""Figures of one course: arrays in, numbers out.

Consistency: C1 is the mean distance between the segment about to be driven and the previous plan at the same times, C2
the same over 2 s, C3 sign changes of the lateral velocity per km, C4 the largest gap among candidates on the segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Direction = Literal["max", "min", "none"]
Reduce = Literal["mean", "max", "min", "p95", "iqm", "sum"]
Row = tuple[float, str, Direction, Reduce]

TTC_HORIZON = 10.0  # s; longer times to collision say nothing


def time_to_collision(ego: Array, users: Array, ego_length: float) -> float:
    """Return the least time to collision with a user ahead in the ego's own corridor, s, at most TTC_HORIZON.

    Arguments: ego [T, 7] (t, x, y, heading, speed, yaw rate, acceleration); users [T, M, 6] (x, y, heading, speed,
    length, width).
    """
    c, s = np.cos(ego[:, 3])[:, None], np.sin(ego[:, 3])[:, None]
    dx, dy = users[:, :, 0] - ego[:, None, 1], users[:, :, 1] - ego[:, None, 2]
    ahead, across = dx * c + dy * s, np.abs(-dx * s + dy * c)
    relative = users[:, :, 2] - ego[:, None, 3]
    closing = ego[:, None, 4] - users[:, :, 3] * np.cos(relative)
    half = 0.5 * (np.abs(np.cos(relative)) * users[:, :, 4] + np.abs(np.sin(relative)) * users[:, :, 5])
    gap = ahead - 0.5 * ego_length - half
    threat = (gap > 0.0) & (across < 1.8) & (closing > 0.1)
    ttc = np.where(threat, gap / np.maximum(closing, 0.1), TTC_HORIZON)
    return float(min(np.nanmin(ttc, initial=TTC_HORIZON), TTC_HORIZON))


def clearance(ego: Array, users: Array) -> float:
    """Return the least centre distance in the 5.6 x 2.9 m ellipse norm of users, minus 1 (0: touching it)."""
    dx, dy = users[:, :, 0] - ego[:, None, 1], users[:, :, 1] - ego[:, None, 2]
    c, s = np.cos(users[:, :, 2]), np.sin(users[:, :, 2])
    along, across = dx * c + dy * s, -dx * s + dy * c
    norm = np.hypot(along / 5.6, across / 2.9) - 1.0
    return float(np.nanmin(norm, initial=np.inf))


def from_truth(truth: Mapping[str, Any]) -> dict[str, Row]:
    """Return the figures that ground truth gives."""
    ego, users, dt = np.asarray(truth["ego"]), np.asarray(truth["users"]), float(truth["dt"])
    speed, acceleration = ego[:, 4], ego[1:, 6]
    jerk = np.diff(acceleration) / dt if len(acceleration) > 1 else np.zeros(1)
    lateral = ego[:, 4] * np.sin(ego[:, 3])
    moving = lateral[np.abs(lateral) > 0.05]
    turns = float((np.diff(np.sign(moving)) != 0).sum()) if len(moving) > 1 else 0.0
    distance = float(np.hypot(*np.diff(ego[:, 1:3], axis=0).T).sum())
    blamed = [c for c in truth["contacts"] if c["at_fault"]]
    others = [c for c in truth["contacts"] if not c["at_fault"]]
    rows: dict[str, Row] = {
        "at_fault": (float(bool(blamed)), "share", "min", "mean"),
        "struck": (float(bool(others)), "share", "none", "mean"),
        "left_road": (float(truth["left_road"]), "share", "min", "mean"),
        "mean_speed": (distance / max(float(ego[-1, 0]), dt), "m/s", "max", "mean"),
        "speed_error": (float(np.abs(speed - truth["goal_speed"]).mean()), "m/s", "min", "mean"),
        "mean_acceleration": (float(np.abs(acceleration).mean()), "m/s^2", "min", "mean"),
        "max_acceleration": (float(np.abs(acceleration).max()), "m/s^2", "min", "max"),
        "mean_jerk": (float(np.abs(jerk).mean()), "m/s^3", "min", "mean"),
        "max_jerk": (float(np.abs(jerk).max()), "m/s^3", "min", "max"),
        "lateral_reversals": (1000.0 * turns / max(distance, 1.0), "1/km", "min", "mean"),
    }
    if users.shape[1]:
        rows["min_ttc"] = (time_to_collision(ego, users, float(truth["ego_size"][0])), "s", "max", "min")
        rows["min_clearance"] = (clearance(ego, users), "1", "max", "min")
    if truth["has_goal"]:
        rows["finished"] = (float(truth["finished"]), "share", "max", "mean")
    return rows


def consistency(segments: Array, n_samples: int) -> float:
    """Return the mean distance between each plan's samples 0 .. n - 1 and the previous plan one period on, m.

    Arguments: segments [T, 2, K], NaN where a cycle had no plan; such pairs are left out.
    """
    if len(segments) < 2:
        return 0.0
    new, old = segments[1:, :, :n_samples], segments[:-1, :, 1 : n_samples + 1]
    distance = np.sqrt(((new - old) ** 2).sum(axis=1)).mean(axis=1)
    good = np.isfinite(distance)
    return float(distance[good].mean()) if good.any() else 0.0


def from_notes(notes: Mapping[str, Any]) -> dict[str, Row]:
    """Return planning time, statuses and consistency as the policy reports them."""
    segments = np.asarray(notes["segments"], dtype=float)
    seconds = np.asarray(notes["plan_seconds"], dtype=float) * 1e3
    status = list(notes["status"])
    good = np.array([s in ("CONVERGED", "MAX_ITER_FEASIBLE") for s in status])
    segments = np.where(good[:, None, None], segments, np.nan)
    gap = np.asarray(notes["gap"], dtype=float)[good]
    cycle = np.asarray(notes["cycle_seconds"], dtype=float)
    rows: dict[str, Row] = {
        "plan_ms_mean": (float(seconds.mean()), "ms", "min", "mean"),
        "plan_ms_p95": (float(np.percentile(seconds, 95)), "ms", "min", "mean"),
        "plan_ms_max": (float(seconds.max()), "ms", "min", "max"),
        # Simulated time waits for the planner; a vehicle's would not.
        "late_cycles": (float((cycle > float(notes["dt"])).mean()), "share", "min", "mean"),
        "iterations": (float(np.mean(notes["iterations"])), "1", "none", "mean"),
        "programs": (float(np.mean(notes["programs"])), "1", "none", "mean"),
        "fallback_cycles": (float((~good).mean()), "share", "min", "mean"),
        "consistency_segment": (consistency(segments, int(notes["n_consensus"]) + 1), "m", "min", "mean"),
        "consistency_2s": (consistency(segments, 21), "m", "min", "mean"),
        "gap": (float(gap.max(initial=0.0)), "m", "min", "max"),
    }
    return rows
