"""Tasks for sfumato's runner: each problem's model as a world, played from a start state that the agent does not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from sfumato.errors import ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Model
from sfumato_vopp.models.crowdnav import CrowdNav, CrowdWorld
from sfumato_vopp.models.lasertag import LaserTag
from sfumato_vopp.models.lightdark import LightDark
from sfumato_vopp.models.mars import Mars
from sfumato_vopp.models.navigation import Navigation
from sfumato_vopp.models.rocksample import MAPS, RockSample, random_rocks
from sfumato_vopp.models.tag import Tag
from sfumato_vopp.models.tiger import Tiger
from sfumato_vopp.pomdpfile import load_pomdp
from sfumato_vopp.task_config import (
    CrowdNavConfig,
    FileConfig,
    LaserTagConfig,
    MarsConfig,
    NavigationConfig,
    RockSampleConfig,
    TaskConfig,
    TigerConfig,
    example_path,
)

__all__ = [
    "NO_OBSERVATION",
    "CrowdNavTask",
    "FileTask",
    "Instance",
    "LaserTagTask",
    "LightDarkTask",
    "MarsTask",
    "NavigationTask",
    "PomdpTask",
    "RockSampleTask",
    "TagTask",
    "TigerTask",
]

#: What an agent is shown before its first action.
NO_OBSERVATION = -1


@attrs.frozen(eq=False)
class Instance:
    """One episode's problem: its index and the model of its world."""

    index: int
    model: Model


def _refuse_after_end(over: bool) -> None:
    if over:
        raise ProtocolError("expected no step after the end of the episode, got one; begin a new episode")


class PomdpEpisode(Episode[int, int]):
    """A model played from one hidden start state."""

    def __init__(self, instance: Instance, state: Any, rng: np.random.Generator) -> None:
        self._model, self._state, self._rng = instance.model, state, rng
        self._start = state
        self._states = [state[0].tolist()]
        self._over = False

    def reset(self) -> Start[int]:
        """Show the model, and no observation yet."""
        return Start(NO_OBSERVATION, {"pomdp_model": self._model})

    def step(self, action: int) -> Step[int]:
        """Carry out an action.

        Raises:
            ModelError: an action id out of range.
            ProtocolError: the episode has ended.
        """
        _refuse_after_end(self._over)
        a = int(action)
        if not 0 <= a < self._model.n_actions:
            raise ModelError(f"expected an action in 0 … {self._model.n_actions - 1}, got {action}")
        out = self._model.step(self._state, np.array([a]), self._rng)
        self._state, self._over = out.states, bool(out.terminal[0])
        self._states.append(self._state[0].tolist())
        return Step(int(out.observations[0]), float(out.rewards[0]), bool(out.terminal[0]), False)

    def truth(self) -> Mapping[str, Any]:
        """Return the start state, the last one, and all of them in order."""
        return {"start_state": self._start[0].tolist(), "last_state": self._state[0].tolist(), "states": self._states}


class PomdpTask(Task[Instance, int, int]):
    """A family of episodes on one model; subclasses say which.

    ``Start.public["pomdp_model"]`` is the model; observations and actions are its ids. The first observation is -1.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"pomdp_model"})

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.max_steps = config.max_steps
        self.model = self.make_model()
        self._strata = self._listed_starts() if config.stratified else None

    def make_model(self) -> Model:
        """Build the model from the settings."""
        raise NotImplementedError

    def episode_model(self, index: int) -> Model:
        """Return the model of one episode: the task's own, unless each episode has a layout of its own."""
        return self.model

    def _listed_starts(self) -> Any:
        listed = self.model.initial_distribution()
        if listed is None or not np.allclose(listed[1], listed[1][0]):
            return None
        return listed[0][np.random.default_rng(20260101).permutation(len(listed[0]))]

    def instances(self, ctx: Context) -> Iterable[Instance]:
        """Yield one instance for each index."""
        for index in ctx.indices:
            yield Instance(int(index), self.episode_model(int(index)))

    def start(self, instance: Instance, ctx: Context, rng: np.random.Generator) -> PomdpEpisode:
        """Begin an episode in a start state that only the world knows."""
        if self._strata is not None:
            state = self._strata[instance.index % len(self._strata)][None]
        else:
            state = instance.model.initial(1, rng)
        return PomdpEpisode(instance, state, rng)


class TigerTask(PomdpTask):
    """Tiger; see :class:`sfumato_vopp.models.tiger.Tiger`."""

    config: TigerConfig

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return Tiger(self.config.accuracy, self.config.discount)


class RockSampleTask(PomdpTask):
    """RockSample; see :class:`sfumato_vopp.models.rocksample.RockSample`."""

    config: RockSampleConfig

    def make_model(self) -> Model:
        """Build the model from the settings."""
        c = self.config
        rocks = None if (c.n, c.k) in MAPS else random_rocks(c.n, c.k, np.random.default_rng(c.layout_seed))
        return RockSample(c.n, c.k, rocks, c.discount)


class TagTask(PomdpTask):
    """Tag; see :class:`sfumato_vopp.models.tag.Tag`."""

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return Tag(self.config.discount)


class LaserTagTask(PomdpTask):
    """LaserTag; see :class:`sfumato_vopp.models.lasertag.LaserTag`."""

    config: LaserTagConfig

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return LaserTag(layout_seed=self.config.layout_seed, discount=self.config.discount)

    def episode_model(self, index: int) -> Model:
        """Return a model with this episode's obstacles."""
        if not self.config.layout_each_episode:
            return self.model
        return LaserTag(layout_seed=self.config.layout_seed + index, discount=self.config.discount)


class LightDarkTask(PomdpTask):
    """Light-Dark; see :class:`sfumato_vopp.models.lightdark.LightDark`."""

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return LightDark(self.config.discount)


class NavigationTask(PomdpTask):
    """Navigation; see :class:`sfumato_vopp.models.navigation.Navigation`."""

    config: NavigationConfig

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return Navigation(self.config.layout_seed, self.config.discount)

    def episode_model(self, index: int) -> Model:
        """Return a model with this episode's known obstacles."""
        if not self.config.layout_each_episode:
            return self.model
        return Navigation(self.config.layout_seed + index, self.config.discount)


class MarsTask(PomdpTask):
    """MARS; see :class:`sfumato_vopp.models.mars.Mars`."""

    config: MarsConfig

    def make_model(self) -> Model:
        """Build the model from the settings."""
        return self.episode_model(0)

    def episode_model(self, index: int) -> Model:
        """Return a model with this episode's rocks."""
        c = self.config
        if not c.layout_each_episode and hasattr(self, "model"):
            return self.model
        return Mars(c.n, c.m, c.layout_seed + index, c.discount)


class CrowdEpisode(Episode[Any, int]):
    """A hall full of people. Observations: robot x, y, then number, x, y of the six nearest; float64 [20]."""

    def __init__(self, instance: Instance, world: CrowdWorld) -> None:
        self._model, self._world = instance.model, world
        self._over = False

    def reset(self) -> Start[Any]:
        """Show the model, and who stands near."""
        return Start(self._world.observe(), {"pomdp_model": self._model})

    def step(self, action: int) -> Step[Any]:
        """Carry out an action; an id out of range raises ModelError, a step after the end ProtocolError."""
        _refuse_after_end(self._over)
        a = int(action)
        if not 0 <= a < self._model.n_actions:
            raise ModelError(f"expected an action in 0 … {self._model.n_actions - 1}, got {action}")
        seen, reward, done = self._world.step(a)
        self._over = done
        return Step(seen, reward, done, False)

    def truth(self) -> Mapping[str, Any]:
        """Return who is curious, and where the robot ended."""
        return {"curious": self._world.curious.tolist(), "last_state": self._world.robot.tolist()}


class CrowdNavTask(PomdpTask):
    """CrowdNav; see :mod:`sfumato_vopp.models.crowdnav`."""

    config: CrowdNavConfig

    def make_model(self) -> Model:
        """Build the planner's model."""
        return CrowdNav(self.config.discount)

    def start(self, instance: Instance, ctx: Context, rng: np.random.Generator) -> Any:
        """Fill the hall."""
        return CrowdEpisode(instance, CrowdWorld(rng, self.config.n_pedestrians))


class FileTask(PomdpTask):
    """The POMDP of a ``.pomdp`` file; see :mod:`sfumato_vopp.pomdpfile`."""

    config: FileConfig

    def make_model(self) -> Model:
        """Read the file."""
        return load_pomdp(example_path(self.config.path))
