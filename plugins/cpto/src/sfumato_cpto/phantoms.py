"""Hidden users at their worst: for every shadow one phantom, timed to be in the way when the vehicle comes by.

A shadow may hold a user anywhere in it, at any speed up to the assumed one. A phantom put at the shadow's edge and sent off at
once would have passed long before a vehicle that is still some way off arrives; it would come into play only in the
last second, for the optimist and the pessimist alike. So the phantom is, of all users that the shadow may hold, the one that
meets the vehicle at the conflict point. The safety check does not rely on that choice: it is given the foremost hidden
point, the top speed and how deep the shadow is behind it.

Source: ours; the intervals on lanes are those of similar triangles, as in the authors' released scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from sfumato_cpto.admm import Array
from sfumato_cpto.problem import State
from sfumato_cpto.simulator.geometry import shadow

HYSTERESIS = 2  # cycles for which a phantom outlives its shadow
CREEP = 1.0  # m/s, below which the vehicle waits rather than drives
REACH = 80.0  # m along a lane beyond which hidden traffic is too far away to matter
STRIPS = 3  # in which the safety check looks at a gap between parked cars; each has an edge of its own
BEYOND = 1.0  # s after the horizon from which on a conflict is left to later cycles
PICK_UP = 1.5  # m/s^2, how the vehicle is expected to gather speed on the way to the conflict point


@attrs.frozen(eq=False)
class Phantom:
    """An imagined user.

    Attributes: centres [2, N], m; front [2]: the foremost point at which such a user could be hidden now; top [2]: its greatest
    velocity, m/s; depth: how far behind `front`, m, the shadow goes on. What the safety check is to think of: spots [F, 4],
    strips of the shadow that can hold somebody: (x, y) of the foremost point in the strip's middle, depth, breadth, m.
    """

    centres: Array
    front: Array
    top: Array
    depth: float
    spots: Array

    def later(self, dt: float) -> Phantom:
        """Return the phantom one period on, for as long as it outlives its shadow."""
        step = self.centres[:, 1:2] - self.centres[:, :1]
        moved = np.concatenate([self.centres[:, 1:], self.centres[:, -1:] + step], axis=1)
        return attrs.evolve(self, centres=moved, front=self.front + self.top * dt)


def arrival(distance: float, speed: float, goal_speed: float) -> float:
    """Return the time in s that the vehicle takes for `distance` m from `speed`, gathering `goal_speed` at PICK_UP."""
    distance, top = max(distance, 0.0), max(goal_speed, speed, 0.5)
    ramp = (top - speed) / PICK_UP
    covered = 0.5 * (speed + top) * ramp
    if distance < covered:
        return float((np.sqrt(speed * speed + 2.0 * PICK_UP * distance) - speed) / PICK_UP)
    return float(ramp + (distance - covered) / top)


def meeting(near: float, far: float, speed: float, meet: float, times: Array, waits: bool) -> Array:
    """Return distances to the conflict point, [N] m, of the user hidden in [near, far] m from it that is there at `meet` s.

    Nobody can be there before near / speed; where even the farthest would be there too soon, it goes slower, or (`waits`)
    sets off later.
    """
    start = float(np.clip(speed * meet, near, far))
    if speed * meet <= far:
        return start - speed * times
    if waits:
        return start - speed * np.maximum(times - (meet - far / speed), 0.0)
    return start - far / meet * times


def hidden_cars(public: Mapping[str, Any], state: State, times: Array) -> dict[int, Phantom]:
    """Return the phantom of every crossing lane that has a shadow on the side its traffic comes from."""
    eye = np.array([state.x, state.y])
    speed = float(public["hidden_speed"])
    found: dict[int, Phantom] = {}
    lanes = zip(public["crossing_x"], public["crossing_direction"], strict=True)
    for lane, (lane_x, direction) in enumerate(lanes):
        best: tuple[float, float] | None = None
        for wall in np.asarray(public["walls"]):
            hidden = shadow(eye, wall, float(lane_x))
            if hidden is None:
                continue
            near, far = sorted(-float(direction) * end for end in hidden)
            near, far = max(near, 0.0), min(far, REACH)
            if near < far and (best is None or near < best[0]):
                best = (near, far)
        if best is None:
            continue
        near, far = best
        meet = arrival(float(lane_x) - state.x, state.speed, float(public["goal_speed"]))
        if meet > times[-1] + BEYOND:
            continue
        along = meeting(near, far, speed, max(meet, 1e-3), times, waits=False)
        centres = np.stack([np.full(len(times), float(lane_x)), -direction * along])
        front, top = np.array([lane_x, -direction * near]), np.array([0.0, direction * speed])
        found[lane] = Phantom(centres, front, top, far - near, np.array([[*front, far - near, 0.0]]))
    return found


def hidden_walkers(public: Mapping[str, Any], state: State, times: Array) -> dict[int, Phantom]:
    """Return the phantom of every gap between parked cars in which somebody could stand unseen.

    Assumed, and monitored: somebody steps out within `gap_reach` m of a gap's middle, from no farther than `pavement_y`, and
    measures at least `hidden_size` m. So a shadow hides nobody where even the farthest place is less than half that size
    behind its edge. The phantom walks along the gap's middle; a gap of which only the near side can still hide somebody has
    one without centres (NaN), which is for the safety check alone.
    """
    pace, pavement = float(public["hidden_speed"]), float(public["pavement_y"])
    reach, half_body = float(public["gap_reach"]), 0.5 * float(public["hidden_size"])
    parked, half = np.asarray(public["parked"]), np.asarray(public["size"]) / 2
    strip = 2.0 * reach / STRIPS
    found: dict[int, Phantom] = {}
    for key, gap in enumerate(np.asarray(public["gaps"])):
        spots = []
        for middle in float(gap) - reach + strip * (np.arange(STRIPS) + 0.5):
            edge = _hidden_edge(
                state, middle - 0.5 * strip, parked, half
            )  # the side on which the shadow reaches farthest
            if edge is not None and pavement - edge >= half_body:
                spots.append([middle, edge, pavement - edge, strip])
        if not spots:
            continue
        top = np.array([0.0, -pace])
        edge = _hidden_edge(state, float(gap), parked, half)
        centres = np.full((2, len(times)), np.nan)
        front, depth = np.array(spots[0][:2]), spots[0][2]
        if edge is not None and pavement - edge >= half_body:
            meet = arrival(float(gap) - state.x, state.speed, float(public["goal_speed"]))
            front, depth = np.array([gap, edge]), pavement - edge
            if meet <= times[-1] + BEYOND:
                along = meeting(edge - state.y, pavement - state.y, pace, meet, times, waits=True)
                centres = np.stack([np.full(len(times), float(gap)), state.y + along])
        found[key] = Phantom(centres, front, top, depth, np.array(spots))
    return found


def waiting_walker(position: Array, pace: float, state: State, goal_speed: float, times: Array) -> Array:
    """Return centres [2, N] of somebody seen standing at the kerb who sets off at the worst moment."""
    meet = arrival(float(position[0]) - state.x, state.speed, goal_speed)
    distance = max(float(position[1]) - state.y, 0.0)
    along = meeting(distance, distance, pace, meet, times, waits=True)
    return np.stack([np.full(len(times), float(position[0])), state.y + along])


def _hidden_edge(state: State, at: float, parked: Array, half: Array) -> float | None:
    # The least y at which a point of the line x = at is hidden by the car before it, None where that car hides none of it.
    before = parked[parked[:, 0] < at]
    if not len(before) or state.x >= at:
        return None
    x, y = before[-1]
    # A sight line past the car touches the far corner of its near face, which hides the nearest points.
    corner_x = x + half[0]
    if corner_x <= state.x + 1e-6:
        return None
    edge = state.y + (y - half[1] - state.y) / (corner_x - state.x) * (at - state.x)
    return float(max(edge, 0.0))


@attrs.define(eq=False)
class Shadows:
    """Keeps what phantoms need to be remembered for.

    A phantom outlives its shadow by two cycles, or a plan would come and go with sensor jitter. And while the vehicle all but
    stands, it is not timed anew: it comes on as it was imagined until it would have been seen, for a vehicle that waits for
    one which is put off every time it looks would wait for ever.
    """

    dt: float
    _age: dict[int, tuple[int, Phantom]] = attrs.field(factory=dict)

    def update(self, found: Mapping[int, Phantom], speed: float) -> list[Phantom]:
        """Return the phantoms to plan for, in the order of their keys, at the vehicle's speed, m/s."""
        kept: dict[int, tuple[int, Phantom]] = {key: (0, phantom) for key, phantom in found.items()}
        for key, (age, phantom) in self._age.items():
            on = phantom.later(self.dt)
            if key not in kept:
                if age < HYSTERESIS:
                    kept[key] = (age + 1, on)
            elif speed < CREEP and _still_hidden(on, found[key]):
                kept[key] = (0, attrs.evolve(found[key], centres=on.centres))
        self._age = dict(sorted(kept.items()))
        return [phantom for _, phantom in self._age.values()]


def _still_hidden(phantom: Phantom, shade: Phantom) -> bool:
    direction = shade.top / np.hypot(*shade.top)
    behind = float((shade.front - phantom.centres[:, 0]) @ direction)
    return 0.0 <= behind <= shade.depth
