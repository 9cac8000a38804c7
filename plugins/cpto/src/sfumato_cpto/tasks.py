"""Tasks of the runner: the scene families as episodes. An action is (speed m/s, yaw rate rad/s) for one period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from sfumato.errors import ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step
from sfumato_cpto.config import (
    CruiseConfig,
    IntersectionConfig,
    NoisyConfig,
    PedestrianConfig,
    RacingConfig,
    ReplayConfig,
)
from sfumato_cpto.simulator import scenes
from sfumato_cpto.simulator.world import Scene, World

Observation = dict[str, np.ndarray]


class ActionError(ValueError):
    """Raised when an action is not two finite numbers."""


@attrs.frozen
class Course:
    """An instance: the family and its number; the world's generator draws the rest."""

    family: str
    item: int
    scene: str = ""


class DrivingEpisode(Episode[Observation, Any]):
    """One course. Ends at the goal, at a contact that the vehicle is to blame for, or when time is up.

    The reward is the distance gained along x in the period, m.
    """

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.world = World(scene, rng)
        self._first = self.world.observe()  # drawn once: a second reset shows the same
        self._over = False

    def reset(self) -> Start[Observation]:
        """Return the first observation and what may be known of the scene."""
        return Start(self._first, self.world.scene.public)

    def step(self, action: Any) -> Step[Observation]:
        """Hold (speed, yaw rate) for one period."""
        if self._over:
            raise ProtocolError(
                "the episode is over: the drive was finished, ran out of time, or ended in a contact"
            )
        values = np.asarray(action, dtype=float)
        if values.shape != (2,) or not np.isfinite(values).all():
            raise ActionError(f"expected an action (speed, yaw rate) of two finite numbers, got {action!r}")
        world = self.world
        before = world.ego[0]
        world.step(float(values[0]), float(values[1]))
        blamed = any(contact.at_fault for contact in world.contacts)
        self._over = bool(world.finished or blamed or world.timed_out)
        return Step(
            world.observe(),
            float(world.ego[0] - before),
            bool(world.finished or blamed),
            bool(world.timed_out),
            {},
        )

    def truth(self) -> Mapping[str, Any]:
        """Return the course as it was: ego [T + 1, 7], users [T + 1, M, 6], contacts, whether it was finished."""
        world = self.world
        return {
            "family": world.scene.kind,
            "ego": np.array(world.ego_log),
            "users": np.array(world.user_log),
            "contacts": [
                {"time": c.time, "user": c.user, "at_fault": c.at_fault, "speed": c.speed}
                for c in world.contacts
            ],
            "finished": world.finished,
            "has_goal": bool(np.isfinite(world.scene.goal_x)),
            "left_road": world.left_road,
            "goal_speed": float(world.scene.public["goal_speed"]),
            "ego_size": np.array(world.scene.size),
            "walls": np.array(world.scene.walls),
            "lanes": np.array(world.scene.public["lanes"]),
            "crossing_x": np.array(world.scene.public.get("crossing_x", ())),
            "dt": world.scene.dt,
        }


class _DrivingTask(Task[Course, Observation, Any]):
    family: ClassVar[str]
    offers = frozenset(
        {"kind", "lanes", "road", "goal_speed", "speed_limit", "goal_x", "dt", "size", "walls"}
    )

    def __init__(self, config: Any) -> None:
        self.config = config
        self.max_steps = round(config.seconds / 0.1) + 1

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        raise NotImplementedError

    def instances(self, ctx: Context) -> Iterator[Course]:
        """Yield one course per index."""
        for item in ctx.indices:
            yield Course(self.family, int(item))

    def start(self, instance: Course, ctx: Context, rng: np.random.Generator) -> DrivingEpisode:
        """Begin a course; scene and traffic draw from `rng` alone."""
        return DrivingEpisode(self.scene(rng), rng)


class CruiseTask(_DrivingTask):
    """Dense car-following traffic on six lanes."""

    family = "cruise"
    config: CruiseConfig

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        c = self.config
        return scenes.cruise(rng, n_cars=c.n_cars, slow=c.slow, max_time=c.seconds)


class RacingTask(_DrivingTask):
    """Sparser traffic at 22 m/s."""

    family = "racing"
    config: RacingConfig

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        return attrs.evolve(scenes.racing(rng), max_time=self.config.seconds)


class NoisyTask(_DrivingTask):
    """Dense traffic through noisy sensors that fail."""

    family = "noisy"
    config: NoisyConfig

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        c = self.config
        scene = scenes.noisy(rng, scale=c.scale, released=c.released, detection=c.detection)
        return attrs.evolve(scene, max_time=c.seconds)


class IntersectionTask(_DrivingTask):
    """Crossing traffic hidden by buildings."""

    family = "occluded-intersection"
    config: IntersectionConfig

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        c = self.config
        left, right = c.corners
        walls = ((left, scenes.WALLS[0][1]), (scenes.WALLS[1][0], -right))
        return scenes.occluded_intersection(
            rng, max_time=c.seconds, hidden_speed=c.hidden_speed, yields=c.yields, n_cars=c.n_cars, walls=walls,
            goal_speed=c.goal_speed,
        )  # fmt: skip


class PedestrianTask(_DrivingTask):
    """Somebody may step out between parked cars."""

    family = "occluded-pedestrian"
    config: PedestrianConfig

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a scene."""
        c = self.config
        return scenes.occluded_pedestrian(
            rng, max_time=c.seconds, hidden_speed=c.hidden_speed, probability=c.probability, body=c.body,
            hidden_size=c.hidden_size, gap_reach=c.gap_reach,
        )  # fmt: skip


class ReplayTask(_DrivingTask):
    """Recorded traffic around the vehicle; nothing is drawn at random."""

    family = "replay"
    config: ReplayConfig

    def instances(self, ctx: Context) -> Iterator[Course]:
        """Yield one course per index, scene by scene."""
        names = self.config.scenes
        for item in ctx.indices:
            yield Course(self.family, int(item), names[int(item) % len(names)])

    def start(self, instance: Course, ctx: Context, rng: np.random.Generator) -> DrivingEpisode:
        """Read the scene's file and begin. Raises DataMissing, or SceneError for a damaged file."""
        from sfumato_cpto.simulator import replay

        path = ctx.data_file(
            f"traffic/{instance.scene}.xml", fetch="the CommonRoad scenarios of commonroad-io"
        )
        scene = replay.from_file(path, self.config.route)
        return DrivingEpisode(attrs.evolve(scene, max_time=min(scene.max_time, self.config.seconds)), rng)
