"""The learners as solvers. One policy plays all items of a batch at once.

The learners draw nothing (but for `order = random`, where item k draws from its own policy stream), so
item k's choices do not depend on which other items share its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sfumato.protocols import Context, Policy, Solver
from sfumato.records import Refusal, Start, Step
from sfumato_ofs.arm_statistics import ArmStatistics
from sfumato_ofs.binomial import UniformBlocks
from sfumato_ofs.config import (
    BanditConfig,
    EpsilonGreedyConfig,
    FixedConfig,
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    RandomConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.constraints import reward_scale
from sfumato_ofs.learners import (
    GridLearner,
    PrimalDual,
    Unconstrained,
    pick,
)
from sfumato_ofs.observed import ObservedScores, arm_of
from sfumato_ofs.scored import Cells
from sfumato_ofs.search import OptimisticFeasible, corridor_of

Observation = Mapping[str, NDArray[Any]]
Actions = NDArray[np.int64]

NEEDS = frozenset({"arms", "constraints", "applicants", "rounds", "loss", "items", "label_delay"})


class LearnerPolicy(Policy[Observation, Actions]):
    """Plays a grid learner. `notes` hold its recommendation, which the evaluator looks up in the oracle's sweep."""

    def __init__(self, solver: LearnerSolver, ctx: Context) -> None:
        self._solver = solver
        self._ctx = ctx

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        public = start.public
        self._constraints, self._applicants = public["constraints"], public["applicants"]
        scales = self._constraints.scales(self._applicants)
        self._learner = self._solver.learner(
            len(public["items"]),
            len(public["arms"]),
            public["rounds"],
            public=public,
            reward_scale=reward_scale(public["loss"], public["applicants"]),
            residual_scales=scales,
            rngs=[self._ctx.stream("policy", k) for k in public["items"]],
            **self._solver.corridor(public["arms"]),
        )
        self._arm = np.zeros(len(public["items"]), dtype=np.int64)
        self._delayed = public["label_delay"] > 0

    def act(self, observation: Observation) -> Actions:
        self._arm = self._learner.select()
        return self._arm

    def observe(self, step: Step[Observation]) -> None:
        seen = step.observation
        reward = np.full(len(self._arm), np.nan) if self._delayed else step.reward
        people = seen["people"].astype(np.float64)
        weights = self._constraints.weights(people, people.sum(axis=1), self._applicants)
        self._learner.update(self._arm, reward, seen["residuals"], seen["rates"], 1.0, weights, people)
        if self._delayed:
            self._learner.update_late(seen["rewarded"].astype(np.int64), step.reward)

    def notes(self) -> Mapping[str, Any]:
        notes = {"recommended": self._learner.recommend()}
        alarms = getattr(self._learner, "alarms", None)
        return notes if alarms is None else {**notes, "alarms": alarms}


class GridSolver(Solver[Any, Observation, Actions]):
    """What all solvers here ask of a task: a grid of arms with constraints."""

    name: ClassVar[str] = ""
    needs_scores: ClassVar[bool] = False

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        missing = sorted(NEEDS - set(task.offers))
        if missing:
            return Refusal(
                f"{self.name} plays closed loops with a grid of thresholds; this task does not offer "
                f"{', '.join(missing)}",
                "Use it on ofs/synthetic, ofs/german or ofs/compas.",
            )
        if self.needs_scores and task.config.scores != "observed":
            return Refusal(
                f"{self.name} needs every applicant's score, and this task hides them",
                "Add -t scores=observed, or use ofs/optimistic-feasible where scores are hidden.",
            )
        return None


class LearnerSolver(GridSolver):
    """Sets up one grid learner for all items."""

    def __init__(self, config: BanditConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> LearnerPolicy:
        return LearnerPolicy(self, ctx)

    def corridor(self, arms: NDArray[np.float64]) -> dict[str, Any]:
        """Return `allowed`, `incumbent` and `distance` for a learner; nothing when no incumbent is set."""
        if self.config.incumbent is None:
            return {}
        incumbent, allowed, distance = corridor_of(
            arms, self.config.incumbent, self.config.corridor, "incumbent"
        )
        return {"incumbent": incumbent, "allowed": allowed, "distance": distance}

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, public: Mapping[str, Any], **common: Any
    ) -> GridLearner:
        """Return a fresh learner for n_items."""
        raise NotImplementedError


class OptimisticFeasibleSolver(LearnerSolver):
    """Optimistic Feasible Search; see `sfumato_ofs.learners.OptimisticFeasible`."""

    name = "ofs/optimistic-feasible"
    config: OptimisticFeasibleConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, public: Mapping[str, Any], **common: Any
    ) -> GridLearner:
        return OptimisticFeasible(
            n_items,
            n_arms,
            horizon,
            self.config,
            lattice=public["lattice"],
            constraints=public["constraints"],
            levels=np.searchsorted(np.unique(public["arms"]), public["arms"]),
            loss=public["loss"],
            **common,
        )


class PrimalDualSolver(LearnerSolver):
    """Primal-dual baseline; see `sfumato_ofs.learners.PrimalDual`."""

    name = "ofs/primal-dual"
    config: PrimalDualConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, public: Mapping[str, Any], **common: Any
    ) -> GridLearner:
        return PrimalDual(n_items, n_arms, horizon, self.config, **common)


class UnconstrainedSolver(LearnerSolver):
    """Unconstrained baseline; see `sfumato_ofs.learners.Unconstrained`."""

    name = "ofs/unconstrained"
    config: UnconstrainedConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, public: Mapping[str, Any], **common: Any
    ) -> GridLearner:
        return Unconstrained(n_items, n_arms, horizon, self.config, **common)


class EpsilonGreedyPolicy(Policy[Observation, Actions]):
    """With probability `explore` a random arm, else the best mean reward among arms whose mean residuals hold."""

    def __init__(self, config: EpsilonGreedyConfig, ctx: Context) -> None:
        self._config = config
        self._ctx = ctx

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        public = start.public
        n_items, self._n_arms = len(public["items"]), len(public["arms"])
        self._statistics = ArmStatistics(
            n_items,
            self._n_arms,
            public["rounds"],
            OptimisticFeasibleConfig(beta=0.0, margin=self._config.margin),
            reward_scale=0.0,
            residual_scales=np.zeros(public["constraints"].size),
        )
        self._uniforms = UniformBlocks([self._ctx.stream("policy", k) for k in public["items"]], 2)
        self._delayed = public["label_delay"] > 0

    def act(self, observation: Observation) -> Actions:
        s = self._statistics
        u = self._uniforms.next()
        holds = np.asarray(s.worst <= 0.0)
        score = np.where(holds, s.upper_reward, -np.inf)
        score = np.where(np.asarray(holds.any(axis=1))[:, None], score, -s.violation)
        best = pick(score, s.worst, s.plays)
        self._arm: Actions = np.where(
            u[:, 0] < self._config.explore, (u[:, 1] * self._n_arms).astype(np.int64), best
        )
        return self._arm

    def observe(self, step: Step[Observation]) -> None:
        seen = step.observation
        reward = np.full(len(self._arm), np.nan) if self._delayed else step.reward
        self._statistics.add(self._arm, reward, seen["residuals"])
        if self._delayed:
            self._statistics.add_reward(seen["rewarded"].astype(np.int64), step.reward)

    def notes(self) -> Mapping[str, Any]:
        return {"recommended": self._statistics.recommend()}


class RandomPolicy(Policy[Observation, Actions]):
    """A uniformly random arm each round, each item from its own stream."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        self._n_arms = len(start.public["arms"])
        self._uniforms = UniformBlocks([self._ctx.stream("policy", k) for k in start.public["items"]], 1)

    def act(self, observation: Observation) -> Actions:
        return (self._uniforms.next()[:, 0] * self._n_arms).astype(np.int64)


class FixedPolicy(Policy[Observation, Actions]):
    """Holds one arm for ever."""

    def __init__(self, tau: float) -> None:
        self._tau = tau

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        self._arms: Actions = np.full(
            len(start.public["items"]), arm_of(start.public["arms"], self._tau), dtype=np.int64
        )

    def act(self, observation: Observation) -> Actions:
        return self._arms

    def notes(self) -> Mapping[str, Any]:
        return {"recommended": self._arms}


class ObservedScoresPolicy(Policy[Observation, Actions]):
    """Plays the observed-scores learner; see `sfumato_ofs.observed`."""

    def __init__(self, config: ObservedScoresConfig) -> None:
        self._config = config

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        public = start.public
        self._learner = ObservedScores(
            len(public["items"]), public["arms"], public["constraints"], self._config, loss=public["loss"]
        )

    def act(self, observation: Observation) -> Actions:
        self._arm = self._learner.select()
        return self._arm

    def observe(self, step: Step[Observation]) -> None:
        seen = step.observation
        self._learner.update(self._arm, Cells(seen["applicants"], seen["labelled"], seen["good"]))

    def notes(self) -> Mapping[str, Any]:
        return {"recommended": self._learner.recommend()}


class EpsilonGreedySolver(GridSolver):
    """Epsilon-greedy baseline."""

    name = "ofs/epsilon-greedy"

    def __init__(self, config: EpsilonGreedyConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> EpsilonGreedyPolicy:
        return EpsilonGreedyPolicy(self.config, ctx)


class RandomSolver(GridSolver):
    """Uniformly random baseline."""

    name = "ofs/random"

    def __init__(self, config: RandomConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> RandomPolicy:
        return RandomPolicy(ctx)


class FixedSolver(GridSolver):
    """Holds one threshold."""

    name = "ofs/fixed"

    def __init__(self, config: FixedConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> FixedPolicy:
        arm_of(task.arms, self.config.tau)  # refuse a threshold off the grid before the run begins
        return FixedPolicy(self.config.tau)


class ObservedScoresSolver(GridSolver):
    """The observed-scores learner."""

    name = "ofs/observed-scores"
    needs_scores = True

    def __init__(self, config: ObservedScoresConfig) -> None:
        self.config = config

    def solve(self, task: Any, ctx: Context) -> ObservedScoresPolicy:
        arm_of(task.arms, self.config.tau)
        return ObservedScoresPolicy(self.config)
