"""PPO of Stable-Baselines3, for any task that offers Gymnasium spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato.context import RunContext
from sfumato.gym import TaskEnv
from sfumato.protocols import Context, Policy, Solver, Task
from sfumato.records import Refusal, Start
from sfumato_sb3.config import PPOConfig

SPACES = frozenset({"action_space", "observation_space"})


class RandomSolver(Solver[Any, Any, Any]):
    """Draws actions from the task's space: the floor of every table."""

    def supports(self, task: Task[Any, Any, Any], runtime: Any) -> Refusal | None:
        """Decline tasks without spaces."""
        if task.offers >= SPACES:
            return None
        return Refusal("the task offers no Gymnasium spaces", "Use a Gymnasium task, gym/env for one.")

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> Policy[Any, Any]:
        """Return the policy."""
        return RandomPolicy()


class RandomPolicy(Policy[Any, Any]):
    """Uniform over the space."""

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Seed the space from the policy's stream."""
        self.space = start.public["action_space"]
        self.space.seed(int(rng.integers(2**31)))

    def act(self, observation: Any) -> Any:
        """Return a sample."""
        return self.space.sample()


class PPOSolver(RandomSolver):
    """Trains PPO on episodes of the task, once; the weights are an artifact of the store."""

    def __init__(self, config: PPOConfig = PPOConfig()) -> None:
        self.config = config

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> Policy[Any, Any]:
        """Return the trained policy, greedy in its actions."""
        from stable_baselines3 import PPO

        def build(folder: Path) -> None:
            peek = RunContext(seed=ctx.train_seed + 1_000_003)  # episodes for training, apart from those that are scored
            start = task.start(next(iter(task.instances(peek))), peek, peek.stream("world", 0)).reset()
            env = TaskEnv(task, start.public["observation_space"], start.public["action_space"], seed=peek.seed)
            model = PPO(
                "MlpPolicy", env, n_steps=self.config.n_steps, batch_size=256, learning_rate=self.config.learning_rate,
                gamma=self.config.gamma, seed=int(ctx.stream("train").integers(2**31)), device=ctx.device,
            )  # fmt: skip
            model.learn(self.config.total_steps)
            model.save(folder / "ppo.zip")

        # Outside a run nothing but the object says which task this is.
        trained_on = dict(ctx.task) or {"class": f"{type(task).__module__}.{type(task).__qualname__}", "settings": repr(getattr(task, "config", ""))}
        settings = {"task": trained_on, "train_seed": ctx.train_seed, **attrs.asdict(self.config)}
        folder = ctx.artifacts.get_or_build("sb3/ppo", settings, build)
        return PPOPolicy(PPO.load(folder / "ppo.zip", device=ctx.device))


@attrs.define
class PPOPolicy(Policy[Any, Any]):
    """Acts by a trained network."""

    model: Any
    discrete: bool = True

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Look at the space: a discrete action is a whole number."""
        self.discrete = hasattr(start.public["action_space"], "n")

    def act(self, observation: Any) -> Any:
        """Return the network's action."""
        action, _ = self.model.predict(observation, deterministic=True)
        return int(action) if self.discrete else action
