"""How time and memory grow: with episodes, horizon, particles and actions.

    python benchmarks/growth.py [--seconds 0.5]

Each line is one search of a fixed number of episodes from a fresh tree; CPU time of one thread, best of two.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sfumato_vopp import VOPP, RockSample, SearchConfig
from sfumato_vopp.models.mars import Mars


def line(label: str, model: object, n_particles: int = 2000, **settings: object) -> None:
    """Print one line of the table."""
    config = SearchConfig(seconds=None, **{"max_episodes": 40_000, "n_episodes": 2000, **settings})
    planner = VOPP(model, config)
    planner.warmup()
    belief = model.initial(n_particles, np.random.default_rng(0))
    best = None
    for _ in range(2):
        began = time.process_time()
        decision = planner.plan(belief)
        seconds = time.process_time() - began
        if best is None or seconds < best[0]:
            best = (seconds, decision)
    seconds, decision = best
    stats = decision.stats
    print(
        f"{label:34} {stats.episodes:>9,} {stats.steps:>11,} {stats.n_beliefs:>10,} {stats.n_actions:>10,} "
        f"{1e3 * seconds:>9.1f} {1e9 * seconds / stats.steps:>8.0f} {stats.bytes / 1e6:>8.1f}", flush=True,
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(
        f"{'':34} {'episodes':>9} {'steps':>11} {'beliefs':>10} {'actions':>10} {'ms':>9} {'ns/step':>8} {'MB':>8}"
    )
    for episodes in (4000, 40_000, 400_000):
        line(f"RockSample(7,8) episodes {episodes:,}", RockSample(), max_episodes=episodes)
    for depth in (5, 10, 20, 40):
        line(f"RockSample(7,8) depth {depth}", RockSample(), max_depth=depth, depth_factor=100)
    for n in (100, 10_000, 300_000):
        line(f"RockSample(7,8) particles {n:,}", RockSample(), n_particles=n)
    for k in (2, 8, 16, 32):
        rocks = tuple((i % 12, i // 12 + 1) for i in range(k))
        line(f"RockSample(12,{k}) |A| = {5 + k}", RockSample(12, k, rocks))
    for m in (5, 20, 50):
        line(f"MARS(20,{m}) |A| = {(5 + m) ** 2}", Mars(20, m))


if __name__ == "__main__":
    main()
