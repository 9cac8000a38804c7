"""A solver that tunes another one while it works: optimistic feasible search over a numeric setting, under a deadline.

Each episode is a round, each value of the setting an arm. The reward is the episode's return, the residual what a
decision took beyond the deadline. Any solver will do that has a numeric setting; it is reached through the context.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sfumato.protocols import Context, Policy, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.errors import OfsError
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.tuned_config import TunedConfig


class TunedSolver(Solver[Any, Any, Any]):
    """`ofs/tuned`: picks a setting of another solver online, to earn the most within a deadline a decision.

    Arms are learned across episodes, so the order of the instances matters and episodes run one at a time.
    """

    carries_over: ClassVar[bool] = True
    timing: ClassVar[str] = "exclusive"

    def __init__(self, config: TunedConfig = TunedConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Any) -> Refusal | None:
        """Decline when no solver, setting or values are named; the inner solver is asked in `solve`."""
        c = self.config
        if not c.solver or not c.setting or len(c.values) < 2:
            return Refusal(
                "it tunes another solver, and none is named",
                "Give -s solver=NAME -s setting=KEY -s 'values=[1, 2, 3]' -s deadline_seconds=0.05.",
            )
        return None

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> TunedPolicy:
        """Build the inner solver once for each value. Raises OfsError, with its reason, when it declines the task."""
        c = self.config
        inner = []
        for value in c.values:
            solver = ctx.component(c.solver, {**c.settings, c.setting: value})
            refusal = solver.supports(task, None)
            if refusal is not None:
                raise OfsError(
                    f"{c.solver} with {c.setting} = {value} declines this task: {refusal.reason} {refusal.advice}"
                )
            inner.append(solver.solve(task, ctx))
        return TunedPolicy(c, inner, max(len(ctx.indices), len(inner)))

    def replay_promise(self) -> str:
        """Times decide, so only statistics come out again."""
        return "statistical"


class TunedPolicy(Policy[Any, Any]):
    """Plays one of several policies each episode and learns which is best among those that are fast enough."""

    def __init__(self, config: TunedConfig, inner: list[Policy[Any, Any]], horizon: int) -> None:
        self._config = config
        self._inner = inner
        self._learner = OptimisticFeasible(
            1, len(inner), horizon, OptimisticFeasibleConfig(beta=config.beta),
            reward_scale=config.reward_scale, residual_scales=np.array([config.seconds_scale]),
        )  # fmt: skip
        self._arm = -1
        self._reward = 0.0
        self._seconds: list[float] = []
        self._history: list[tuple[int, float, float]] = []

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Learn from the episode that ended, choose the value for the next one, and begin it."""
        self._learn()
        self._arm = int(self._learner.select()[0])
        self._reward, self._seconds = 0.0, []
        self._inner[self._arm].reset(start, rng)

    def act(self, observation: Any) -> Any:
        """Let the chosen policy act, on the clock."""
        began = time.perf_counter()
        action = self._inner[self._arm].act(observation)
        self._seconds.append(time.perf_counter() - began)
        return action

    def observe(self, step: Step[Any]) -> None:
        """Add up what was earned; thinking while observing counts as deciding."""
        self._reward += float(np.mean(step.reward))
        began = time.perf_counter()
        self._inner[self._arm].observe(step)
        self._seconds[-1] += time.perf_counter() - began

    def _learn(self) -> None:
        if self._arm < 0 or not self._seconds:
            return
        c = self._config
        worst = float(np.quantile(self._seconds, c.quantile))
        self._history.append((self._arm, self._reward, worst))
        residual = np.array([[worst - c.deadline_seconds]])
        self._learner.update(np.array([self._arm]), np.array([self._reward]), residual)
        self._arm = -1

    def notes(self) -> Mapping[str, Any]:
        """Return, for each value, how often it was played, its mean return and its decision time; and the advice."""
        done = [*self._history]
        if self._arm >= 0 and self._seconds:
            done.append((self._arm, self._reward, float(np.quantile(self._seconds, self._config.quantile))))
        rows = [[(r, s) for a, r, s in done if a == k] for k in range(len(self._inner))]
        feasible = [
            k
            for k, row in enumerate(rows)
            if row and np.mean([s for _, s in row]) <= self._config.deadline_seconds
        ]
        best = max(feasible, key=lambda k: float(np.mean([r for r, _ in rows[k]])), default=-1)
        return {
            "setting": self._config.setting,
            "values": list(self._config.values),
            "plays": [len(row) for row in rows],
            "mean_return": [float(np.mean([r for r, _ in row])) if row else None for row in rows],
            "decision_seconds": [float(np.mean([s for _, s in row])) if row else None for row in rows],
            "recommended": self._config.values[best] if best >= 0 else None,
        }
