"""Growth of the simulation: seeds, thresholds; compiled loop beside the array simulation, interleaved in one run.

    python benchmarks/bench_simulation.py            # all tables
    python benchmarks/bench_simulation.py --quick    # the acceptance size only

Times are process CPU seconds (wall beside them), the least of the repeats; memory is the peak of the process so far.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np

from sfumato_ofs import (
    BetaLoop,
    Constraints,
    OptimisticFeasible,
    OptimisticFeasibleConfig,
    World,
    play,
    reward_scale,
    shared_arms,
    sweep,
    threshold_grid,
)
from sfumato_ofs.kernel import play_many

CONSTRAINTS = Constraints()
CONFIG = OptimisticFeasibleConfig()


def compiled(loop: BetaLoop, oracle, n_seeds: int, horizon: int) -> None:
    play_many(
        loop, CONSTRAINTS, oracle, CONFIG, horizon, [np.random.default_rng([0, k]) for k in range(n_seeds)]
    )


def arrays(loop: BetaLoop, oracle, n_seeds: int, horizon: int) -> None:
    world = World(
        loop,
        CONSTRAINTS,
        horizon,
        [np.random.default_rng([0, k]) for k in range(n_seeds)],
        ~oracle.is_feasible,
    )
    learner = OptimisticFeasible(
        n_seeds,
        loop.n_arms,
        horizon,
        CONFIG,
        reward_scale=reward_scale(1.0, 200),
        residual_scales=CONSTRAINTS.scales(200),
    )
    play(world, learner)


def timed(run, *args) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run(*args)
    return time.process_time() - cpu, time.perf_counter() - wall


def row(label: str, run, args, repeats: int) -> None:
    times = sorted(timed(run, *args) for _ in range(repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{label:44s} {times[0][0]:9.2f} {min(t[1] for t in times):9.2f} {peak:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, one thread")
    print(f"{'':44s} {'CPU s':>9s} {'wall s':>9s} {'peak MB':>9s}")
    loop = BetaLoop(shared_arms(threshold_grid(41)))
    oracle = sweep(loop, CONSTRAINTS)
    compiled(loop, oracle, 1, 50)
    row("compiled 1000 seeds x 5000 rounds x 41", compiled, (loop, oracle, 1000, 5000), args.repeats)
    if args.quick:
        return
    for _ in range(args.repeats):
        row("arrays   20 seeds x 5000 rounds x 41", arrays, (loop, oracle, 20, 5000), 1)
        row("compiled 20 seeds x 5000 rounds x 41", compiled, (loop, oracle, 20, 5000), 1)
    for n_seeds in (10, 100, 1000, 10000):
        row(f"compiled {n_seeds} seeds x 5000 x 41", compiled, (loop, oracle, n_seeds, 5000), 1)
    for m in (11, 21, 41, 81, 161, 321):
        other = BetaLoop(shared_arms(threshold_grid(m)))
        row(f"compiled 300 seeds x 5000 x {m}", compiled, (other, sweep(other, CONSTRAINTS), 300, 5000), 1)


if __name__ == "__main__":
    main()
