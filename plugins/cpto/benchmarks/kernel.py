"""Time of the ADMM kernel and of complete plans by size, with growth in C, M and N; medians and minima, one thread.

python benchmarks/kernel.py [--repeats 50] [--json results.json] [--peer ./bench] [--batch-mpc ./bench]

`--peer` names a program that is called as `PROGRAM C M N REPEATS` and prints "... cpu_min X cpu_median Y wall_median Z" in ms for
200 iterations of the same size: the authors' released C++ behind a main function of its own. It is run in turn with ours.
`--batch-mpc` names such a program for 100 iterations of Batch-MPC (Adajania et al., RA-L 2022, their C++ at their settings: 100
samples over 8 s, six obstacles), an ancestor of the method without consensus; ours then does 100 iterations of the same size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
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


def peer(program: str, c: int, m: int, n: int, repeats: int) -> dict[str, float]:
    """Time the peer's program at the same size."""
    command = [program, str(c), str(m), str(n), str(repeats)]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {name: float(words[words.index(name) + 1]) for name in ("cpu_min", "cpu_median", "wall_median")}


OACP_SIZES = ((2, 4, 40), (2, 6, 50), (5, 6, 50), (10, 6, 50))
BATCH_SIZES = ((2, 6, 100), (6, 6, 100), (11, 6, 100), (20, 6, 100))


def side_by_side(
    program: str, sizes: tuple[tuple[int, int, int], ...] = OACP_SIZES, iterations: int = 200, rounds: int = 5
) -> list[dict[str, object]]:
    """Return medians over interleaved rounds at the sizes of the comparison, and the ratio."""
    rows: list[dict[str, object]] = []
    for size in sizes:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(kernel(*size, 9, iterations)["cpu_median_ms"])
            theirs.append(peer(program, *size, 5)["cpu_median"])
        ratio = float(np.median(np.array(theirs) / np.array(ours)))
        rows.append(
            {
                "C": size[0], "M": size[1], "N": size[2], "iterations": iterations, "ours_ms": float(np.median(ours)),
                "peer_ms": float(np.median(theirs)), "times_faster": ratio, "rounds": rounds, "ours_least_ms": min(ours),
                "peer_least_ms": min(theirs),
            }
        )  # fmt: skip
        print(f"{size}: ours {np.median(ours):.2f} ms, peer {np.median(theirs):.1f} ms, {ratio:.1f} times")
    return rows


def gaps(c: int, shared: int, most: tuple[float, float], n_scenes: int = 500) -> dict[str, float]:
    """Return how far candidates of feasible plans are apart: at the executed step, and over the first five samples."""
    solver = CPTOSolver(PlannerSettings(bounds=BOUNDS, shared_points=shared, segment_gap=most))
    rng = np.random.default_rng(2)
    step, segment, pace, cost = [], [], [], []
    for _ in range(n_scenes):
        found = solver.plan(*scene(rng, c))
        if found.status.is_feasible:
            p, v = found.position, found.velocity
            far = np.sqrt(((p[:, None] - p[None]) ** 2).sum(axis=2)).max(axis=(0, 1))
            fast = np.sqrt(((v[:, None] - v[None]) ** 2).sum(axis=2)).max(axis=(0, 1))
            step.append(far[1])
            segment.append(far[:5].max())
            pace.append(fast[:5].max())
            cost.append(found.cost)
    return {
        "C": c, "shared_points": shared, "asked_m": most[0], "asked_m_s": most[1], "mean_cost": float(np.mean(cost)), "step_mm_max": 1e3 * max(step), "segment_mm_median": 1e3 * float(np.median(segment)),
        "segment_mm_p90": 1e3 * float(np.percentile(segment, 90)), "segment_mm_max": 1e3 * max(segment),
        "speed_m_s_median": float(np.median(pace)), "speed_m_s_max": max(pace),
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
    parser.add_argument("--peer")
    parser.add_argument("--batch-mpc")
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
    beside = side_by_side(arguments.peer) if arguments.peer else None
    batch = side_by_side(arguments.batch_mpc, BATCH_SIZES, 100, 3) if arguments.batch_mpc else None
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
    free = (float("inf"), float("inf"))
    asked = ((5, free), (5, (0.01, 0.12)), (6, free), (6, (0.001, 0.01)))
    apart = [gaps(c, shared, most) for c in (2, 5) for shared, most in asked]
    for row in apart:
        print("candidates apart:", {k: round(v, 4) for k, v in row.items()})
    if arguments.json:
        with open(arguments.json, "w") as stream:
            result = {
                "kernel": kernels,
                "growth": growth,
                "plans": plans,
                "gaps": apart,
                "released_cpp": beside,
                "batch_mpc_cpp": batch,
            }
            json.dump(json.loads(json.dumps(result).replace("Infinity", "null")), stream, indent=1)


if __name__ == "__main__":
    main()
