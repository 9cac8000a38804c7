"""The braking fall-back: what the vehicle does when a cycle brings no plan that may be driven."""

from __future__ import annotations

import attrs
import numpy as np

from sfumato_cpto.admm import Array
from sfumato_cpto.config import PlannerSettings
from sfumato_cpto.problem import Problem


@attrs.frozen(eq=False)
class Fallback:
    """A braking manoeuvre along a fixed path.

    Attributes:
        position: [2, N] m; speed: [N] m/s; heading: [N] rad.
        command: (speed, yaw rate) to hold for the first period.
        clear: whether it keeps h >= 0 against every obstacle of any hypothesis while the vehicle still moves.
        min_h: least h while moving.
    """

    position: Array
    speed: Array
    heading: Array
    command: tuple[float, float]
    clear: bool
    min_h: float


PROFILES = (-4.0, -8.0, -2.0, 0.0, 3.0)  # m/s^2; comfortable braking first, hard braking next


def straight_braking(settings: PlannerSettings, problem: Problem) -> Fallback:
    """Return braking at `settings.brake` straight along the present heading."""
    return along_path(settings, problem, None, -settings.brake)


def escape(settings: PlannerSettings, problem: Problem, path: Array | None, speed_max: float) -> Fallback:
    """Return the first of several constant-acceleration manoeuvres that stays clear, else the least bad one.

    Braking comes first; but a vehicle that is already in the way of crossing traffic is not helped by stopping there.
    """
    best: Fallback | None = None
    for acceleration in (-settings.brake, *PROFILES[1:]):
        found = along_path(settings, problem, path, acceleration, speed_max)
        if found.clear:
            return found
        if best is None or found.min_h > best.min_h + 1e-9:
            best = found
    assert best is not None
    return best


def along_path(
    settings: PlannerSettings,
    problem: Problem,
    path: Array | None,
    acceleration: float,
    speed_max: float = 1e9,
) -> Fallback:
    """Return constant `acceleration` (m/s^2) along `path` [2, K] (m, from the present position on), or straight ahead.

    The speed stays between 0 and `speed_max`. Clearance counts at every sample, at rest too: an obstacle that runs
    into a vehicle stopped in its way is the vehicle's fault unless it comes from behind.
    """
    n, dt = settings.n_samples, settings.dt
    v0 = float(np.hypot(problem.start[0, 1], problem.start[1, 1]))
    times = np.arange(n) * dt
    speed = np.clip(v0 + acceleration * times, 0.0, max(speed_max, v0))
    travelled = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * dt)])
    origin = problem.start[:, 0]
    heading0 = problem.heading
    line = None
    if path is not None and path.shape[1] >= 2:
        line = np.concatenate([origin[:, None], path], axis=1)
        step = np.hypot(*np.diff(line, axis=1))
        line = line[:, np.concatenate([[True], step > 1e-3])]
    if line is None or line.shape[1] < 3:
        direction = np.array([np.cos(heading0), np.sin(heading0)])
        position = origin[:, None] + direction[:, None] * travelled
        heading = np.full(n, heading0)
        yaw_rate = 0.0
    else:
        arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=1)))])
        tangent = np.unwrap(np.arctan2(*np.diff(line, axis=1)[::-1]))
        beyond = np.maximum(travelled - arc[-1], 0.0)
        end = np.array([np.cos(tangent[-1]), np.sin(tangent[-1])])
        position = (
            np.stack([np.interp(travelled, arc, line[axis]) for axis in range(2)]) + end[:, None] * beyond
        )
        heading = np.interp(travelled, 0.5 * (arc[1:] + arc[:-1]), tangent)
        # The held command aims at a point half a second ahead: exact headings of a short first step are noise.
        ahead = np.interp(max(1.0, 0.5 * v0), 0.5 * (arc[1:] + arc[:-1]), tangent)
        yaw_rate = float(np.clip((ahead - heading0) / 0.5, -0.5, 0.5)) * min(v0, 5.0) / 5.0
    min_h = np.inf
    if problem.n_obstacles:
        offset = position[None] - problem.centre
        h = ((offset / problem.axes) ** 2).sum(axis=1) - 1.0
        # One that comes up from behind in our direction has to brake itself.
        moved = problem.centre[:, 0, -1] - problem.centre[:, 0, 0]
        behind = (offset[:, 0, :1] > 4.0) & (np.abs(offset[:, 1, :1]) < 1.9) & (moved[:, None] > 1.0)
        h = np.where(behind, np.inf, h)
        min_h = float(h.min())
    return Fallback(position, speed, heading, (float(speed[1]), yaw_rate), min_h >= 0.0, min_h)
