"""The world: ego vehicle, road users, contacts on ground truth, and the observation that is let out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from sfumato_cpto.simulator.geometry import Array, overlap, visible
from sfumato_cpto.simulator.movers import Mover

SUBSTEP = 0.02  # s, at which contacts are looked for


@attrs.frozen
class Perception:
    """What the sensors make of the truth.

    Attributes:
        range: sensor range, m.
        sigma: standard deviations of x, y, v_x (m, m, m/s); v_y has that of v_x. All zero: exact.
        model: "grows" with distance up to `sigma` at `range`, or "released": divided by max(10/sqrt(d + 0.1), 1)
            and zero inside 15 m.
        certain_range: inside it every user is detected, m.
        detection: probability of detection at `range`; falls linearly from 1 at `certain_range`.
    """

    range: float = 120.0
    sigma: tuple[float, float, float] = (0.0, 0.0, 0.0)
    model: str = attrs.field(default="grows", validator=attrs.validators.in_(("grows", "released")))
    certain_range: float = 10.0
    detection: float = 1.0


@attrs.frozen(eq=False)
class Scene:
    """Everything that defines an episode before it begins.

    Attributes:
        kind: name of the family.
        movers: makes fresh movers from a generator.
        ego: (x, y, heading, speed); size: (length, width) m.
        walls: [W, 2, 2] segments that block sight; `occluders`: indices of movers whose users block sight too.
        public: what the agent may know (lanes, bounds, limits, walls).
        goal_x: the course is finished there; max_time in s.
    """

    kind: str
    movers: tuple[Mover, ...]
    ego: tuple[float, float, float, float]
    size: tuple[float, float]
    walls: Array
    occluders: tuple[int, ...]
    public: dict[str, Any]
    goal_x: float
    max_time: float
    perception: Perception
    dt: float = 0.1
    speed_limits: tuple[float, float] = (-9.0, 5.0)  # what the drive and brakes can do, m/s^2
    off_road: float = float("inf")  # |y| beyond which the vehicle has left the road
    arrived: Callable[[Array, float], bool] | None = None  # (ego, time) -> goal reached; None: x >= goal_x
    on_road: Callable[[Array], bool] | None = None  # ego -> still on the road; None: |y| <= off_road


@attrs.frozen(eq=False)
class Contact:
    """A first contact with one user: time s, index of the user, whether the ego vehicle is to blame, ego speed m/s."""

    time: float
    user: int
    at_fault: bool
    speed: float


class World:
    """Runs a scene. `step` takes (speed, yaw rate) to hold for one period; nothing here is shown to the agent but
    `observe`."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        self.time = 0.0
        self.ego = np.array(scene.ego, dtype=float)
        self.yaw_rate = 0.0
        self.acceleration = 0.0
        self.contacts: list[Contact] = []
        self.left_road = False
        self._touching: set[int] = set()
        self._arrived = False
        self.ego_log = [self._ego_row()]
        self.user_log = [self._truth_rows()]

    def _ego_row(self) -> Array:
        return np.array([self.time, *self.ego, self.yaw_rate, self.acceleration])

    def _stack(self) -> tuple[Array, Array, Array, Array]:
        users = [mover.users for mover in self.scene.movers]
        return (
            np.concatenate([u.position for u in users]),
            np.concatenate([u.heading for u in users]),
            np.concatenate([u.speed for u in users]),
            np.concatenate([u.size for u in users]),
        )

    def _truth_rows(self) -> Array:
        position, heading, speed, size = self._stack()
        return np.column_stack([position, heading, speed, size])

    def step(self, speed: float, yaw_rate: float) -> None:
        """Advance one period; commands beyond what drive and brakes can do are limited, not refused."""
        scene, dt = self.scene, self.scene.dt
        low, high = scene.speed_limits
        v0 = self.ego[3]
        v = float(np.clip(speed, max(v0 + low * dt, 0.0), v0 + high * dt))
        turn = float(yaw_rate)
        before_position, _before_heading, _, _ = self._stack()
        ego_pose = self.ego.copy()
        for mover in scene.movers:
            mover.step(self.time, dt, ego_pose, self.rng)
        after_position, after_heading, after_speed, size = self._stack()
        jumped = ~(np.hypot(*(after_position - before_position).T) < 8.0)  # re-entered elsewhere, or appeared
        before_position = np.where(jumped[:, None], after_position, before_position)
        n_sub = max(1, round(dt / SUBSTEP))
        h = dt / n_sub
        for i in range(1, n_sub + 1):
            x, y, theta = self.ego[:3]
            # Exact arc of the unicycle over the substep.
            middle = theta + 0.5 * turn * h
            chord = v * h * np.sinc(0.5 * turn * h / np.pi)
            self.ego[:3] = x + chord * np.cos(middle), y + chord * np.sin(middle), theta + turn * h
            share = i / n_sub
            position = before_position + share * (after_position - before_position)
            near = np.hypot(*(position - self.ego[:2]).T) < 12.0
            for j in np.flatnonzero(near):
                hit = bool(
                    overlap(
                        self.ego[:2],
                        self.ego[2],
                        np.array(scene.size),
                        position[j],
                        after_heading[j],
                        size[j],
                    )
                )
                if hit and j not in self._touching:
                    self._touching.add(int(j))
                    fault = self._at_fault(position[j], after_heading[j], after_speed[j], v)
                    self.contacts.append(Contact(self.time + share * dt, int(j), fault, v))
                elif not hit:
                    self._touching.discard(int(j))
        self.ego[3] = v
        self.acceleration = (v - v0) / dt
        self.yaw_rate = turn
        self.time += dt
        on_road = abs(self.ego[1]) <= scene.off_road if scene.on_road is None else scene.on_road(self.ego)
        self.left_road = self.left_road or not on_road
        if scene.arrived is not None:
            self._arrived = self._arrived or scene.arrived(self.ego, self.time)
        self.ego_log.append(self._ego_row())
        self.user_log.append(self._truth_rows())

    def _at_fault(self, position: Array, heading: float, speed: float, v: float) -> bool:
        # Not to blame: struck from behind by a faster user in the same direction.
        offset = position - self.ego[:2]
        c, s = np.cos(self.ego[2]), np.sin(self.ego[2])
        ahead = float(offset[0] * c + offset[1] * s)
        along = speed * float(np.cos(heading - self.ego[2]))
        aligned = float(np.cos(heading - self.ego[2])) > 0.7
        return not (aligned and ahead < -0.5 * self.scene.size[0] and along > v)

    @property
    def finished(self) -> bool:
        """Whether the course has been driven to its end."""
        return self._arrived if self.scene.arrived is not None else bool(self.ego[0] >= self.scene.goal_x)

    @property
    def timed_out(self) -> bool:
        """Whether the time allowed is over."""
        return self.time >= self.scene.max_time - 1e-9

    def observe(self) -> dict[str, Array]:
        """Return the observation: ego [6], and per user detected [M], position, velocity [M, 2], heading, size.

        Rows of users that are not detected are zero. ego = (x, y, heading, speed, yaw rate, acceleration).
        """
        scene, p = self.scene, self.scene.perception
        position, heading, speed, size = self._stack()
        velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        valid = np.logical_and.reduce(np.isfinite(position), axis=1)
        position, velocity = np.where(valid[:, None], position, 0.0), np.where(valid[:, None], velocity, 0.0)
        heading = np.where(valid, heading, 0.0)
        distance = np.hypot(*(position - self.ego[:2]).T)
        walls = [scene.walls]
        if scene.occluders:
            from sfumato_cpto.simulator.geometry import rectangle_walls

            for index in scene.occluders:
                u = scene.movers[index].users
                walls.append(rectangle_walls(u.position, u.heading, u.size))
        seen = valid & (distance <= p.range)
        sight = np.asarray(visible(self.ego[:2], position, heading, size, np.concatenate(walls)))
        if scene.occluders:  # a parked car does not hide itself: its own edges pass through its corners
            first = 0
            for index, mover in enumerate(scene.movers):
                count = len(mover.users.speed)
                if index in scene.occluders:
                    sight[first : first + count] = True
                first += count
        seen &= sight
        m = len(position)
        # Draws are made for every user and cycle, so that detection does not shift the stream.
        luck, noise = self.rng.random(m), self.rng.normal(size=(m, 4))
        span = max(p.range - p.certain_range, 1e-9)
        chance = 1.0 - (1.0 - p.detection) * np.clip((distance - p.certain_range) / span, 0.0, 1.0)
        seen &= luck <= chance
        if any(p.sigma):
            if p.model == "grows":
                scale = distance / p.range
            else:
                scale = np.where(distance < 15.0, 0.0, 1.0 / np.maximum(10.0 / np.sqrt(distance + 0.1), 1.0))
            sigma = np.array([p.sigma[0], p.sigma[1], p.sigma[2], p.sigma[2]])
            noise = noise * sigma * scale[:, None]
            position, velocity = position + noise[:, :2], velocity + noise[:, 2:]
        keep = seen[:, None]
        return {
            "ego": np.array([*self.ego, self.yaw_rate, self.acceleration]),
            "time": np.array(self.time),
            "detected": seen,
            "position": np.where(keep, position, 0.0),
            "velocity": np.where(keep, velocity, 0.0),
            "heading": np.where(seen, heading, 0.0),
            "size": np.where(keep, size, 0.0),
        }
