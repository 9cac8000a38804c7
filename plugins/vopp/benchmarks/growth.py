"""How time and memory grow: with episodes, horizon, particles, actions and threads.

    python benchmarks/growth.py [--threads-only]

Each line is one search of a fixed number of episodes from a fresh tree; CPU time of one thread, best of two. The lines on
threads count simulated steps in a second of wall time, one thread and two by turns, best of five each.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sfumato_vopp import VOPP, RockSample, SearchConfig, Tag, Tiger
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


def threads(label: str, model: object, seconds: float = 0.5, rounds: int = 5) -> None:
    """Print steps a second of wall time with one thread and with two, and their ratio."""
    planners = {}
    for n in (1, 2):
        planners[n] = VOPP(model, SearchConfig(seconds=seconds, n_episodes=2000, n_threads=n))
        planners[n].warmup()
    belief = model.initial(2000, np.random.default_rng(0))
    rates = {1: [], 2: []}
    for _ in range(rounds):
        for n, planner in planners.items():
            stats = planner.plan(belief).stats
            rates[n].append(stats.steps / stats.seconds)
    one, two = max(rates[1]), max(rates[2])
    ratio = np.median(np.array(rates[2]) / np.array(rates[1]))
    print(f"{label:34} {one:.3g} steps/s on one thread, {two:.3g} on two; best {two / one:.2f}, median of pairs {ratio:.2f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads-only", action="store_true")
    if parser.parse_args().threads_only:
        threads("RockSample(7,8) threads", RockSample())
        threads("Tag threads", Tag())
        return
    print(
        f"{'':34} {'episodes':>9} {'steps':>11} {'beliefs':>10} {'actions':>10} {'ms':>9} {'ns/step':>8} {'MB':>8}"
    )
    for episodes in (4000, 40_000, 400_000):
        line(f"RockSample(7,8) episodes {episodes:,}", RockSample(), max_episodes=episodes)
    for depth in (5, 10, 20, 40):
        line(f"RockSample(7,8) depth {depth}", RockSample(), max_depth=depth, depth_factor=100)
    for n in (100, 10_000, 300_000):
        line(f"RockSample(7,8) particles {n:,}", RockSample(), n_particles=n)
    line("Tiger |A| = 3", Tiger())
    line("Tag |A| = 5", Tag())
    for k in (2, 8, 16, 32):
        rocks = tuple((i % 12, i // 12 + 1) for i in range(k))
        line(f"RockSample(12,{k}) |A| = {5 + k}", RockSample(12, k, rocks))
    for m in (5, 20, 50):
        line(f"MARS(20,{m}) |A| = {(5 + m) ** 2}", Mars(20, m))
    threads("RockSample(7,8) threads", RockSample())
    threads("Tag threads", Tag())


if __name__ == "__main__":
    main()
