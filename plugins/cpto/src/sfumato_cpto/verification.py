"""The same problems through our solver and through others: objective, violation, time."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import numpy as np

from sfumato_cpto import coldstart, convex
from sfumato_cpto.config import PlannerSettings
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.solver import CPTOSolver, bound_excess, least_h

_PACKAGE = {"clarabel": "clarabel", "piqp": "piqp", "proxqp": "proxsuite", "osqp": "osqp"}


def compare(
    n_scenes: int, n_candidates: int, n_obstacles: int, seed: int, ipopt: bool
) -> list[dict[str, Any]]:
    """Return one row per problem and solver with medians over the scenes.

    Problem "convex": the joint program with half-planes tangent at our plan. "full": the nonlinear program, IPOPT from
    the same cold start as ours, times of complete plans. A gap above 0 means that the other's objective is higher.
    """
    solver = CPTOSolver(PlannerSettings(bounds=BOUNDS))
    t = solver.transcription
    rng = np.random.default_rng(seed)
    names = [name for name in convex.SOLVERS if find_spec(_PACKAGE[name])]
    found: dict[tuple[str, str], list[tuple[bool, float, float, float]]] = {}
    nlp = None
    solver.plan(*scene(np.random.default_rng(seed + 1), n_candidates, n_obstacles))  # compile first
    for _ in range(n_scenes):
        state, obstacles, hypotheses = scene(rng, n_candidates, n_obstacles)
        plan = solver.plan(state, obstacles, hypotheses)
        if not plan.status.is_feasible:
            found.setdefault(("full", "ours"), []).append((False, np.nan, np.nan, plan.seconds))
            continue
        problem = solver.build(state, obstacles, hypotheses)
        sample = plan.coefficients.transpose(1, 0, 2).reshape(2 * n_candidates, -1) @ t.samples
        program = convex.program(t, problem, sample)
        begun = time.perf_counter()
        ours = solver.polisher.run(problem, sample, 1)
        seconds = time.perf_counter() - begun
        z = ours.coef.ravel()
        objective = program.objective(z)
        found.setdefault(("convex", "ours"), []).append((ours.feasible, 0.0, program.violation(z), seconds))
        for name in names:
            other = convex.solve(program, name)
            gap = (other.objective - objective) / abs(objective)
            found.setdefault(("convex", name), []).append((other.ok, gap, other.violation, other.seconds))
        violation = max(plan.excess, -min(float(plan.min_h.min()), 0.0))
        found.setdefault(("full", "ours"), []).append((True, 0.0, violation, plan.seconds))
        if ipopt and find_spec("casadi"):
            from sfumato_cpto.nlp import EliminatedNlp

            nlp = nlp or EliminatedNlp(t, n_candidates, n_obstacles, problem.bounded)
            guess = coldstart.roll_out(t, problem).reshape(2 * n_candidates, -1)
            other_nlp = nlp.solve(problem, guess)
            violation = max(
                float(bound_excess(problem, other_nlp.sample, t.n).max()),
                -min(float(least_h(problem, other_nlp.sample).min()), 0.0),
            )
            gap = (other_nlp.objective - plan.cost) / plan.cost
            found.setdefault(("full", "ipopt"), []).append((other_nlp.ok, gap, violation, other_nlp.seconds))
    rows = []
    for (problem_name, name), values in sorted(
        found.items(), key=lambda item: (item[0][0], item[0][1] != "ours")
    ):
        array = np.array([value[1:] for value in values])
        ours_ms = float(np.median([value[3] for value in found[(problem_name, "ours")]])) * 1e3
        gap, violation, seconds = np.nanmedian(array, axis=0)
        rows.append(
            {
                "problem": problem_name, "solver": name, "solved": sum(value[0] for value in values),
                "scenes": len(values), "gap": float(gap), "violation": float(violation), "ms": float(seconds) * 1e3,
                "ratio": float(seconds) * 1e3 / ours_ms,
            }
        )  # fmt: skip
    return rows
