"""A solver that tunes another one while it works: optimistic feasible search over a setting, under a deadline.

Each episode is a round, each value of the setting an arm. The reward is the episode's return, the residual what a
decision took beyond the deadline. Any solver will do that has such a setting; it is reached through the context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from sfumato.errors import Unsupported
from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato_ofs.config import OptimisticFeasibleConfig
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
        self._runtime: Any = None

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        """Decline when no solver, setting or values are named; the inner solver is asked in `solve`, about the same runtime."""
        c = self.config
        self._runtime = runtime
        if not c.solver or not c.setting or len(c.values) < 2:
            return Refusal(
                "it tunes another solver, and none is named",
                "Give -s solver=NAME -s setting=KEY -s 'values=[1, 2, 3]' -s deadline_seconds=0.05.",
            )
        if any(a == b for i, a in enumerate(c.values) for b in c.values[:i]):
            return Refusal(f"values must all be different, got {list(c.values)}", "Name each value once.")
        if c.setting in c.settings:
            return Refusal(
                f"{c.setting} is tuned and also given in settings", f"Take {c.setting} out of settings."
            )
        return None

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> TunedPolicy:
        """Build the inner solver once for each value. Raises Unsupported, with its reason, when it declines the task."""
        c = self.config
        inner = []
        for value in c.values:
            solver = ctx.component(c.solver, {**c.settings, c.setting: value})
            refusal = solver.supports(task, self._runtime)
            if refusal is not None:
                said = f"{refusal.reason} {refusal.advice}".rstrip()
                raise Unsupported(f"{c.solver} with {c.setting} = {value} declines this task: {said}")
            inner.append(solver.solve(task, ctx))
        return TunedPolicy(c, inner)

    def replay_promise(self) -> str:
        """Times decide, so only statistics come out again."""
        return "statistical"


@attrs.frozen
class Played:
    """One finished episode: its value's index, its return and the quantile of its decision times."""

    arm: int
    reward: float
    seconds: float


class TunedPolicy(Policy[Any, Any]):
    """Plays one of several policies each episode and learns which is best among those that are fast enough."""

    def __init__(self, config: TunedConfig, inner: list[Policy[Any, Any]]) -> None:
        self._config = config
        self._inner = inner
        self._now = time.perf_counter if config.clock == "wall" else time.process_time
        # How many episodes there will be is not known, so the bounds hold at any time.
        self._learner = OptimisticFeasible(
            1, len(inner), len(inner), OptimisticFeasibleConfig(beta=config.beta, anytime=True),
            reward_scale=config.reward_scale or 1.0, residual_scales=np.array([config.seconds_scale or 1.0]),
        )  # fmt: skip
        self._arm = -1
        self._reward = 0.0
        self._carried = 0.0  # seconds of the reset, until the first decision takes them on
        self._seconds: list[float] = []
        self._history: list[Played] = []
        self._to_warm = [config.warmup] * len(inner)

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Learn from the episode that ended, choose the value for the next one, and begin it."""
        done = self._finished()
        if done is not None:
            self._history.append(done)
            self._rescale()
            residual = np.array([[done.seconds - self._config.deadline_seconds]])
            self._learner.update(np.array([done.arm]), np.array([done.reward]), residual)
        if self._arm >= 0:
            self._to_warm[self._arm] = max(0, self._to_warm[self._arm] - len(self._seconds))
        self._arm = int(self._learner.select()[0])
        self._reward, self._seconds = 0.0, []
        self._carried = self._timed(lambda: self._inner[self._arm].reset(start, rng))[0]

    def act(self, observation: Any) -> Any:
        """Let the chosen policy act, on the clock; what it thought while it was reset counts as deciding first."""
        seconds, action = self._timed(lambda: self._inner[self._arm].act(observation))
        self._seconds.append(seconds + self._carried)
        self._carried = 0.0
        return action

    def observe(self, step: Step[Any]) -> None:
        """Add up what was earned; thinking while observing counts as deciding."""
        self._reward += float(np.mean(step.reward))
        self._seconds[-1] += self._timed(lambda: self._inner[self._arm].observe(step))[0]

    def _timed(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Return how long a call took, and what it gave."""
        began = self._now()
        given = call()
        return self._now() - began, given

    def _finished(self) -> Played | None:
        """Return the episode since the last reset; None when nothing was decided in it after the warm-up."""
        if self._arm < 0 or not self._seconds:
            return None
        timed = self._seconds[self._to_warm[self._arm] :]
        if not timed:  # compilation says nothing of later decisions, and one such time would drown all others
            return None
        return Played(self._arm, self._reward, float(np.quantile(timed, self._config.quantile)))

    def _rescale(self) -> None:
        """Take the spreads of returns and times from the episodes so far, where none were given."""
        s, c = self._learner.statistics, self._config
        if not c.reward_scale:
            s.reward_scale = _spread([[p.reward for p in row] for row in self._rows()])
        if not c.seconds_scale:
            s.residual_scales = np.array([_spread([[p.seconds for p in row] for row in self._rows()])])

    def _rows(self) -> list[list[Played]]:
        """Episodes by value."""
        return [[p for p in self._history if p.arm == k] for k in range(len(self._inner))]

    def notes(self) -> Mapping[str, Any]:
        """Return, for each value, how often it was played, its mean return and its decision time; and the advice.

        `regret` is what the episodes earned less than the recommended value would have at its own mean, so the best fixed
        value in hindsight, as far as these episodes know it; None while no value is fast enough. `late` counts episodes that
        were over the deadline.
        """
        done = self._finished()
        history = self._history + ([] if done is None else [done])
        rows = [[p for p in history if p.arm == k] for k in range(len(self._inner))]
        returns = [float(np.mean([p.reward for p in row])) if row else None for row in rows]
        times = [float(np.mean([p.seconds for p in row])) if row else None for row in rows]
        deadline = self._config.deadline_seconds
        fast = [k for k, t in enumerate(times) if t is not None and t <= deadline]
        best = max(fast, key=lambda k: float(np.mean([p.reward for p in rows[k]])), default=-1)
        mean = returns[best] if best >= 0 else None
        return {
            "setting": self._config.setting,
            "values": list(self._config.values),
            "plays": [len(row) for row in rows],
            "mean_return": returns,
            "decision_seconds": times,
            "recommended": self._config.values[best] if best >= 0 else None,
            "regret": None if mean is None else float(sum(mean - p.reward for p in history)),
            "late": sum(p.seconds > deadline for p in history),
        }


def _spread(rows: list[list[float]]) -> float:
    """Return the pooled deviation within rows; of all values together while no row has two."""
    squares = sum(float(((np.array(row) - np.mean(row)) ** 2).sum()) for row in rows if len(row) > 1)
    freedom = sum(len(row) - 1 for row in rows if len(row) > 1)
    if freedom:
        return max((squares / freedom) ** 0.5, 1e-12)
    values = [x for row in rows for x in row]
    return max(float(np.std(values, ddof=1)), 1e-12) if len(values) > 1 else 1.0
