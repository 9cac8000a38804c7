"""From what is seen to what might be: obstacles with axes, phantoms in the shadows, and one hypothesis per row.

Reads only the observation and the public description of the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np

from sfumato_cpto.admm import Array
from sfumato_cpto.config import Bounds
from sfumato_cpto.curvilinear import ReferencePath
from sfumato_cpto.phantoms import Phantom, Shadows, hidden_cars, hidden_walkers, waiting_walker
from sfumato_cpto.problem import Hypotheses, Obstacles, State

CAR_AXES = (5.6, 3.1)  # along, across; covers two 4.0 x 1.8 m bodies at relative headings up to 15 degrees
CROSSING_AXES = (4.4, 4.8)  # across our lane, along theirs
PHANTOM_AXES = (
    4.2,
    4.2,
)  # covers two bodies at right angles and nothing more: a phantom must not cover the place
# from which it would be seen not to exist
WALKER_AXES = (2.85, 2.1)  # covers a 4.0 x 1.8 m and a 0.6 x 0.6 m body
DEFENSIVE_Y = -1.2  # m, lateral position beside a row that may hide somebody
CONFLICT_WINDOW = 10.0  # m of a crossing lane from which a car would meet the vehicle at the conflict point
PATH_SMOOTHING = 1e-5  # m^2; the path that is handed over is smooth already


@attrs.frozen(eq=False)
class Known:
    """Everybody who was detected, and every shadow that can hold somebody.

    Attributes: user [K], -1 for a shadow; position [K, 2], m, of a shadow its foremost point; velocity [K, 2], m/s, of a shadow
    the greatest; depth [K]: how far the shadow goes on behind that point, breadth [K]: across, m, 0 for a user who is seen.
    """

    user: Array
    position: Array
    velocity: Array
    depth: Array
    breadth: Array


def _known(index: Array, position: Array, velocity: Array, shadows: Iterable[Phantom] = ()) -> Known:
    m = len(index)
    spots = [(*spot, *phantom.top) for phantom in shadows for spot in phantom.spots]
    rows, nothing = np.array(spots).reshape(-1, 6), np.zeros(m)
    return Known(
        np.concatenate([index, np.full(len(rows), -1)]), np.concatenate([position, rows[:, :2]]),
        np.concatenate([velocity, rows[:, 4:]]), np.concatenate([nothing, rows[:, 2]]), np.concatenate([nothing, rows[:, 3]]),
    )  # fmt: skip


@attrs.frozen(eq=False)
class Situation:
    """What the planner is asked in one cycle, and what was imagined.

    Attributes: user: [M] index of the observed user behind each obstacle, -1 for a phantom; frame: the curvilinear
    frame in which the rest is expressed, None for a straight road; world: the Cartesian state; known: everybody whom the
    safety check is to think of, also those beyond the M obstacles.
    """

    state: State
    obstacles: Obstacles
    hypotheses: Hypotheses
    bounds: Bounds
    user: Array
    frame: ReferencePath | None = None
    world: State | None = None
    known: Known | None = None


@attrs.define(eq=False)
class Interpreter:
    """Keeps the little memory that interpretation needs: goal lane, phantoms' hysteresis, last seen users.

    Attributes:
        n_obstacles: M, most obstacles handed to the planner; n_candidates: C in lane traffic.
        memory_seconds: for how long a user that is no longer detected is carried on at constant velocity.
    """

    public: Mapping[str, Any]
    bounds: Bounds
    n_obstacles: int = 6
    n_candidates: int = 3
    memory_seconds: float = 1.0
    n_samples: int = 50
    goal: float = 0.0
    _shadows: Shadows = attrs.field(
        init=False, default=attrs.Factory(lambda self: Shadows(float(self.public["dt"])), takes_self=True)
    )
    _seen: dict[int, tuple[float, Array, Array, Array]] = attrs.field(factory=dict)
    _hold: int = 0
    _frame: ReferencePath | None = None

    def interpret(self, observation: Mapping[str, Array], acceleration: float | None = None) -> Situation:
        """Return the planning question of this cycle.

        Arguments: acceleration: the longitudinal acceleration the last plan had here, m/s^2, or None to take the
            measured one.
        """
        x, y, heading, speed, yaw_rate, measured = (float(v) for v in observation["ego"])
        state = State(
            x,
            y,
            heading,
            speed,
            yaw_rate,
            self._viable(speed, measured if acceleration is None else acceleration),
        )
        users = self._users(observation)
        kind = self.public["kind"]
        if kind == "road":
            return self._road(state, users, float(observation["time"]))
        if kind == "occluded-intersection":
            return self._intersection(state, users)
        if kind == "occluded-pedestrian":
            return self._pedestrian(state, users)
        return self._lanes(state, users)

    def size_of(self, user: int, situation: Situation) -> tuple[float, float]:
        """Return length and width of an observed user, or of the kind of user that a phantom stands for."""
        if user >= 0 and user in self._seen:
            size = self._seen[user][3]
            return float(size[0]), float(size[1])
        return (0.6, 0.6) if self.public["kind"] == "occluded-pedestrian" else (4.0, 1.8)

    def _viable(self, speed: float, acceleration: float) -> float:
        # The acceleration of a held command is a figure of speech. Take one from which the jerk bound can still
        # keep the speed within its bounds: a^2 <= 2 j (distance to the bound).
        low, high = 0.0, float(self.public["speed_limit"])
        jerk = 0.8 * min(-self.bounds.j_x[0], self.bounds.j_x[1])
        least = -np.sqrt(2.0 * jerk * max(speed - low, 0.0))
        most = np.sqrt(2.0 * jerk * max(high - speed, 0.0))
        return float(np.clip(acceleration, max(least, self.bounds.a_x[0]), min(most, self.bounds.a_x[1])))

    def _users(self, observation: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
        # Detected now, or detected lately and carried on: index, position, velocity, size.
        now = float(observation["time"])
        for j in np.flatnonzero(observation["detected"]):
            self._seen[int(j)] = (
                now, observation["position"][j], observation["velocity"][j], observation["size"][j],
            )  # fmt: skip
        rows = [
            (j, p + v * (now - t), v, size)
            for j, (t, p, v, size) in self._seen.items()
            if now - t <= self.memory_seconds + 1e-9
        ]
        if not rows:
            return np.zeros(0, dtype=int), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))
        index, position, velocity, size = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
        return np.array(index), np.array(position), np.array(velocity), np.array(size)

    def _nearest(self, state: State, position: Array, velocity: Array) -> np.ndarray:
        # Ranked by how soon a conflict could come: distance, those behind demoted, fast closing ones promoted.
        offset = position - np.array([state.x, state.y])
        own = state.speed * np.array([np.cos(state.heading), np.sin(state.heading)])
        distance = np.hypot(offset[:, 0], 2.0 * offset[:, 1])
        closing = -((velocity - own) * offset).sum(axis=1) / np.maximum(np.hypot(*offset.T), 1e-6)
        behind = offset[:, 0] < -4.0
        rank = distance - 1.5 * np.maximum(closing, 0.0) + 20.0 * behind
        nearest: np.ndarray = np.argsort(rank, kind="stable")[: self.n_obstacles]
        return nearest

    def _lanes(self, state: State, users: tuple[Array, Array, Array, Array]) -> Situation:
        index, position, velocity, size = users
        known = _known(index, position, velocity)
        lanes = np.asarray(self.public["lanes"])
        wanted = float(self.public["goal_speed"])
        self.goal = self._choose_lane(state, position, velocity, lanes, wanted)
        chosen = self._nearest(state, position, velocity) if len(position) else np.zeros(0, dtype=int)
        position, velocity, index, size = position[chosen], velocity[chosen], index[chosen], size[chosen]
        m, c = len(position), self.n_candidates
        distance = np.hypot(*(position - np.array([state.x, state.y])).T) if m else np.zeros(0)
        stopping = state.speed**2 / 8.0 + 0.5 * state.speed
        certain = distance <= max(float(self.public["certain_range"]), stopping)
        if not np.any(self.public["sigma"]):
            certain = np.ones(m, dtype=bool)
        present = np.ones((c, m), dtype=bool)
        for row in range(
            1, c
        ):  # nested sets: each further candidate doubts the next farthest uncertain obstacle
            doubtful = np.flatnonzero(~certain)
            present[row, doubtful[max(len(doubtful) - row, 0) :]] = False
        # The first candidates go for the goal lane; the others keep the present lane and its neighbours open.
        here = lanes[np.argmin(np.abs(lanes - state.y))]
        order = [self.goal, *[v for v in sorted(lanes, key=lambda v: abs(v - here)) if v != self.goal]]
        goals = np.array(
            [
                order[0] if row < max(1, c // 2) else order[min(row - max(1, c // 2) + 1, len(order) - 1)]
                for row in range(c)
            ]
        )
        weight = np.full(c, 0.3 / max(c - 1, 1))
        weight[0] = 0.7 if c > 1 else 1.0
        road = self.public["road"]
        half = 1.0
        bounds = attrs.evolve(
            self.bounds,
            y=(float(road[0]) + half, float(road[1]) - half),
            speed_max=float(self.public["speed_limit"]),
        )
        # The ellipse of two 4.0 x 1.8 m bodies, stretched to the sizes at hand.
        axes = np.array(CAR_AXES) * (np.asarray(self.public["size"]) + size) / np.array([8.0, 3.6])
        return Situation(
            state,
            Obstacles(position, velocity, axes),
            Hypotheses(present, goals, np.full(c, wanted), weight=weight),
            bounds,
            index,
            known=known,
        )

    def _road(self, state: State, users: tuple[Array, Array, Array, Array], now: float) -> Situation:
        # A real road with bends: everything is moved to the frame of the reference path and planned there.
        if self._frame is None:
            self._frame = ReferencePath(self.public["path"], smoothing=PATH_SMOOTHING)
        frame = self._frame
        index, position, velocity, size = users
        flat = frame.state_to_frame(state)
        m = len(position)
        sd = frame.to_frame(position) if m else np.zeros((0, 2))
        offset = sd - np.array([flat.x, flat.y])
        moved = frame.velocity_to_frame(sd, velocity) if m else np.zeros((0, 2))
        near = (np.abs(offset[:, 0]) < 80.0) & (np.abs(offset[:, 1]) < 12.0)
        near &= ~self._follows(offset, moved, size)
        index, position, velocity, size, sd, offset, moved = (
            v[near] for v in (index, position, velocity, size, sd, offset, moved)
        )
        known = _known(index, sd, moved)
        own = flat.speed * np.array([np.cos(flat.heading), np.sin(flat.heading)])
        closing = -((moved - own) * offset).sum(axis=1) / np.maximum(np.hypot(*offset.T), 1e-6)
        rank = np.hypot(offset[:, 0], 2.0 * offset[:, 1]) - 1.5 * np.maximum(closing, 0.0)
        rank = rank + 20.0 * (offset[:, 0] < -5.0)
        chosen = np.argsort(rank, kind="stable")[: self.n_obstacles]
        index, position, velocity, size, sd, moved = (
            v[chosen] for v in (index, position, velocity, size, sd, moved)
        )
        m = len(sd)
        times = np.arange(self.n_samples) * float(self.public["dt"])
        speed = np.hypot(*velocity.T)
        heading = np.arctan2(velocity[:, 1], velocity[:, 0]) - frame.heading(sd[:, 0])
        heading = np.where(speed > 0.3, (heading + np.pi) % (2 * np.pi) - np.pi, 0.0)
        # Those who follow the road are predicted along it; those who cross go straight on in the plane.
        centres = sd[:, :, None] + moved[:, :, None] * times
        for j in np.flatnonzero(np.abs(heading) > np.deg2rad(25.0)):
            centres[j] = frame.to_frame(position[j] + velocity[j] * times[:, None]).T
        axes = self._axes(size, heading, sd - np.array([flat.x, flat.y]))
        limit = float(self.public["lateral_limit"])
        ahead = frame.curvature(np.linspace(flat.x, flat.x + max(4.0 * flat.speed, 15.0), 40))
        bend = float(np.abs(ahead).max())
        # The bend's own share of the lateral acceleration is taken off the bound, and caps the speed.
        cap = float(np.sqrt(0.8 * limit / max(bend, 1e-4)))
        a_y = max(limit - bend * flat.speed**2, 0.5)
        c = self.n_candidates
        present = np.ones((c, m), dtype=bool)
        goals = np.full(c, float(self.public["goal_y"]))
        goals[1:] = np.clip(flat.y, *self.public["road"])  # a second opinion: stay on the present line
        weight = np.full(c, 0.2 / max(c - 1, 1))
        weight[0] = 0.8 if c > 1 else 1.0
        slack = 0.2 + 0.5 * abs(flat.heading)
        low, high = (float(v) for v in self.public["road"])
        bounds = attrs.evolve(
            self.bounds,
            y=(min(low, flat.y) - slack, max(high, flat.y) + slack),
            v_x=(0.0, float(self.public["speed_limit"])),
            a_y=(-a_y, a_y),
            a_x=(-6.0, 3.0),
            j_x=(-10.0, 10.0),
            speed_max=float(self.public["speed_limit"]),
        )
        lateral = flat.flat()[1, 2]
        if abs(lateral) > 0.9 * a_y:
            flat = attrs.evolve(flat, yaw_rate=flat.yaw_rate * 0.9 * a_y / abs(lateral))
        return Situation(
            flat,
            Obstacles(sd, moved, axes, centres=centres, grow=False) if m else Obstacles.none(),
            Hypotheses(
                present, goals, np.full(c, min(self._arrival_speed(flat, now), cap)), np.full(c, cap), weight
            ),
            bounds,
            index,
            frame,
            state,
            known,
        )

    def _follows(self, offset: Array, moved: Array, size: Array) -> np.ndarray:
        # Whoever comes on behind us in our own corridor keeps its distance itself. Taken for an obstacle, it would have us in
        # "collision" as soon as it is close, and braking in front of it is the worst answer.
        own = np.asarray(self.public["size"])
        behind = offset[:, 0] < -0.5 * own[0]
        same: np.ndarray = np.abs(offset[:, 1]) < 0.5 * (own[1] + size[:, 1])
        return behind & same & (np.abs(moved[:, 1]) <= 0.5 * np.maximum(moved[:, 0], 0.3))

    def _arrival_speed(self, flat: State, now: float) -> float:
        # Arrive in the middle of the time window, at a speed that the goal asks for.
        first, last = (float(v) for v in self.public["goal_time"])
        left = max(0.5 * (first + last) - now, 0.5)
        low, high = (float(v) for v in self.public["goal_speeds"])
        wanted = (float(self.public["goal_s"]) - flat.x) / left
        if left < 2.0:
            wanted = float(np.clip(wanted, low, high))
        return float(np.clip(wanted, 0.5, self.public["speed_limit"]))

    def _axes(self, size: Array, heading: Array, offset: Array) -> Array:
        # Of the ellipses that cover both bodies (corner on the curve), the one that the present offset leaves widest:
        # slender beside a car in the next lane, blunt behind one in ours, so that a queue is closed up to.
        own = np.asarray(self.public["size"])
        c, s = np.abs(np.cos(heading)), np.abs(np.sin(heading))
        half_x = 0.5 * (own[0] + size[:, 0] * c + size[:, 1] * s) * 1.03
        half_y = 0.5 * (own[1] + size[:, 1] * c + size[:, 0] * s) * 1.08
        share = np.array([0.6, 0.35, 0.75, 0.85])
        a = half_x[:, None] / np.sqrt(1.0 - share)
        b = half_y[:, None] / np.sqrt(share)
        distance = np.hypot(offset[:, :1] / a, offset[:, 1:] / b)
        ahead = (offset[:, 0] > own[0]) & (np.abs(offset[:, 1]) < 0.5 * (own[1] + size[:, 1]))
        best = np.where((distance[:, 0] > 1.3) & ~ahead, 0, distance.argmax(axis=1))
        rows = np.arange(len(size))
        return np.stack([a[rows, best], b[rows, best]], axis=1)

    def _choose_lane(
        self, state: State, position: Array, velocity: Array, lanes: Array, wanted: float
    ) -> float:
        here = int(np.argmin(np.abs(lanes - state.y)))
        if abs(state.heading) > np.deg2rad(30.0):
            return self.goal
        value = np.full(len(lanes), -np.inf)
        for lane in range(max(0, here - 1), min(len(lanes), here + 2)):
            inside = np.abs(position[:, 1] - lanes[lane]) < 1.9 if len(position) else np.zeros(0, dtype=bool)
            ahead = position[inside, 0] - state.x
            v = velocity[inside, 0]
            front = ahead > (0.0 if lane == here else -7.0)
            reach = wanted
            if front.any():
                leader = np.argmin(np.where(front, ahead, np.inf))
                gap = max(ahead[leader] - 6.0, 0.0)
                reach = min(wanted, float(v[leader]) + gap / 6.0)
            rear = ~front
            danger = (
                bool((rear & (ahead + 2.0 * np.maximum(v - state.speed, 0.0) > -12.0)).any())
                if lane != here
                else False
            )
            value[lane] = reach - (2.0 if danger else 0.0) - 0.02 * abs(lanes[lane])
        current = int(np.argmin(np.abs(lanes - self.goal)))
        if not np.isfinite(value[current]):
            current = here
        best = int(np.argmax(value))
        self._hold = max(self._hold - 1, 0)
        if best != current and value[best] > value[current] + 1.0 and self._hold == 0:
            self._hold = 15
            current = best
        return float(lanes[current])

    @property
    def _times(self) -> Array:
        times: Array = np.arange(self.n_samples, dtype=np.float64) * np.float64(self.public["dt"])
        return times

    def _intersection(self, state: State, users: tuple[Array, Array, Array, Array]) -> Situation:
        index, position, velocity, _ = users
        shadows = hidden_cars(self.public, state, self._times)
        known = _known(index, position, velocity, shadows.values())
        # Cars that have left the conflict zone for good and cannot return are no obstacles.
        keep: np.ndarray = (
            ~((position[:, 1] * velocity[:, 1] > 0.0) & (np.abs(position[:, 1] - state.y) > 9.0))
            if len(position)
            else np.zeros(0, dtype=bool)
        )
        if len(position):
            arrival = np.abs(position[:, 1]) / np.maximum(np.abs(velocity[:, 1]), 0.5)
            index, position, velocity, arrival = index[keep], position[keep], velocity[keep], arrival[keep]
            order = np.argsort(arrival, kind="stable")[: self.n_obstacles]
            index, position, velocity = index[order], position[order], velocity[order]
        phantoms = self._shadows.update(shadows, state.speed)
        m, q = len(position), len(phantoms)
        centres = position[:, :, None] + velocity[:, :, None] * self._times
        everybody = _with_phantoms(velocity, centres, phantoms)
        axes = np.concatenate([np.tile(CROSSING_AXES, (m, 1)), np.tile(PHANTOM_AXES, (q, 1))]).astype(float)
        present = np.ones((2**q, m + q), dtype=bool)
        for row in range(2**q):
            for bit in range(q):
                present[row, m + bit] = bool(row >> bit & 1)
        c = len(present)
        bounds = attrs.evolve(
            self.bounds, y=(-0.05, 0.05), a_y=(-0.2, 0.2), j_y=(-2.0, 2.0), v_x=(0.0, 10.0), speed_max=10.0
        )
        weight = np.array([1.0])
        if q:
            # Chance that traffic of this density puts a hidden car where it matters.
            chance = -np.expm1(-CONFLICT_WINDOW * float(self.public["hidden_density"]))
            weight = np.array(
                [np.prod([chance if row >> bit & 1 else 1 - chance for bit in range(q)]) for row in range(c)]
            )
        return Situation(
            state,
            everybody.obstacles(axes),
            Hypotheses(
                present,
                np.zeros(c),
                np.full(c, float(self.public["goal_speed"])),
                weight=weight / weight.sum(),
            ),
            bounds,
            np.concatenate([index, np.full(q, -1)]),
            known=known,
        )

    def _pedestrian(self, state: State, users: tuple[Array, Array, Array, Array]) -> Situation:
        index, position, velocity, size = users
        walking = size[:, 0] < 1.5 if len(size) else np.zeros(0, dtype=bool)
        # Parked cars stand clear of the lane's corridor; they matter by what they hide.
        index, position, velocity = index[walking], position[walking], velocity[walking]
        gone = position[:, 1] < -3.5 if len(position) else np.zeros(0, dtype=bool)
        index, position, velocity = index[~gone], position[~gone], velocity[~gone]
        pace = float(self.public["hidden_speed"])
        # Somebody who stands at the kerb may set off at any moment.
        waiting = (
            (np.abs(velocity[:, 1]) < 0.1) & (position[:, 1] > 1.0)
            if len(position)
            else np.zeros(0, dtype=bool)
        )
        velocity = np.where(waiting[:, None], np.array([0.0, -pace]), velocity)
        centres = position[:, :, None] + velocity[:, :, None] * self._times
        for j in np.flatnonzero(waiting):
            centres[j] = waiting_walker(
                position[j], pace, state, float(self.public["goal_speed"]), self._times
            )
        shadows = hidden_walkers(self.public, state, self._times)
        known = _known(index, position, velocity, shadows.values())
        thought_of = {key: p for key, p in shadows.items() if np.isfinite(p.centres[0, 0])}
        found = self._shadows.update(thought_of, state.speed)
        phantoms = sorted((p for p in found if p.front[0] > state.x - 3.0), key=lambda p: p.front[0])[:2]
        m, q = len(position), len(phantoms)
        everybody = _with_phantoms(velocity, centres, phantoms)
        present = np.ones((1 + q, m + q), dtype=bool)
        for row in range(1 + q):
            for bit in range(q):
                present[row, m + bit] = row == bit + 1
        c = len(present)
        top = float(self.public["road"][1])
        if q:
            # Swerving back behind an imagined pedestrian would cost the very view that shows there is none.
            top = min(top, max(DEFENSIVE_Y + 0.3, state.y + 0.05))
        bounds = attrs.evolve(
            self.bounds,
            y=(float(self.public["road"][0]), top),
            a_y=(-1.0, 1.0),
            j_y=(-3.0, 3.0),
            v_x=(0.0, 10.0),
            speed_max=10.0,
        )
        weight = np.full(c, 0.5 / max(q, 1))
        weight[0] = 0.5 if q else 1.0
        axes = np.tile(WALKER_AXES, (m + q, 1)).astype(float)
        return Situation(
            state,
            everybody.obstacles(axes),
            # Away from the parked row the gaps open up earlier to the eye.
            Hypotheses(
                present,
                np.full(c, DEFENSIVE_Y if q else 0.0),
                np.full(c, float(self.public["goal_speed"])),
                weight=weight,
            ),
            bounds,
            np.concatenate([index, np.full(q, -1)]),
            known=known,
        )


@attrs.frozen(eq=False)
class _Everybody:
    # Detected users and phantoms in one set of arrays.
    centres: Array
    velocity: Array

    def obstacles(self, axes: Array) -> Obstacles:
        if not len(self.centres):
            return Obstacles.none()
        return Obstacles(self.centres[:, :, 0], self.velocity, axes, centres=self.centres, grow=False)


def _with_phantoms(velocity: Array, centres: Array, phantoms: list[Phantom]) -> _Everybody:
    q = len(phantoms)
    return _Everybody(
        np.concatenate([centres, np.array([p.centres for p in phantoms]).reshape(q, *centres.shape[1:])]),
        np.concatenate([velocity, np.array([p.top for p in phantoms]).reshape(-1, 2)]),
    )
