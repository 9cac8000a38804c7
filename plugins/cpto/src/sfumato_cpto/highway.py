"""The planner in highway-env: traffic, lanes and contacts are theirs, the vehicle's pose is ours (extra `gym`).

    from sfumato_cpto.highway import HighwayWorld
    world = HighwayWorld(seed=0)
    driver = Driver(CPTOSolver()); driver.reset(world.scene.public)
    while not world.timed_out: world.step(*driver.act(world.observe()))

Source: Leurent, "An environment for autonomous driving decision-making" (2018), package highway-env.
"""

from __future__ import annotations

from typing import Any

import attrs
import gymnasium
import highway_env  # noqa: F401  (registers the environments)
import numpy as np
from highway_env.vehicle.kinematics import Vehicle

from sfumato_cpto.simulator.geometry import Array
from sfumato_cpto.simulator.world import Contact

SUBSTEPS = 5  # of a control period
START_SPEED = 20.0  # m/s
SPEED_LIMIT = 24.0  # m/s


class PosedVehicle(Vehicle):  # type: ignore[misc]
    """A vehicle that is driven by (speed, yaw rate) along exact arcs instead of by pedals and steering."""

    heading: float
    position: Array
    speed: float
    pace = 0.0
    turn = 0.0

    def act(self, action: Any = None) -> None:
        """Do nothing: the command was given."""

    def step(self, dt: float) -> None:
        """Follow the arc for dt seconds."""
        middle = self.heading + 0.5 * self.turn * dt
        chord = self.pace * dt * np.sinc(0.5 * self.turn * dt / np.pi)
        self.position = self.position + chord * np.array([np.cos(middle), np.sin(middle)])
        self.heading = self.heading + self.turn * dt
        self.speed = self.pace
        self.on_state_update()


@attrs.frozen(eq=False)
class HighwayScene:
    """What the agent may know of the road, and the sensors' range in m."""

    public: dict[str, Any]
    sensing: float = 100.0


class HighwayWorld:
    """A course on highway-env's straight road, with the interface of `simulator.world.World`.

    Arguments: seed; lanes, vehicles: counts; density of theirs; seconds: length; environment: a straight-road environment
    of highway-env.
    """

    def __init__(
        self,
        seed: int,
        lanes: int = 4,
        vehicles: int = 30,
        density: float = 1.0,
        seconds: float = 20.0,
        environment: str = "highway-v0",
    ) -> None:
        config = {
            "lanes_count": lanes,
            "vehicles_count": vehicles,
            "vehicles_density": density,
            "duration": 1e9,
        }
        self.env: Any = gymnasium.make(environment, config=config)
        self.env.reset(seed=seed)
        inner = self.env.unwrapped
        theirs = inner.vehicle
        self.vehicle = PosedVehicle(inner.road, theirs.position.copy(), 0.0, START_SPEED)
        self.vehicle.pace = START_SPEED
        inner.road.vehicles[inner.road.vehicles.index(theirs)] = self.vehicle
        inner.vehicle = self.vehicle
        self.dt, self.time, self.seconds = 0.1, 0.0, seconds
        self.yaw_rate = self.acceleration = 0.0
        self.contacts: list[Contact] = []
        self.finished = False
        width = 4.0
        ys = width * np.arange(lanes)
        self.scene = HighwayScene(
            {
                "kind": "highway", "lanes": ys, "road": np.array([ys[0] - 0.5 * width, ys[-1] + 0.5 * width]),
                "goal_speed": START_SPEED, "speed_limit": SPEED_LIMIT, "goal_x": float("inf"), "dt": self.dt,
                "size": np.array([Vehicle.LENGTH, Vehicle.WIDTH]), "walls": np.zeros((0, 2, 2)), "certain_range": 100.0,
                "sigma": np.zeros(3),
            }
        )  # fmt: skip

    @property
    def ego(self) -> Array:
        """(x, y, heading, speed)."""
        return np.array([*self.vehicle.position, self.vehicle.heading, self.vehicle.speed])

    @property
    def timed_out(self) -> bool:
        """Whether the time allowed is over."""
        return self.time >= self.seconds - 1e-9

    def step(self, speed: float, yaw_rate: float) -> None:
        """Hold (speed, yaw rate) for one period; their traffic reacts."""
        before = self.vehicle.speed
        speed = float(np.clip(speed, max(before - 0.9, 0.0), before + 0.5))
        self.vehicle.pace, self.vehicle.turn = speed, float(yaw_rate)
        road = self.env.unwrapped.road
        for k in range(SUBSTEPS):
            road.act()
            road.step(self.dt / SUBSTEPS)
            if self.vehicle.crashed and not self.contacts:
                self._note(self.time + (k + 1) * self.dt / SUBSTEPS)
        self.acceleration, self.yaw_rate = (speed - before) / self.dt, float(yaw_rate)
        self.time += self.dt

    def _note(self, time: float) -> None:
        # Struck from behind by a faster car is not our fault, as in our own simulator.
        others = [v for v in self.env.unwrapped.road.vehicles if v is not self.vehicle and v.crashed]
        offset = [float(np.hypot(*(v.position - self.vehicle.position))) for v in others]
        fault, user = True, -1
        if others:
            user = int(np.argmin(offset))
            other = others[user]
            behind = other.position[0] - self.vehicle.position[0] < -0.5 * Vehicle.LENGTH
            fault = not (behind and other.speed > self.vehicle.speed)
        self.contacts.append(Contact(time, user, fault, float(self.vehicle.speed)))

    def observe(self) -> dict[str, Array]:
        """Return the observation in the form of `World.observe`; users keep their row for the whole course."""
        others = [v for v in self.env.unwrapped.road.vehicles if v is not self.vehicle]
        position = np.array([v.position for v in others]).reshape(-1, 2)
        heading, speed = np.array([v.heading for v in others]), np.array([v.speed for v in others])
        seen = np.hypot(*(position - self.ego[:2]).T) <= self.scene.sensing
        keep = seen[:, None]
        velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        size = np.array([[v.LENGTH, v.WIDTH] for v in others]).reshape(-1, 2)
        return {
            "ego": np.array([*self.ego, self.yaw_rate, self.acceleration]), "time": np.array(self.time), "detected": seen,
            "position": np.where(keep, position, 0.0), "velocity": np.where(keep, velocity, 0.0),
            "heading": np.where(seen, heading, 0.0), "size": np.where(keep, size, 0.0),
        }  # fmt: skip

    def close(self) -> None:
        """Close their environment."""
        self.env.close()
