"""Solvers of the runner: the planner and its baselines as policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start
from sfumato_cpto import baselines
from sfumato_cpto.config import BaselineConfig, PlannerConfig, PlannerSettings
from sfumato_cpto.driver import Driver
from sfumato_cpto.picture import Picture, padded
from sfumato_cpto.rule import RuleDriver
from sfumato_cpto.solver import CPTOSolver

NEEDED = frozenset({"kind", "lanes", "road", "goal_speed", "speed_limit", "dt"})
SEGMENT_SAMPLES = 24  # of each plan, kept for the consistency figures (2 s and the executed segment)


def warmed(settings: PlannerSettings) -> CPTOSolver:
    """Return a solver whose kernels are compiled: compilation belongs to `solve`, not to the first decision."""
    return CPTOSolver(settings).warm_up()


class DrivingPolicy(Policy[Any, Any]):
    """Drives with a `Driver`; notes are its log, as arrays."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Begin a course with a fresh driver (its buffers must not be shared between lanes)."""
        self.driver: Driver = self._make(rng)
        self.driver.reset(start.public)

    def act(self, observation: Any) -> tuple[float, float]:
        """Return (speed, yaw rate)."""
        return self.driver.act(observation)

    def notes(self) -> Mapping[str, Any]:
        """Return the log: statuses, seconds, first samples of every plan, gaps; what each cycle looked like."""
        log = self.driver.log
        segments = np.full((len(log), 2, SEGMENT_SAMPLES), np.nan, dtype=np.float32)
        for k, row in enumerate(log):
            if row["segment"] is not None:
                segments[k] = row["segment"][:, :SEGMENT_SAMPLES]
        nothing = Picture(*(np.zeros((0, *shape), np.float32) for shape in ((2, 1), (2,), (4, 2))))
        seen = [row["picture"] or nothing for row in log]
        return {
            "curves": padded([picture.candidates for picture in seen]),
            "phantoms": padded([picture.phantoms for picture in seen]),
            "shadows": padded([picture.shadows for picture in seen]),
            "status": [row["status"] for row in log],
            "plan_seconds": np.array([row["plan_seconds"] for row in log]),
            "cycle_seconds": np.array([row["seconds"] for row in log]),
            "dt": self.driver.solver.settings.dt,
            "segments": segments,
            "gap": np.array([row["gap"] for row in log]),
            "candidates": np.array([row["candidates"] for row in log]),
            "programs": np.array([row["programs"] for row in log]),
            "iterations": np.array([row["iterations"] for row in log]),
            "certified": [row["certified"] for row in log],
            "violations": dict(self.driver.monitor.violations),
            "n_consensus": self.driver.solver.settings.n_consensus,
        }


class _DrivingSolver(Solver[Any, Any, Any]):
    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        """Decline tasks that are no driving scenes."""
        missing = NEEDED - task.offers
        if missing:
            return Refusal(
                f"expected a driving scene, but the task does not offer {', '.join(sorted(missing))}",
                "choose one of the cpto/ tasks",
            )
        return None

    def settings(self) -> PlannerSettings:
        """Return the planner's settings."""
        raise NotImplementedError

    def driver(self, solver: CPTOSolver, rng: np.random.Generator) -> Driver:
        """Return a driver."""
        raise NotImplementedError

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> DrivingPolicy:
        """Build the matrices once and return the policy."""
        settings = self.settings()
        warmed(settings)
        return DrivingPolicy(lambda rng: self.driver(CPTOSolver(settings), rng))


class PlannerSolver(_DrivingSolver):
    """CPTO."""

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config

    def settings(self) -> PlannerSettings:
        """Return the planner's settings."""
        return self.config.planner_settings()

    def driver(self, solver: CPTOSolver, rng: np.random.Generator) -> Driver:
        """Return a driver."""
        c = self.config
        return Driver(solver, c.n_obstacles, c.n_candidates, c.deadline or None, c.certified)

    def replay_promise(self) -> str:
        """Same bits without a deadline; with one, what the clock allows."""
        return "statistical" if self.config.deadline else "bits"


class _BaselineSolver(_DrivingSolver):
    kind: ClassVar[type[Driver]]

    def __init__(self, config: BaselineConfig) -> None:
        self.config = config

    def settings(self) -> PlannerSettings:
        """Return the planner's settings."""
        return attrs.evolve(PlannerSettings(), n_samples=self.config.n_samples)

    def driver(self, solver: CPTOSolver, rng: np.random.Generator) -> Driver:
        """Return a driver."""
        found = self.kind(solver, self.config.n_obstacles, self.config.n_candidates)
        if isinstance(found, baselines.MostLikelyDriver) and self.config.reguess:
            found.rng = rng
        return found

    def replay_promise(self) -> str:
        """Same bits on the same machine."""
        return "bits"


class IndependentSolver(_BaselineSolver):
    """One plan per hypothesis; the cheapest is driven."""

    kind = baselines.IndependentDriver


class WorstCaseSolver(_BaselineSolver):
    """One plan for everything that might exist."""

    kind = baselines.WorstCaseDriver


class MostLikelySolver(_BaselineSolver):
    """One plan for the likeliest hypothesis."""

    kind = baselines.MostLikelyDriver


class RuleSolver(_BaselineSolver):
    """Scored proposals, in the manner of PDM-Closed."""

    kind = RuleDriver


class ControlTreeSolver(_BaselineSolver):
    """Joint program, general QP solver."""

    kind = baselines.ControlTreeDriver


class IpoptSolver(_BaselineSolver):
    """Full nonlinear program."""

    kind = baselines.IpoptDriver
