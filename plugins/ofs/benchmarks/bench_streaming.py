"""Microseconds of `select` + learning in `ThresholdBandit`, audit log included, beside mabwiser's predict + partial_fit.

    python benchmarks/bench_streaming.py

Process CPU time of the least of the repeats, interleaved; the peer is skipped when it is not installed.
"""

from __future__ import annotations

import os
import tempfile
import time

import numpy as np

from sfumato_ofs import ThresholdBandit

REPEATS, ROUNDS = 7, 300


def ours(n_thresholds: int, horizon: int | None, log: str | None = None):
    grid = np.arange(n_thresholds) / (n_thresholds - 1)
    bandit = ThresholdBandit(grid, policy="ofs", horizon=horizon, corridor=None, incumbent=0.0, log=log)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=(4096, 3)).tolist()
    state = {"t": 0}

    def step() -> None:
        t = state["t"] = state["t"] + 1
        bandit.partial_fit_stats(bandit.select(), 0.2, noise[t % 4096], 200, group_counts=[120.0, 80.0])

    for _ in range(n_thresholds + 20):
        step()
    return step


def with_scores(hide: bool = False, log: str | None = None):
    rng = np.random.default_rng(0)
    groups, scores = (rng.random(200) < 0.4).astype(int), rng.random(200)
    labels = (rng.random(200) < scores).astype(float)
    bandit = ThresholdBandit(corridor=None, log=log)

    def step() -> None:
        tau = bandit.select()
        accepted = scores >= tau
        bandit.partial_fit(
            tau,
            groups=groups,
            accepted=accepted,
            labels=np.where(accepted, labels, np.nan),
            scores=None if hide else scores,
        )

    return step


def peer(n_arms: int):
    from mabwiser.mab import MAB, LearningPolicy

    mab = MAB(list(range(n_arms)), LearningPolicy.UCB1(alpha=1.0), seed=0)
    mab.fit(list(range(n_arms)), [0.2] * n_arms)

    def step() -> None:
        mab.partial_fit([mab.predict()], [0.2])

    return step


def main() -> None:
    folder = tempfile.mkdtemp()
    steps = {
        "ThresholdBandit, 41 thresholds": ours(41, 100_000),
        "ThresholdBandit, 41 thresholds, anytime": ours(41, None),
        "ThresholdBandit, 1000 thresholds": ours(1000, 100_000),
        "ThresholdBandit, 41 thresholds, log in a file": ours(41, 100_000, f"{folder}/stats.jsonl"),
        "ThresholdBandit, batch of 200, scores hidden": with_scores(hide=True),
        "ThresholdBandit, batch of 200 with scores": with_scores(),
    }
    try:
        steps["mabwiser UCB1, 41 arms (no constraints, no log)"] = peer(41)
    except ImportError:
        print("mabwiser is not installed: pip install 'sfumato-ofs[peers]'")
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(REPEATS):
        for name, step in steps.items():
            before = time.process_time()
            for _ in range(ROUNDS):
                step()
            least[name] = min(least[name], (time.process_time() - before) / ROUNDS * 1e6)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for name, microseconds in least.items():
        print(f"{name:50s} {microseconds:8.1f} us CPU a round")


if __name__ == "__main__":
    main()
