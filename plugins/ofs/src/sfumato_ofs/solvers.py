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

from sfumato_ofs.config import BanditConfig, OptimisticFeasibleConfig, PrimalDualConfig, UnconstrainedConfig
from sfumato_ofs.constraints import reward_scale
from sfumato_ofs.learners import GridLearner, OptimisticFeasible, PrimalDual, Unconstrained

Observation = Mapping[str, NDArray[np.float64]]
Actions = NDArray[np.int64]

NEEDS = frozenset({"arms", "constraints", "applicants", "rounds", "loss", "items"})


class LearnerPolicy(Policy[Observation, Actions]):
    """Plays a grid learner. `notes` hold its recommendation, which the evaluator looks up in the oracle's sweep."""

    def __init__(self, solver: GridSolver, ctx: Context) -> None:
        self._solver = solver
        self._ctx = ctx

    def reset(self, start: Start[Observation], rng: np.random.Generator) -> None:
        public = start.public
        scales = public["constraints"].scales(public["applicants"])
        self._learner = self._solver.learner(
            len(public["items"]),
            len(public["arms"]),
            public["rounds"],
            lattice=public["lattice"],
            reward_scale=reward_scale(public["loss"], public["applicants"]),
            residual_scales=scales,
            rngs=[self._ctx.stream("policy", k) for k in public["items"]],
        )
        self._arm = np.zeros(len(public["items"]), dtype=np.int64)

    def act(self, observation: Observation) -> Actions:
        self._arm = self._learner.select()
        return self._arm

    def observe(self, step: Step[Observation]) -> None:
        self._learner.update(self._arm, step.reward, step.observation["residuals"])

    def notes(self) -> Mapping[str, Any]:
        return {"recommended": self._learner.recommend()}


class GridSolver(Solver[Any, Observation, Actions]):
    """Sets up one learner for a task that offers a grid of arms with constraints."""

    name: ClassVar[str] = ""

    def __init__(self, config: BanditConfig) -> None:
        self.config = config

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        missing = sorted(NEEDS - set(task.offers))
        if missing:
            return Refusal(
                f"{self.name} plays closed loops with a grid of thresholds; this task does not offer {', '.join(missing)}",
                "Use it on ofs/synthetic, ofs/german or ofs/compas.",
            )
        return None

    def solve(self, task: Any, ctx: Context) -> LearnerPolicy:
        return LearnerPolicy(self, ctx)

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, lattice: tuple[int, ...], **scales: Any
    ) -> GridLearner:
        """Return a fresh learner for n_items."""
        raise NotImplementedError


class OptimisticFeasibleSolver(GridSolver):
    """Optimistic Feasible Search; see `sfumato_ofs.learners.OptimisticFeasible`."""

    name = "ofs/optimistic-feasible"
    config: OptimisticFeasibleConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, lattice: tuple[int, ...], **scales: Any
    ) -> GridLearner:
        return OptimisticFeasible(n_items, n_arms, horizon, self.config, lattice=lattice, **scales)


class PrimalDualSolver(GridSolver):
    """Primal-dual baseline; see `sfumato_ofs.learners.PrimalDual`."""

    name = "ofs/primal-dual"
    config: PrimalDualConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, lattice: tuple[int, ...], **scales: Any
    ) -> GridLearner:
        return PrimalDual(n_items, n_arms, horizon, self.config, **scales)


class UnconstrainedSolver(GridSolver):
    """Unconstrained baseline; see `sfumato_ofs.learners.Unconstrained`."""

    name = "ofs/unconstrained"
    config: UnconstrainedConfig

    def learner(
        self, n_items: int, n_arms: int, horizon: int, *, lattice: tuple[int, ...], **scales: Any
    ) -> GridLearner:
        return Unconstrained(n_items, n_arms, horizon, self.config, **scales)
