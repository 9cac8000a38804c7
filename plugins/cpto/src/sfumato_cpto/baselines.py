"""What CPTO is compared with; each drives through the same interpreter, bounds and fall-back.

* independent: one plan per hypothesis without a shared segment; the best score is driven.
* worst-case: one plan that must respect everything which might exist.
* most-likely: one plan for the likeliest hypothesis, or (re-guessing) for one drawn by weight each cycle.
* control-tree: the joint quadratic program with shared prefix and belief weights, obstacles linearised, solved by a
  general solver; in the manner of Phiquepal and Toussaint, "Control-Tree Optimization" (ICRA 2021).
* ipopt: the full nonlinear program on the same variables.
"""

from __future__ import annotations

import time

import attrs
import numpy as np

from sfumato_cpto import coldstart, convex
from sfumato_cpto.driver import Driver
from sfumato_cpto.hypotheses import Situation
from sfumato_cpto.nlp import EliminatedNlp
from sfumato_cpto.problem import Hypotheses, Problem
from sfumato_cpto.solver import CPTOSolver, Plan


def _only(situation: Situation, present: np.ndarray, row: int) -> Situation:
    h = situation.hypotheses
    cap = None if h.speed_cap is None else np.asarray(h.speed_cap)[row : row + 1]
    one = Hypotheses(
        present,
        np.asarray(h.goal_y)[row : row + 1],
        np.asarray(h.goal_speed)[row : row + 1],
        cap,
        np.array([1.0]),
    )
    return attrs.evolve(situation, hypotheses=one)


class WorstCaseDriver(Driver):
    """Plans once, for everything that might exist."""

    def question(self, situation: Situation) -> Situation:
        """Take the union of all hypotheses, with the first one's goal."""
        present: np.ndarray = np.asarray(np.asarray(situation.hypotheses.present).any(axis=0, keepdims=True))
        return _only(situation, present, 0)


class MostLikelyDriver(Driver):
    """Plans once, for the likeliest hypothesis or for one drawn by weight."""

    rng: np.random.Generator | None = None

    def question(self, situation: Situation) -> Situation:
        """Keep one hypothesis."""
        h = situation.hypotheses
        present = np.asarray(h.present)
        weight = np.full(len(present), 1.0 / len(present)) if h.weight is None else np.asarray(h.weight)
        row = int(np.argmax(weight)) if self.rng is None else int(self.rng.choice(len(weight), p=weight))
        return _only(situation, present[row : row + 1], row)


class IndependentDriver(Driver):
    """Plans every hypothesis on its own and drives the best-scored plan."""

    def solve(self, situation: Situation, previous: Plan | None) -> Plan:
        """Solve one problem per hypothesis."""
        begun = time.perf_counter()
        present = np.asarray(situation.hypotheses.present)
        plans = []
        for row in range(len(present)):
            one = _only(situation, present[row : row + 1], row)
            plans.append(
                self.solver.plan(
                    one.state, one.obstacles, one.hypotheses, bounds=one.bounds, deadline=self.deadline
                )
            )
        feasible = [plan for plan in plans if plan.status.is_feasible]
        if not feasible:
            return plans[0]

        # Scores are normalised among candidates, so costs are compared here: each is the objective of its own curve.
        best = min(feasible, key=lambda plan: plan.cost)
        return attrs.evolve(best, seconds=time.perf_counter() - begun)


class _JointDriver(Driver):
    """A driver whose plan comes from another optimiser on the same joint problem."""

    def solve(self, situation: Situation, previous: Plan | None) -> Plan:
        begun = time.monotonic()
        solver = self.solver
        posed = solver.pose(
            situation.state, situation.obstacles, situation.hypotheses, situation.bounds, previous, begun
        )
        if isinstance(posed, Plan):
            return posed
        problem, brake = posed
        guess = None if previous is None else solver.warm_guess(problem, previous, self._elapsed)
        if guess is None:
            guess = coldstart.roll_out(solver.transcription, problem)
        coef = self.optimise(problem, guess.reshape(2 * problem.n_candidates, -1))
        return solver.check(problem, coef, brake, begun)

    def optimise(self, problem: Problem, coef: np.ndarray) -> np.ndarray:
        """Return coefficients [2 C, n + 1]."""
        raise NotImplementedError


class ControlTreeDriver(_JointDriver):
    """Solves the joint program by sequential linearisation with a general QP solver (ProxQP)."""

    rounds = 3

    def optimise(self, problem: Problem, coef: np.ndarray) -> np.ndarray:
        """Linearise, solve, repeat."""
        t = self.solver.transcription
        for _ in range(self.rounds):
            found = convex.solve(convex.program(t, problem, coef @ t.samples), "proxqp")
            if not np.isfinite(found.z).all():
                break
            coef = found.z.reshape(2 * problem.n_candidates, -1)
            if not found.ok:
                break
        return coef


class IpoptDriver(_JointDriver):
    """Solves the full nonlinear program with IPOPT."""

    def __init__(
        self, solver: CPTOSolver, n_obstacles: int = 6, n_candidates: int = 3, deadline: float | None = None
    ):
        super().__init__(solver, n_obstacles, n_candidates, deadline)
        self._programs: dict[tuple[object, ...], EliminatedNlp] = {}

    def optimise(self, problem: Problem, coef: np.ndarray) -> np.ndarray:
        """Solve, building the program on first use of a size."""
        key = (problem.n_candidates, problem.n_obstacles, problem.bounded.tobytes())
        if key not in self._programs:
            self._programs[key] = EliminatedNlp(
                self.solver.transcription,
                problem.n_candidates,
                problem.n_obstacles,
                problem.bounded,
                max_iter=300,
            )
        return self._programs[key].solve(problem, coef).coef
