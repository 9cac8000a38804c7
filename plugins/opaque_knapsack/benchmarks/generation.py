"""Time the generator, and the exact optimum beside a dense table and CP-SAT, interleaved in one process.

    python benchmarks/generation.py [--instances 300] [--rounds 5]

Prints medians over rounds of wall and process CPU time, and ratios. CP-SAT (OR-Tools, one worker) is given the same
instances; the dense table is the textbook O(N C) recurrence in numpy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, Instance, generate, solve_knapsack

Problem = tuple[list[int], list[int], int]


def front(problem: Problem) -> int:
    """Ours: the Pareto front of weight and value."""
    return solve_knapsack(*problem)[0]


def dense(problem: Problem) -> int:
    """The dense table, one row, numpy."""
    weights, values, capacity = problem
    best = np.zeros(capacity + 1, dtype=np.int64)
    for weight, value in zip(weights, values, strict=True):
        if weight <= capacity:
            best[weight:] = np.maximum(best[weight:], best[: capacity + 1 - weight] + value)
    return int(best[-1])


def cp_sat(problem: Problem) -> int:
    """OR-Tools' CP-SAT, model building included."""
    from ortools.sat.python import cp_model

    weights, values, capacity = problem
    model = cp_model.CpModel()
    take = [model.new_bool_var("") for _ in weights]
    model.add(sum(w * x for w, x in zip(weights, take, strict=True)) <= capacity)
    model.maximize(sum(v * x for v, x in zip(values, take, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.solve(model)
    return round(solver.objective_value)


def problem_of(instance: Instance) -> Problem:
    """Return weights and values of the allowed items, and the capacity."""
    valid = instance.allowed_items
    return [i.weight for i in valid], [i.value for i in valid], instance.capacity


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and process CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    solvers: dict[str, Callable[[Problem], int]] = {"front (ours)": front, "dense table": dense}
    try:
        import ortools  # noqa: F401

        solvers["CP-SAT"] = cp_sat
    except ImportError:
        print("CP-SAT left out: ortools is not installed")
    print(f"{'level':<12} {'what':<14} {'wall ms':>9} {'CPU ms':>9} {'x ours (CPU)':>13}")
    for level in ("easy", "hard", "legacy_hard", "micro"):
        seeds = range(EVAL_SEED_BASE, EVAL_SEED_BASE + options.instances)
        instances = [generate(level, seed) for seed in seeds]
        problems = [problem_of(instance) for instance in instances]
        answers = {name: [solve(p) for p in problems[:50]] for name, solve in solvers.items()}
        assert len({tuple(a) for a in answers.values()}) == 1, "the solvers disagree"
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ("generate", *solvers)}
        for _ in range(options.rounds):
            rows["generate"].append(
                timed(lambda level=level, seeds=seeds: [generate(level, s) for s in seeds])
            )
            for name, solve in solvers.items():
                part = problems if name != "CP-SAT" else problems[:50]
                wall, cpu = timed(lambda solve=solve, part=part: [solve(p) for p in part])
                rows[name].append((wall * len(problems) / len(part), cpu * len(problems) / len(part)))
        base = statistics.median(cpu for _, cpu in rows["front (ours)"])
        for name, times in rows.items():
            wall, cpu = (1000 * statistics.median(t[i] for t in times) / options.instances for i in (0, 1))
            ratio = f"{cpu * options.instances / 1000 / base:.1f}" if name != "generate" else ""
            print(f"{level:<12} {name:<14} {wall:9.3f} {cpu:9.3f} {ratio:>13}")


if __name__ == "__main__":
    main()
