"""How well deadlines are kept: percentiles of the wall time of plan() at 20, 50 and 100 ms.

    python benchmarks/deadlines.py [--calls 10000] [--deadlines 0.02 0.05 0.1] [--load]

`--load` keeps another core busy with a process of its own. Beliefs vary from call to call. `--clock cpu` measures deadlines in
this thread's processor time: what the planner itself overruns, on a machine whose other work would hide it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

import numpy as np

from sfumato_vopp import VOPP, RockSample, SearchConfig
from sfumato_vopp.models.tag import Tag


def burn() -> None:
    """Keep a core busy."""
    x = 1.0
    while True:
        x = x * 1.0000001 % 10.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--problems", nargs="+", choices=["rocksample", "tag"], default=["rocksample", "tag"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    now = time.perf_counter if options.clock == "wall" else time.thread_time
    other = multiprocessing.Process(target=burn, daemon=True)
    if options.load:
        other.start()
    print(f"{'problem':16} {'deadline':>8} {'calls':>6} {'p50':>7} {'p99':>7} {'p99.9':>7} {'worst':>7}  over by >10 %  load   (ms)")
    for problem in options.problems:
        model = {"rocksample": RockSample, "tag": Tag}[problem]()
        planner = VOPP(model, SearchConfig(n_episodes=1000, clock=options.clock))
        planner.warmup()
        rng = np.random.default_rng(0)
        for deadline in options.deadlines:
            times = []
            for _ in range(options.calls):
                belief = model.initial(int(rng.integers(100, 5000)), rng)
                began = now()
                planner.plan(belief, deadline=deadline)
                times.append(1e3 * (now() - began))
            p = np.percentile(times, [50, 99, 99.9])
            over = np.mean(np.array(times) > 1.1e3 * deadline)
            print(
                f"{type(model).__name__:16} {1e3 * deadline:8.0f} {len(times):6} {p[0]:7.1f} {p[1]:7.1f} {p[2]:7.1f} "
                f"{max(times):7.1f}  {over:13.2%}  {os.getloadavg()[1]:.1f}", flush=True,
            )  # fmt: skip
    if options.load:
        other.terminate()


if __name__ == "__main__":
    main()
