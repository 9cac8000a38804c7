"""Play the ladder natively and through both interpreters, and count the episodes whose score differs.

    python benchmarks/ladder_interpreters.py [--level easy] [--instances 1000] [--concurrency 16]

Needs the two runtimes installed. One line a policy and runtime, printed as it comes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato_opaque_knapsack import tasks
from sfumato_opaque_knapsack.config import ExpertConfig, TaskConfig
from sfumato_opaque_knapsack.evaluators import ScoreEvaluator
from sfumato_opaque_knapsack.ladder import LADDER
from sfumato_opaque_knapsack.solvers import ExpertSolver

TASKS = {"easy": tasks.EasyTask, "hard": tasks.HardTask, "micro": tasks.MicroTask}


def scores(level: str, policy: str, runtime: str, n: int, concurrency: int) -> np.ndarray:
    """Return one score an instance."""
    ref = "direct" if runtime == "direct" else f"runtime-{runtime}/python"
    task = TASKS[level](TaskConfig(reveal_allowed=True, reveal_items=True))
    writer = "native" if runtime == "direct" else "calls"
    result = drive(
        task,
        ExpertSolver(ExpertConfig(policy=policy, writer=writer)),
        RunContext().component(ref, {} if runtime == "direct" else {"packages": ()}, kind="runtime"),
        {"score": ScoreEvaluator()},
        RunContext(indices=range(n)),
        concurrency=concurrency,
    )
    return np.array([row["metrics"][0]["values"][0] for row in result.rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", choices=sorted(TASKS), default="easy")
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()
    for policy in LADDER:
        native = scores(options.level, policy, "direct", options.instances, 1)
        line = f"{options.level} {policy:<14} native {100 * native.mean():.2f}"
        for runtime in ("persistent", "stateless"):
            begun = time.perf_counter()
            found = scores(options.level, policy, runtime, options.instances, options.concurrency)
            wall = time.perf_counter() - begun
            line += (
                f"  {runtime} {100 * found.mean():.2f} ({int((found != native).sum())} differ, {wall:.0f} s)"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()
