"""How time and memory grow: with episodes, horizon, particles, actions and threads.

    python benchmarks/growth.py [--threads-only] [--out benchmarks/results/growth.json]

Each line is one search of a fixed number of episodes from a fresh tree; CPU time of one thread, best of two. The lines on
threads count simulated steps in half a second of wall time, one thread and two by turns, and beside them two processes that
have nothing in common: what they reach is what the machine had to give at that moment.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np

from sfumato_vopp import VOPP, RockSample, SearchConfig, Tag, Tiger
from sfumato_vopp.models.mars import Mars

ROWS: list[dict[str, object]] = []


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
    ROWS.append({
        "what": label, "actions": model.n_actions, "particles": n_particles, "episodes": stats.episodes, "steps": stats.steps,
        "beliefs": stats.n_beliefs, "action_nodes": stats.n_actions, "deepest": len(stats.depth_histogram) - 1,
        "ms": round(1e3 * seconds, 2), "ns_a_step": round(1e9 * seconds / stats.steps, 1), "MB": round(stats.bytes / 1e6, 1),
    })  # fmt: skip
    print(
        f"{label:34} {stats.episodes:>9,} {stats.steps:>11,} {stats.n_beliefs:>10,} {stats.n_actions:>10,} "
        f"{1e3 * seconds:>9.1f} {1e9 * seconds / stats.steps:>8.0f} {stats.bytes / 1e6:>8.1f}", flush=True,
    )  # fmt: skip


def measure(planner: VOPP, belief: np.ndarray) -> tuple[float, float, float]:
    """Return steps a second of wall time, steps a CPU second, and MB, of one search."""
    began = time.process_time()
    stats = planner.plan(belief).stats
    return stats.steps / stats.seconds, stats.steps / (time.process_time() - began), stats.bytes / 1e6


def process(problem: str, n: int, seconds: float, rounds: int, barrier: object, found: object) -> None:
    """Search by turns with nobody or with a twin, as the barrier says; put the wall rates in a queue."""
    model = {"RockSample": RockSample, "Tag": Tag}[problem]()
    planner = VOPP(model, SearchConfig(seconds=seconds, n_episodes=n))
    planner.warmup()
    belief = model.initial(2000, np.random.default_rng(0))
    planner.plan(belief)
    for _ in range(rounds):
        barrier.wait()
        found.put(measure(planner, belief)[0])


def threads(problem: str, n: int, seconds: float = 0.5, rounds: int = 6) -> None:
    """Print how two threads compare with one, and two processes with one."""
    model = {"RockSample": RockSample, "Tag": Tag}[problem]()
    settings = {1: {}, 2: {"n_threads": 2}, "pinned": {"n_threads": 2, "pin_threads": True}}
    planners = {t: VOPP(model, SearchConfig(seconds=seconds, n_episodes=n, **more)) for t, more in settings.items()}
    belief = model.initial(2000, np.random.default_rng(0))
    for planner in planners.values():
        planner.warmup()
        planner.plan(belief)
    rates = {t: [] for t in planners}
    for _ in range(rounds):
        for t, planner in planners.items():
            rates[t].append(measure(planner, belief))
    one, two, pinned = (np.array(rates[t]) for t in settings)
    alone = {}
    context = multiprocessing.get_context("spawn")
    for count in (1, 2):
        barrier, found = context.Barrier(count), context.Queue()
        crew = [context.Process(target=process, args=(problem, n, seconds, rounds, barrier, found)) for _ in range(count)]
        for member in crew:
            member.start()
        alone[count] = [found.get() for _ in range(count * rounds)]
        for member in crew:
            member.join()
    row = {
        "what": f"{problem}, n = {n}: two threads against one", "steps_a_second_one": float(np.median(one[:, 0])),
        "wall_ratio": round(float(np.median(two[:, 0] / one[:, 0])), 2), "best_of_each": round(float(two[:, 0].max() / one[:, 0].max()), 2),
        "wall_ratio_pinned": round(float(np.median(pinned[:, 0] / one[:, 0])), 2),
        "best_of_each_pinned": round(float(pinned[:, 0].max() / one[:, 0].max()), 2),
        "cpu_second_ratio": round(float(np.median(two[:, 1] / one[:, 1])), 2), "MB": [round(x[-1, 2]) for x in (one, pinned)],
        "two_processes": round(2 * float(np.median(alone[2]) / np.median(alone[1])), 2),
    }  # fmt: skip
    ROWS.append(row)
    print(row, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads-only", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file to write the rows to")
    options = parser.parse_args()
    if not options.threads_only:
        sizes()
    for problem, n in (("RockSample", 1000), ("RockSample", 4000), ("Tag", 2000)):
        threads(problem, n)
    if options.out is not None:
        options.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n")


def sizes() -> None:
    """Print the lines on sizes."""
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


if __name__ == "__main__":
    main()
