"""The safety argument in code: assumptions, a fall-back checked against reachable occupancy, and monitors.

The argument. Suppose that (1) the vehicle can brake at `brake` within one period; (2) every road user within
`sensing_range` of which a corner shows is detected; (3) position and speed errors stay within `position_error` and
`speed_error`; (4) users keep to their direction with accelerations between -`user_brake` and `user_accelerate`, never
reverse, and yield to what is ahead of them in their own lane; (5) who is hidden is no faster than the scene's `hidden_speed`,
and between parked cars no smaller than its `hidden_size` and within its `gap_reach` of the gap's middle. If a manoeuvre along the planned path (drive one period, then brake to a standstill, or clear the conflict zone) meets
no user's reachable occupancy, then driving this one period leaves a manoeuvre that is still clear, whatever the users do
within (4). A plan is released only with such a manoeuvre, and without one the last such manoeuvre is carried on; so by
induction no contact happens for which the vehicle is to blame. Of (1), (2), (3) and (5) each has a monitor, for the argument
says nothing once it is violated; of (4) the monitor of perception sees what is too fast to be motion.

Source: Althoff and Dolan, "Online verification of automated road vehicles using reachability analysis" (IEEE T-RO 2014) for
fail-safe manoeuvres checked against reachable occupancy; Shalev-Shwartz et al., "On a formal model of safe and scalable
self-driving cars" (2017) for the longitudinal bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_cpto.admm import Array

FORGOTTEN = 1.0  # s out of sight after which a user that may have been hidden counts as a new one


@attrs.frozen
class Assumptions:
    """What the argument rests on: m, m/s, m/s^2."""

    brake: float = 4.0
    hard_brake: float = 8.0
    sensing_range: float = 100.0
    position_error: float = 0.15
    speed_error: float = 0.3
    user_brake: float = 4.0
    user_accelerate: float = 2.0
    user_speed_max: float = 25.0


@attrs.frozen(eq=False)
class Certificate:
    """Outcome of the check.

    Attributes: clear; manoeuvre: name of the clear one ("brake", "hard brake", "keep", "clear zone") or ""; command: (speed,
    yaw rate) that begins it after the driven period; conflict: index of the obstacle that the best manoeuvre meets,
    -1; time: when, s.
    """

    clear: bool
    manoeuvre: str
    conflict: int
    time: float


def occupancy(
    position: Array,
    velocity: Array,
    size: Array,
    times: Array,
    assumptions: Assumptions,
    depth: Array | None = None,
    breadth: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return what users can occupy at each time: centre [M, K, 2], heading [M], extent [M, K, 2] (length, width).

    A user moves along its velocity (one at rest keeps its place but for the perception error), no faster than full
    acceleration, no slower than full braking to a standstill.

    Arguments: depth [M], m: 0 for a user that is seen; positive for a shadow of that depth behind its foremost point, with the
        greatest velocity that is assumed of hidden users: anybody may be anywhere in the shadow, at any speed up to that, but
        no part of a body that is hidden can be before its edge. breadth [M], m: how broad the shadow is.
    """
    speed = np.hypot(*velocity.T)
    moving = speed > 0.3
    heading = np.arctan2(velocity[:, 1], velocity[:, 0])
    hidden = np.zeros(len(position), dtype=bool) if depth is None else depth > 0.0
    v_high = np.minimum(speed + assumptions.speed_error, assumptions.user_speed_max)
    v_high = np.where(hidden, speed, v_high)[:, None]
    v_low = np.maximum(speed - assumptions.speed_error, 0.0)[:, None]
    to_top = (assumptions.user_speed_max - v_high) / assumptions.user_accelerate
    to_top = np.where(hidden[:, None], 0.0, to_top)
    ramp = np.minimum(times, to_top)
    front = v_high * times + assumptions.user_accelerate * (ramp * times - 0.5 * ramp**2)
    rear = np.minimum(times, v_low / assumptions.user_brake)
    rear = v_low * rear - 0.5 * assumptions.user_brake * rear**2
    front, rear = np.where(moving[:, None], front, 0.0), np.where(moving[:, None], rear, 0.0)
    length = size[:, :1] + 2.0 * assumptions.position_error
    if depth is not None:
        # From the edge back to the rear of whoever stands farthest back.
        rear = np.where(hidden[:, None], -depth[:, None] - 0.5 * size[:, :1], rear)
        length = np.where(hidden[:, None], 0.0, length)
    middle = 0.5 * (front + rear)
    direction = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    centre = position[:, None] + direction[:, None] * middle[:, :, None]
    across = size[:, 1] + 2.0 * assumptions.position_error + (0.0 if breadth is None else breadth)
    width = np.repeat(across[:, None], len(times), axis=1)
    return centre, heading, np.stack([length + front - rear, width], axis=2)


def certify(
    path: Array,
    heading: Array,
    speed: float,
    own_size: Array,
    position: Array,
    velocity: Array,
    size: Array,
    assumptions: Assumptions,
    dt: float = 0.1,
    horizon: float = 6.0,
    depth: Array | None = None,
    breadth: Array | None = None,
) -> Certificate:
    """Check that some manoeuvre along a path stays out of every user's reachable occupancy.

    Arguments:
        path: [2, K] positions of the plan at spacing dt, the first is now; heading: [K] of the path, rad; it is prolonged
            straight on.
        depth, breadth: [M], how deep and broad a shadow is, see `occupancy`.
        speed: present speed, m/s; own_size: [2]; position, velocity, size: [M, 2] of the users, phantoms included.
    Notes: users that come from behind in the vehicle's own lane have to brake themselves and are left out.
    """
    from sfumato_cpto.simulator.geometry import overlap

    if not len(position):
        return Certificate(True, "brake", -1, np.inf)
    steps = np.arange(0.0, horizon + 1e-9, dt)
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=1)))])
    keep = np.concatenate([[True], np.diff(arc) > 1e-6])
    arc, line, angle = arc[keep], path[:, keep], np.unwrap(heading)[keep]
    centre, user_heading, extent = occupancy(position, velocity, size, steps, assumptions, depth, breadth)
    c, s = np.cos(heading[0]), np.sin(heading[0])
    offset = position - path[:, 0]
    ahead, across = offset[:, 0] * c + offset[:, 1] * s, -offset[:, 0] * s + offset[:, 1] * c
    along = velocity[:, 0] * c + velocity[:, 1] * s
    behind = (ahead < 0.0) & (np.abs(across) < 1.9) & (along > 0.7 * np.hypot(*velocity.T) - 1e-9)
    best = Certificate(False, "", -1, -1.0)
    for name, a in (
        ("brake", -assumptions.brake),
        ("hard brake", -assumptions.hard_brake),
        ("keep", 0.0),
        ("clear zone", 2.0),
    ):
        v = np.maximum(speed + a * np.maximum(steps - dt, 0.0), 0.0)
        travelled = np.concatenate([[0.0], np.cumsum(0.5 * (v[1:] + v[:-1]) * dt)])
        beyond = np.maximum(travelled - arc[-1], 0.0)
        theta = np.interp(travelled, arc, angle)
        own = np.stack([np.interp(travelled, arc, line[k]) for k in range(2)], axis=1)
        own = own + beyond[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)
        hit = overlap(
            own[None],
            theta[None],
            np.broadcast_to(own_size, own.shape)[None],
            centre,
            user_heading[:, None],
            extent,
        )
        hit[behind] = False
        # At rest in a place that was clear on arrival, in nobody's way ahead of the brakes, one may wait; but standing in
        # a crossing lane is not waiting: excused are users along our own direction that are ahead, or would strike our rear. One
        # that would pass our rear and graze a corner farther on has no reason to brake.
        excused = _sees_our_rear(
            own[-1], float(theta[-1]), own_size, position, user_heading, size, assumptions
        )
        hit[excused[:, None] & (v <= 1e-9)[None]] = False
        if not hit.any():
            return Certificate(True, name, -1, np.inf)
        first = int(np.flatnonzero(hit.any(axis=0))[0])
        if first * dt > best.time:
            best = Certificate(False, "", int(np.flatnonzero(hit[:, first])[0]), first * dt)
    return best


def _sees_our_rear(
    own: Array,
    theta: float,
    own_size: Array,
    position: Array,
    heading: Array,
    size: Array,
    assumptions: Assumptions,
) -> NDArray[np.bool_]:
    # Which users [M] along our direction are ahead of where we stand, or have the edge of our rear in their path for certain.
    along = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    forward, side = np.array([np.cos(theta), np.sin(theta)]), np.array([-np.sin(theta), np.cos(theta)])
    rear = own - 0.5 * own_size[0] * forward
    ends = np.stack([rear - 0.5 * own_size[1] * side, rear + 0.5 * own_size[1] * side])
    lateral = ((ends[:, None] - position) * across).sum(axis=2)
    band = np.maximum(0.5 * size[:, 1] - assumptions.position_error, 0.0)
    in_path = (lateral.min(axis=0) <= band) & (lateral.max(axis=0) >= -band)
    ahead = ((own - position) * along).sum(axis=1) < 0.0
    excused: NDArray[np.bool_] = (np.cos(heading - theta) > 0.7) & (ahead | in_path)
    return excused


@attrs.define(eq=False)
class Monitor:
    """Watches the assumptions while driving; `violations` counts what it saw, by name.

    Names: "braking" (the vehicle slowed down less than it was told to), "hidden speed" (a user came out of hiding faster than
    assumed), "hidden size" (smaller), "hidden place" (from a part of a gap that was not thought of), "perception" (a user jumped by
    more than its motion and the error bound allow), "sensing" (a user appeared inside the sensing range with nothing to hide it).
    """

    assumptions: Assumptions
    public: Mapping[str, Any]
    violations: dict[str, int] = attrs.field(factory=dict)
    _last: dict[int, tuple[float, Array, Array]] = attrs.field(factory=dict)
    _told: tuple[float, float] | None = None
    _first: bool = True

    def tell(self, speed_before: float, commanded: float) -> None:
        """Remember what was commanded."""
        self._told = (speed_before, commanded)

    def _count(self, name: str) -> None:
        self.violations[name] = self.violations.get(name, 0) + 1

    def _came_out(self, j: int, observation: Mapping[str, Array]) -> None:
        # Whoever comes out of a gap must be as large as was assumed, and where it was assumed.
        if "gaps" not in self.public:
            return
        position, size = observation["position"][j], observation["size"][j]
        if float(np.min(size)) < float(self.public["hidden_size"]) - 1e-9:
            self._count("hidden size")
        off = float(np.abs(np.asarray(self.public["gaps"]) - position[0]).min())
        if off > float(self.public["gap_reach"]) + self.assumptions.position_error:
            self._count("hidden place")

    def watch(self, observation: Mapping[str, Array]) -> None:
        """Look at a new observation."""
        a = self.assumptions
        now, ego = float(observation["time"]), observation["ego"]
        if self._told is not None:
            before, commanded = self._told
            wanted, got = before - commanded, before - float(ego[3])
            if 0.0 < wanted <= a.hard_brake * 0.1 + 1e-6 and got < 0.8 * wanted - 0.02:
                self._count("braking")
        hides = len(self.public.get("walls", ())) > 0 or "parked" in self.public
        for j in np.flatnonzero(observation["detected"]):
            position, velocity = observation["position"][j], observation["velocity"][j]
            key = int(j)
            last = self._last.get(key)
            if last is not None and hides and now - last[0] > FORGOTTEN:
                last = None  # hidden meanwhile: what comes out again is judged anew
            if last is not None:
                then, old, old_velocity = last
                elapsed = now - then
                moved = old + old_velocity * elapsed
                allowed = (
                    2 * a.position_error + a.speed_error * elapsed + 0.5 * max(a.user_brake, 4.0) * elapsed**2
                )
                jump = float(np.hypot(*(position - moved)))
                # Beyond 20 m it is another user with the same number.
                if elapsed < 0.35 and allowed < jump < 20.0:
                    self._count("perception")
            elif not self._first:
                distance = float(np.hypot(*(position - ego[:2])))
                speed = float(np.hypot(*velocity))
                if hides and speed > float(self.public.get("hidden_speed", np.inf)) + a.speed_error:
                    self._count("hidden speed")
                self._came_out(key, observation)
                if not hides and distance < a.sensing_range - 25.0 * 0.2:
                    self._count("sensing")
            self._last[key] = (now, position.copy(), velocity.copy())
        self._first = False
