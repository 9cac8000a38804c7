"""Solvers for sfumato's runner: a belief filter, and a planner that is asked at every step.

Nothing compiled is imported here: the planner runs on NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato_vopp.belief import ExactFilter, ParticleFilter
from sfumato_vopp.model import Model
from sfumato_vopp.planner import DESPOT, POMCP, PORPP, VOPP, OnlinePlanner
from sfumato_vopp.tabular import Tables, numbering, tabulate
from sfumato_vopp.task_config import DESPOTSolverConfig, PlannerConfig, POMCPSolverConfig, PORPPSolverConfig

__all__ = ["DESPOTSolver", "OnlinePolicy", "POMCPSolver", "PORPPSolver", "PlannerSolver", "QMDPSolver", "SarsopSolver", "make_filter"]

C = TypeVar("C", PlannerConfig, DESPOTSolverConfig, POMCPSolverConfig, PORPPSolverConfig)


def make_filter(model: Model, kind: str, n_particles: int, exact_limit: int, rng: np.random.Generator) -> Any:
    """Return the filter the settings ask for; "auto" is exact where the model allows it and the support is small."""
    if kind == "auto":
        start = model.initial_distribution()
        small = start is not None and len(start[0]) <= exact_limit and model.transitions(start[0][:1], 0) is not None
        kind = "exact" if small else "particles"
    return ExactFilter(model) if kind == "exact" else ParticleFilter(model, n_particles, rng)


class OnlinePolicy(Policy[int, int]):
    """Filters what was observed, plans from the belief, executes the best action."""

    def __init__(self, solver: Any, ctx: Context) -> None:
        self._solver, self._ctx = solver, ctx
        self._model: Model | None = None
        self._planner: OnlinePlanner | None = None

    def reset(self, start: Start[int], rng: np.random.Generator) -> None:
        """Begin an episode from the model's initial belief."""
        model = start.public["pomdp_model"]
        c = self._solver.config
        if model is not self._model:
            self._model = model
            self._planner = self._solver.make_planner(model, self._ctx, rng)
            self._planner.warmup()
        assert self._planner is not None
        self._planner.reseed(rng)
        own = getattr(model, "make_filter", None)
        if own is not None:
            self._filter = own(c.n_particles, rng, start.observation)
        else:
            self._filter = make_filter(model, c.filter, c.n_particles, c.exact_limit, rng)
        self._action = -1
        self._seen: list[int] = []
        self._totals = {"decisions": 0, "simulated_steps": 0, "plan_seconds": 0.0, "max_plan_seconds": 0.0, "overflows": 0}

    def act(self, observation: int) -> int:
        """Plan from the belief as it is."""
        assert self._planner is not None
        decision = self._planner.plan(self._filter.belief)
        self._action = decision.action
        stats, totals = decision.stats, self._totals
        totals["decisions"] += 1
        totals["simulated_steps"] += stats.steps
        totals["plan_seconds"] += stats.seconds
        totals["max_plan_seconds"] = max(totals["max_plan_seconds"], stats.seconds)
        totals["overflows"] += int(stats.overflow)
        return decision.action

    def observe(self, step: Step[int]) -> None:
        """Condition the belief on what was seen."""
        if np.ndim(step.observation) == 0:
            self._seen.append(int(step.observation))
        if not (step.terminated or step.truncated):
            self._filter.update(self._action, step.observation)
            if isinstance(self._planner, VOPP) and np.ndim(step.observation) == 0:
                self._planner.advance(self._action, int(step.observation))

    def notes(self) -> Mapping[str, Any]:
        """Return how many decisions were made, what they cost, and what was seen after each."""
        return {**self._totals, "observations": list(self._seen)}

    def spawn(self) -> OnlinePolicy:
        """Return a policy with a planner of its own: a tree serves one episode at a time."""
        return OnlinePolicy(self._solver, self._ctx)


class OnlineSolver(Solver[Any, int, int], Generic[C]):
    """What the online solvers share."""

    def __init__(self, config: C) -> None:
        self.config: C = config

    def supports(self, task: Task[Any, int, int], runtime: Runtime[Any, Any, int, int]) -> Refusal | None:
        """Decline tasks that show no POMDP model."""
        if "pomdp_model" not in task.offers:
            return Refusal("this planner needs a task that offers 'pomdp_model'", "choose one of the vopp/… tasks")
        return None

    def solve(self, task: Task[Any, int, int], ctx: Context) -> OnlinePolicy:
        """Return the policy; a task with one model for all episodes is compiled for here."""
        policy = OnlinePolicy(self, ctx)
        model = getattr(task, "model", None)
        if isinstance(model, Model):
            policy._model = model
            policy._planner = self.make_planner(model, ctx, ctx.stream("train"))
            policy._planner.warmup()
        return policy

    def make_planner(self, model: Model, ctx: Context, rng: np.random.Generator) -> OnlinePlanner:
        """Build the planner for one model."""
        raise NotImplementedError

    def replay_promise(self) -> str:
        """Say "statistical" with a clock in the budget, else "bits"."""
        return "bits" if self.config.seconds is None else "statistical"


class PlannerSolver(OnlineSolver[PlannerConfig]):
    """VOPP; see :class:`sfumato_vopp.planner.VOPP`."""

    def make_planner(self, model: Model, ctx: Context, rng: np.random.Generator) -> VOPP:
        """Build the planner for one model, on the backend the run asks for."""
        return VOPP(model, self.config, rng, backend=ctx.backend, device=ctx.device)  # type: ignore[arg-type]


class POMCPSolver(OnlineSolver[POMCPSolverConfig]):
    """POMCP; see :class:`sfumato_vopp.planner.POMCP`."""

    def make_planner(self, model: Model, ctx: Context, rng: np.random.Generator) -> POMCP:
        """Build the planner for one model."""
        return POMCP(model, self.config, rng)


class DESPOTSolver(OnlineSolver[DESPOTSolverConfig]):
    """A DESPOT-like search; see :class:`sfumato_vopp.planner.DESPOT`."""

    def make_planner(self, model: Model, ctx: Context, rng: np.random.Generator) -> DESPOT:
        """Build the planner for one model."""
        return DESPOT(model, self.config, rng)


class PORPPSolver(OnlineSolver[PORPPSolverConfig]):
    """Sequential PORPP; see :class:`sfumato_vopp.planner.PORPP`."""

    def make_planner(self, model: Model, ctx: Context, rng: np.random.Generator) -> PORPP:
        """Build the planner for one model."""
        return PORPP(model, self.config, rng)


class TablePolicy(Policy[int, int]):
    """Keeps the exact belief over listed states and asks a table for the action."""

    def __init__(self, model: Model, tables: Tables, act: Callable[[Any, Any], int], claims: Mapping[str, Any]) -> None:
        self._model, self._act, self._claims = model, act, dict(claims)
        self._seen: list[int] = []
        assert tables.states is not None
        self._number = numbering(tables.states)

    def reset(self, start: Start[int], rng: np.random.Generator) -> None:
        """Begin from the initial belief."""
        self._filter = ExactFilter(self._model)
        self._action = -1
        self._seen = []

    def act(self, observation: int) -> int:
        """Return the table's action for the belief."""
        belief = self._filter.belief
        self._action = self._act(self._number(belief.particles), belief.weights)
        return self._action

    def observe(self, step: Step[int]) -> None:
        """Condition the belief on what was seen."""
        self._seen.append(int(step.observation))
        if not (step.terminated or step.truncated):
            self._filter.update(self._action, int(step.observation))

    def notes(self) -> Mapping[str, Any]:
        """Return what the solution claims, and what was seen after each action."""
        return {**self._claims, "observations": list(self._seen)}


class TableSolver(Solver[Any, int, int]):
    """What the solvers on listed states share: one model for all episodes, listed once."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def supports(self, task: Task[Any, int, int], runtime: Runtime[Any, Any, int, int]) -> Refusal | None:
        """Decline tasks without one model whose states and outcomes can be listed."""
        model = getattr(task, "model", None)
        if not isinstance(model, Model) or getattr(getattr(task, "config", None), "layout_each_episode", False):
            return Refusal("this solver needs one POMDP model for all episodes", "choose a vopp/… task with a fixed layout")
        start = model.initial_distribution()
        if start is None or model.n_observations is None or model.transitions(start[0][:1], 0) is None:
            return Refusal(
                f"{type(model).__name__} does not list its states, outcomes and observations", "use vopp/planner or vopp/pomcp"
            )
        return None


class QMDPSolver(TableSolver):
    """Acts by argmax_a Σ b(s) Q_MDP(s, a); see :func:`sfumato_vopp.exact.qmdp`."""

    def solve(self, task: Task[Any, int, int], ctx: Context) -> TablePolicy:
        """Solve the underlying MDP."""
        from sfumato_vopp.exact import qmdp

        model: Model = task.model  # type: ignore[attr-defined]
        tables = tabulate(model, self.config.max_states)
        q = qmdp(tables)
        start = np.flatnonzero(tables.start)
        bound = float((q[:, start] @ tables.start[start]).max())
        return TablePolicy(model, tables, lambda s, w: int(np.argmax(q[:, s] @ w)), {"upper_bound": bound})


class SarsopSolver(TableSolver):
    """Brackets the optimal value, then follows the lower bound's policy; see :func:`sfumato_vopp.exact.bracket`."""

    def solve(self, task: Task[Any, int, int], ctx: Context) -> TablePolicy:
        """Search until the bracket is narrow enough or the time is used up."""
        from sfumato_vopp.exact import bracket

        c = self.config
        model: Model = task.model  # type: ignore[attr-defined]
        tables = tabulate(model, c.max_states)
        found = bracket(tables, c.gap, c.solve_seconds, c.max_trials)
        claims = {"lower_bound": found.low, "upper_bound": found.high, "vectors": len(found.vectors), "trials": found.trials}
        return TablePolicy(model, tables, found.act, claims)

    def replay_promise(self) -> str:
        """Say "statistical": the clock decides how far the search comes."""
        return "statistical"
