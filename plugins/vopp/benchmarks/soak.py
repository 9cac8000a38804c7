"""Ten thousand decisions in one process: does memory grow, and does the same seed decide the same again?

    python benchmarks/soak.py [--decisions 10000] [--steps 20000]

Beliefs are of 100 to 5,000 particles, anew each time. Resident memory is read after a twentieth of the decisions and at the end. The actions of the first
thousand are decided once more by a fresh planner of the same seed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sfumato_vopp import VOPP, RockSample, SearchConfig, Tag


def resident() -> float:
    """Return this process's resident memory in MB."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmRSS")) / 1024


def decide(model: object, steps: int, decisions: int, marks: dict[int, float]) -> list[int]:
    """Return the actions decided, and note memory after the decisions that `marks` names."""
    planner = VOPP(model, SearchConfig(max_steps=steps), np.random.default_rng(0))
    planner.warmup()
    rng, actions = np.random.default_rng(1), []
    for k in range(1, decisions + 1):
        actions.append(planner.plan(model.initial(int(rng.integers(100, 5000)), rng)).action)
        if k in marks:
            marks[k] = resident()
    return actions


def main() -> None:
    """Print one line a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    for model in (RockSample(), Tag()):
        began = time.process_time()
        early, last = options.decisions // 20, options.decisions
        marks = {early: 0.0, last: 0.0}
        actions = decide(model, options.steps, options.decisions, marks)
        again = decide(model, options.steps, min(1000, options.decisions), {})
        print(
            f"{type(model).__name__}: {len(actions)} decisions, {marks[early]:.1f} MB after {early}, {marks[last]:.1f} MB at the end "
            f"({marks[last] / marks[early] - 1:+.2%}); the first {len(again)} again: {'the same' if again == actions[: len(again)] else 'DIFFERENT'}; "
            f"{time.process_time() - began:.0f} CPU s", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
