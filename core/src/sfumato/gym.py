"""Gymnasium both ways: any environment as a Task, any Task as an environment (extra `gym`).

    GymTask(GymConfig(id="CartPole-v1"))         a Task with one episode an item
    TaskEnv(task, observation_space, action_space)    an environment that Gymnasium's own checker accepts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import gymnasium
import numpy as np

from sfumato.context import RunContext
from sfumato.errors import ConfigError, ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step


@attrs.frozen
class GymConfig:
    """Which environment, and what is handed to `gymnasium.make`."""

    id: str = attrs.field(default="CartPole-v1", metadata={"help": "the environment's registered name"})
    kwargs: Mapping[str, Any] = attrs.field(factory=dict, metadata={"help": "keyword arguments of gymnasium.make"})


class GymTask(Task[int, Any, Any]):
    """A Gymnasium environment as a task: an item is a reset seed, drawn from the stream "instance".

    `public` holds `action_space` and `observation_space`. The environment's own time limit truncates as it always
    does. Raises ConfigError, with Gymnasium's hint, for an unknown environment.
    """

    offers = frozenset({"action_space", "observation_space"})

    def __init__(self, config: GymConfig = GymConfig()) -> None:
        self.config = config
        try:
            self.spec = gymnasium.spec(config.id)
        except gymnasium.error.Error as error:
            raise ConfigError(f"no Gymnasium environment {config.id!r}: {error}. Set id to a registered one.") from error

    def make(self) -> gymnasium.Env[Any, Any]:
        """Return a new environment."""
        return gymnasium.make(self.config.id, **self.config.kwargs)

    def instances(self, ctx: Context) -> Iterable[int]:
        """Yield the reset seed of each item."""
        for k in ctx.indices:
            yield int(ctx.stream("instance", k).integers(2**31))

    def start(self, instance: int, ctx: Context, rng: np.random.Generator) -> GymEpisode:
        """Begin an episode; the environment's luck follows from the reset seed."""
        return GymEpisode(self.make(), instance)


class GymEpisode(Episode[Any, Any]):
    """One episode of an environment, closed at its end."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        self.env, self.seed, self.over = env, seed, False

    def reset(self) -> Start[Any]:
        """Reset with the item's seed."""
        observation, _ = self.env.reset(seed=self.seed)
        return Start(
            observation, public={"action_space": self.env.action_space, "observation_space": self.env.observation_space}
        )

    def step(self, action: Any) -> Step[Any]:
        """Step; raises ProtocolError after the end, ValueError for an action outside the space."""
        if self.over:
            raise ProtocolError("the episode is over")
        if not self.env.action_space.contains(action):
            raise ValueError(f"expected an action in {self.env.action_space}, got {action!r}")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.over = bool(terminated or truncated)
        if self.over:
            self.env.close()
        return Step(observation, float(reward), bool(terminated), bool(truncated), info)


class TaskEnv(gymnasium.Env[Any, Any]):
    """A task (unbatched) as a Gymnasium environment: each reset begins the next item.

    The spaces are the caller's, since a Task does not have to name them. `reset(seed=s)` makes item 0 of seed s come
    next, so equal seeds give equal episodes.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        task: Task[Any, Any, Any],
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        seed: int = 0,
    ) -> None:
        if task.batched:
            raise ProtocolError("a batched task is no single environment; give one that yields single instances")
        self.task = task
        self.observation_space = observation_space
        self.action_space = action_space
        self._seed, self._item, self._steps = seed, 0, 0
        self._episode: Episode[Any, Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next item, or item 0 of `seed`."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._item = seed, 0
        ctx = RunContext(seed=self._seed, indices=range(self._item, self._item + 1))
        instance = next(iter(self.task.instances(ctx)))
        self._episode = self.task.start(instance, ctx, ctx.stream("world", self._item))
        self._item += 1
        self._steps = 0
        return self._episode.reset().observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out an action; the task's own step limit truncates."""
        if self._episode is None:
            raise ProtocolError("reset comes before step")
        step = self._episode.step(action)
        self._steps += 1
        limit = self.task.max_steps
        cut = limit is not None and self._steps >= limit and not step.terminated
        return step.observation, float(step.reward), bool(step.terminated), bool(step.truncated or cut), dict(step.info)
