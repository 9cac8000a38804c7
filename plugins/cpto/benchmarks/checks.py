"""What must hold exactly, each with its figure: projections, optimum of the iteration, derivatives, kernels, bits, bad input.

python benchmarks/checks.py [--json benchmarks/results/checks.json]

Times are process CPU time, least of several for what is short.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
from scipy.optimize import lsq_linear

from sfumato_cpto import (
    Bounds,
    CPTOSolver,
    Hypotheses,
    Obstacles,
    PlannerSettings,
    Stage,
    State,
    admm,
    coldstart,
    kernel_numba,
)
from sfumato_cpto.barrier import condition, project_exact
from sfumato_cpto.bernstein import basis, derivative_matrices, shift_matrix
from sfumato_cpto.polish import Polisher
from sfumato_cpto.problem import build
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.transcription import Transcription


def _least(call: Callable[[], object], repeats: int = 20) -> float:
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return 1e3 * min(seconds)


def projection(cases: int = 1000, n: int = 50) -> dict[str, float]:
    """Compare the exact projection with a bounded least-squares solver; time it on all cases at once."""
    rng = np.random.default_rng(0)
    gamma = np.linspace(0.2, 1.0, n - 1)
    d = rng.uniform(0.3, 3.0, (cases, n))
    d[:, 0] = 1.0 + rng.random(cases)
    out = project_exact(d, gamma)
    # In the increments of the condition the set is a box: d = M r + constant with r >= 0.
    m, constant = np.zeros((n, n - 1)), np.ones((cases, n))
    constant[:, 0] = d[:, 0]
    for k in range(1, n):
        m[k] = (1.0 - gamma[k - 1]) * m[k - 1]
        m[k, k - 1] += 1.0
        constant[:, k] = 1.0 + (1.0 - gamma[k - 1]) * (constant[:, k - 1] - 1.0)
    worst = 0.0
    for row in range(cases):
        found = lsq_linear(m, d[row] - constant[row], (0.0, np.inf), method="bvls", tol=1e-14)
        worst = max(worst, float(np.abs(m @ found.x + constant[row] - out[row]).max()))
    return {
        "cases": cases, "greatest_error": worst, "least_condition": float(condition(out, gamma).min()),
        "us_each": 1e3 * _least(lambda: project_exact(d, gamma)) / cases,
    }  # fmt: skip


def optimum(scenes: int = 20) -> list[dict[str, float]]:
    """Iterate on the convex part alone; compare with its optimum (the active-set method's, which general solvers confirm)."""
    settings = PlannerSettings(bounds=BOUNDS, relaxation=1.6)
    t = Transcription(settings)
    rows = []
    for c in (2, 5):
        for iterations, rho in ((500, 200.0), (2000, 200.0), (3000, 200.0)):
            gap, violation, cpu = [], [], []
            for seed in range(scenes):
                problem = build(settings, *scene(np.random.default_rng(seed), c, 0))
                stage = Stage(iterations=iterations, rho_box=rho, rho_motion=0.0)
                run = admm.initial_state(t, problem, coldstart.roll_out(t, problem))
                begun = time.process_time()
                factors = t.factors(stage, 0, problem.bounded)
                kernel_numba.run(t, factors, stage, problem, run, iterations, 0.0)
                cpu.append(1e3 * (time.process_time() - begun))
                polisher = Polisher(t)
                best = polisher.run(problem, run.sample, 1)
                gap.append(abs(polisher.cost(problem, run.sample) / best.cost - 1.0))
                used = np.repeat(np.repeat(problem.bounded, t.n, axis=1), c, axis=0)
                violation.append(float(np.abs(run.sample - run.box)[used].max()))
            rows.append(
                {"C": c, "iterations": iterations, "rho_box": rho, "gap_max": max(gap), "violation_max": max(violation),
                 "cpu_median_ms": float(np.median(cpu))}
            )  # fmt: skip
    return rows


def derivatives(degree: int = 10, n: int = 50, dt: float = 0.1) -> dict[str, float]:
    """Compare P, P1, P2, P3 with exact rational differentiation, and a shifted curve with the curve, relative errors."""
    coefficients = np.random.default_rng(3).integers(-9, 10, degree + 1)
    power = [Fraction(0)] * (degree + 1)
    for i, c in enumerate(coefficients):
        for j in range(degree - i + 1):
            power[i + j] += int(c) * comb(degree, i) * comb(degree - i, j) * (-1) ** j
    duration = Fraction(n - 1) * Fraction(str(dt))
    worst = 0.0
    for order, matrix in enumerate(derivative_matrices(degree, n, dt)):
        exact = np.array([
            float(sum(
                power[e] * int(np.prod([e - q for q in range(order)], dtype=np.int64)) * Fraction(k, n - 1) ** (e - order)
                for e in range(order, degree + 1)
            ) / duration**order)
            for k in range(n)
        ])  # fmt: skip
        worst = max(worst, float(np.abs(matrix @ coefficients - exact).max() / np.abs(exact).max()))
    tau, step = np.linspace(0.0, 0.98, 50), 1.0 / (n - 1)
    moved = basis(degree, tau) @ (shift_matrix(degree, step) @ coefficients)
    shifted = basis(degree, tau + step) @ coefficients
    return {"derivatives": worst, "shift": float(np.abs(moved - shifted).max() / np.abs(shifted).max())}


def kernels(scenes: int = 20, c: int = 5) -> dict[str, float | int | None]:
    """Compare the kernels over single iterations from the same states, and their own bits over two runs."""
    settings = PlannerSettings(bounds=BOUNDS)
    t = Transcription(settings)
    stage = settings.stages[0]
    numba_error, jax_error, same = 0.0, None, 0
    try:
        from sfumato_cpto import kernel_jax
    except ImportError:
        kernel_jax = None  # type: ignore[assignment]
    for seed in range(scenes):
        problem = build(settings, *scene(np.random.default_rng(seed), c))
        factors = t.factors(stage, problem.n_obstacles, problem.bounded)
        guess = coldstart.roll_out(t, problem)
        runs = [admm.initial_state(t, problem, guess) for _ in range(4)]
        admm.iterate(t, factors, stage, problem, runs[0])
        kernel_numba.run(t, factors, stage, problem, runs[1], 1, 0.0)
        numba_error = max(numba_error, float(np.abs(runs[0].coef - runs[1].coef).max()))
        if kernel_jax is not None:
            other = admm.initial_state(t, problem, guess)
            kernel_jax.run(t, factors, stage, problem, other, 1, 0.0)
            jax_error = max(jax_error or 0.0, float(np.abs(runs[0].coef - other.coef).max()))
        for run in runs[2:]:
            kernel_numba.run(t, factors, stage, problem, run, 30, 0.0)
        same += runs[2].coef.tobytes() == runs[3].coef.tobytes()
    return {"scenes": scenes, "numba_error": numba_error, "jax_error": jax_error, "same_bits": same}


def bad_input() -> list[dict[str, object]]:
    """Plan on what is none; the status, and the most CPU time of twenty calls."""
    solver = CPTOSolver().warm_up()
    state, cars = State(0.0, 0.0, 0.0, 15.0), Obstacles([[30.0, 0.0]], [[10.0, 0.0]], [[5.6, 3.1]])
    one = Hypotheses([[True]], [0.0], [15.0])
    narrow = Bounds(v_x=(0.0, 10.0), j_x=(-0.1, 0.1), speed_max=10.0)
    cases = {
        "state not a number": ((State(0.0, 0.0, 0.0, float("nan")), cars, one), {}),
        "state missing": ((None, cars, one), {}),
        "obstacle on the vehicle": ((state, Obstacles([[0.0, 0.0]], [[0.0, 0.0]], [[5.6, 3.1]]), one), {}),
        "overlapping start": ((state, Obstacles([[3.0, 0.5]], [[10.0, 0.0]], [[5.6, 3.1]]), one), {}),
        "empty bounds": ((State(0.0, 0.0, 0.0, 9.9, 0.0, 2.9), cars, one), {"bounds": narrow}),
        "negative axes": ((state, Obstacles([[30.0, 0.0]], [[10.0, 0.0]], [[-1.0, 3.1]]), one), {}),
        "no hypothesis": ((state, cars, Hypotheses(np.zeros((0, 1), bool), [], [])), {}),
        "mask of another shape": ((state, cars, Hypotheses([[True, True]], [0.0], [15.0])), {}),
        "mask of chances": ((state, cars, Hypotheses([[0.3]], [0.0], [15.0])), {}),
        "no obstacle": ((state, Obstacles.none(), Hypotheses(np.zeros((2, 0), bool), [0.0, 3.0], [15.0] * 2)), {}),
        "one hypothesis": ((state, cars, one), {}),
    }  # fmt: skip
    rows = []
    for name, (arguments, options) in cases.items():
        ms = []
        for _ in range(20):
            begun = time.process_time()
            plan = solver.plan(*arguments, **options)  # type: ignore[arg-type]
            ms.append(1e3 * (time.process_time() - begun))
        rows.append(
            {"case": name, "status": plan.status.name, "cpu_max_ms": max(ms), "message": plan.message}
        )
    return rows


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {
        "projection": projection(), "optimum": optimum(), "derivatives": derivatives(), "kernels": kernels(),
        "bad_input": bad_input(),
    }  # fmt: skip
    for name, value in result.items():
        for row in value if isinstance(value, list) else [value]:
            print(name, {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()})
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
