"""Time of the ADMM kernel and of complete plans by size, with growth in C, M and N; medians and minima, one thread.

python benchmarks/kernel.py [--repeats 50] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc

import attrs
import numpy as np

from sfumato_cpto import CPTOSolver, PlannerSettings, admm, coldstart, kernel_numba
from sfumato_cpto.random_scenes import BOUNDS, scene


def kernel(c: int, m: int, n: int, repeats: int, iterations: int = 200) -> dict[str, float]:
    """Time `iterations` ADMM iterations of the compiled kernel: ms, process CPU and wall."""
    settings = PlannerSettings(bounds=BOUNDS, n_samples=n)
    solver = CPTOSolver(settings)
    t = solver.transcription
    problem = solver.build(*scene(np.random.default_rng(0), c, m))
    stage = attrs.evolve(settings.stages[0], iterations=iterations)
    factors = t.factors(stage, m, problem.bounded)
    guess = coldstart.roll_out(t, problem)
    wall, cpu = [], []
    for _ in range(repeats + 2):
        state = admm.initial_state(t, problem, guess)
        a, b = time.perf_counter(), time.process_time()
        kernel_numba.run(t, factors, stage, problem, state, iterations, 0.0)
        wall.append(1e3 * (time.perf_counter() - a))
        cpu.append(1e3 * (time.process_time() - b))
    wall, cpu = wall[2:], cpu[2:]
    return {
        "C": c, "M": m, "N": n, "iterations": iterations, "repeats": repeats, "wall_median_ms": float(np.median(wall)),
        "wall_min_ms": min(wall), "cpu_median_ms": float(np.median(cpu)), "cpu_min_ms": min(cpu),
    }  # fmt: skip


def plan(c: int, m: int, n: int, repeats: int) -> dict[str, float]:
    """Time complete plans on random scenes: ms, and peak memory allocated by one plan."""
    solver = CPTOSolver(PlannerSettings(bounds=BOUNDS, n_samples=n))
    rng = np.random.default_rng(1)
    wall, cpu, feasible = [], [], 0
    solver.plan(*scene(rng, c, m))
    for _ in range(repeats):
        arguments = scene(rng, c, m)
        a, b = time.perf_counter(), time.process_time()
        found = solver.plan(*arguments)
        wall.append(1e3 * (time.perf_counter() - a))
        cpu.append(1e3 * (time.process_time() - b))
        feasible += found.status.is_feasible
    tracemalloc.start()
    solver.plan(*scene(rng, c, m))
    peak = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    return {
        "C": c, "M": m, "N": n, "repeats": repeats, "feasible": feasible, "wall_median_ms": float(np.median(wall)),
        "cpu_median_ms": float(np.median(cpu)), "cpu_p95_ms": float(np.percentile(cpu, 95)), "peak_KiB": peak,
    }  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    sizes = [
        (2, 4, 40),
        (2, 6, 50),
        (5, 6, 50),
        (10, 6, 50),
        (20, 6, 50),
        (5, 12, 50),
        (5, 6, 100),
        (1, 6, 50),
    ]
    kernels = [kernel(*size, arguments.repeats) for size in sizes]
    print("ADMM, 200 iterations, one thread")
    print(f"{'C':>3}{'M':>4}{'N':>5}{'cpu min ms':>12}{'cpu median':>12}{'wall median':>13}")
    for row in kernels:
        print(
            f"{row['C']:>3}{row['M']:>4}{row['N']:>5}{row['cpu_min_ms']:>12.2f}{row['cpu_median_ms']:>12.2f}"
            f"{row['wall_median_ms']:>13.2f}"
        )
    at = {(r["C"], r["M"], r["N"]): r["cpu_min_ms"] for r in kernels}
    growth = {
        "C 20 / 5": at[20, 6, 50] / at[5, 6, 50],
        "N 100 / 50": at[5, 6, 100] / at[5, 6, 50],
        "M 12 / 6": at[5, 12, 50] / at[5, 6, 50],
    }
    for name, value in growth.items():
        print(f"growth {name}: {value:.2f}")
    plans = [plan(*size, max(arguments.repeats // 2, 10)) for size in sizes[:7]]
    print("complete plans (ADMM, polish, checks), random scenes")
    print(f"{'C':>3}{'M':>4}{'N':>5}{'cpu median ms':>15}{'cpu p95':>9}{'feasible':>10}{'peak KiB':>10}")
    for row in plans:
        print(
            f"{row['C']:>3}{row['M']:>4}{row['N']:>5}{row['cpu_median_ms']:>15.2f}{row['cpu_p95_ms']:>9.2f}"
            f"{row['feasible']:>6}/{row['repeats']:<3}{row['peak_KiB']:>10.0f}"
        )
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump({"kernel": kernels, "growth": growth, "plans": plans}, stream, indent=1)


if __name__ == "__main__":
    main()
