"""Measurements behind `reproduce/*.toml` that one plain run cannot give: ratios, guarantees, speed.

Each returns `value`, `low`, `high` (95% bootstrap over seeds), `n` and `details`. The figures belong to our reference
design: the source's abstract gives structure and one number (a steady-state gap below 0.003), not environments.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from sfumato_ofs.cli import default_data_dir
from sfumato_ofs.config import (
    BanditConfig,
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.loops import BetaLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.studies import CONSTRAINTS, interval, named_loop, run_many
from sfumato_ofs.theory import count_failures

_BASELINES: dict[str, type[BanditConfig]] = {
    "primal-dual": PrimalDualConfig,
    "unconstrained": UnconstrainedConfig,
}


def _answer(values: np.ndarray, details: dict[str, Any]) -> dict[str, Any]:
    low, high = interval(values)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values), "details": details}


def tail_gap(
    loop: str, *, beta: float = 0.5, gap_weight: str = "group-sizes", seeds: int = 20, rounds: int = 5000
) -> dict[str, Any]:
    """Return the oracle's reward minus the search's expected reward over the last fifth."""
    built = named_loop(loop, default_data_dir())
    oracle = sweep(built, CONSTRAINTS)
    config = OptimisticFeasibleConfig(beta=beta, gap_weight=gap_weight)
    run = run_many(built, oracle, config, n_seeds=seeds, horizon=rounds)
    gap = oracle.reward[oracle.best] - run["tail_reward"] / run["tail_rounds"]
    return _answer(
        gap,
        {
            "violation": float(run["violation"].mean()),
            "tail_violation": float(run["tail_violation"].mean() / run["tail_rounds"]),
            "mean_reward": float(run["reward"].mean() / rounds),
        },
    )


def violation_ratio(
    loop: str,
    baseline: str,
    *,
    baseline_beta: float = 1.0,
    gap_weight: str = "group-sizes",
    seeds: int = 20,
    rounds: int = 5000,
) -> dict[str, Any]:
    """Return the baseline's cumulative violation over the search's (ratio of means over seeds)."""
    built = named_loop(loop, default_data_dir())
    oracle = sweep(built, CONSTRAINTS)
    search = OptimisticFeasibleConfig(gap_weight=gap_weight)
    ours = run_many(built, oracle, search, n_seeds=seeds, horizon=rounds)["violation"]
    config = _BASELINES[baseline](beta=baseline_beta, gap_weight=gap_weight)
    theirs = run_many(built, oracle, config, n_seeds=seeds, horizon=rounds)["violation"]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, seeds, (2000, seeds))
    ratios = theirs[draws].mean(axis=1) / ours[draws].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "value": float(theirs.mean() / ours.mean()),
        "low": float(low),
        "high": float(high),
        "n": seeds,
        "details": {"search": float(ours.mean()), baseline: float(theirs.mean())},
    }


def reward_lead(
    loop: str,
    baseline: str,
    *,
    beta: float = 0.5,
    baseline_beta: float = 1.0,
    seeds: int = 20,
    rounds: int = 5000,
) -> dict[str, Any]:
    """Return the search's mean reward minus the baseline's, paired by seed."""
    built = named_loop(loop, default_data_dir())
    oracle = sweep(built, CONSTRAINTS)
    ours = run_many(built, oracle, OptimisticFeasibleConfig(beta=beta), n_seeds=seeds, horizon=rounds)[
        "reward"
    ]
    config = _BASELINES[baseline](beta=baseline_beta)
    theirs = run_many(built, oracle, config, n_seeds=seeds, horizon=rounds)["reward"]
    return _answer(
        (ours - theirs) / rounds,
        {"search": float(ours.mean() / rounds), baseline: float(theirs.mean() / rounds)},
    )


def observed_violation(loop: str, *, seeds: int = 20, rounds: int = 5000) -> dict[str, Any]:
    """Return the observed-scores learner's cumulative violation over the search's."""
    built = named_loop(loop, default_data_dir())
    oracle = sweep(built, CONSTRAINTS)
    scored = run_many(built, oracle, ObservedScoresConfig(), n_seeds=seeds, horizon=rounds)
    hidden = run_many(built, oracle, OptimisticFeasibleConfig(), n_seeds=seeds, horizon=rounds)
    return _answer(
        scored["violation"] / hidden["violation"].mean(),
        {
            "observed_scores": float(scored["violation"].mean()),
            "search": float(hidden["violation"].mean()),
            "observed_scores_reward": float(scored["reward"].mean() / rounds),
            "search_reward": float(hidden["reward"].mean() / rounds),
        },
    )


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share seen in n trials; it says something at 0 and 1 too."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = centre - half if share > 0.0 else 0.0
    return max(low, 0.0), min(centre + half, 1.0) if share < 1.0 else 1.0


def guarantees(
    *, seeds: int = 1000, rounds: int = 2000, n_thresholds: int = 11, share: float = 0.40
) -> dict[str, Any]:
    """Return the largest share of seeds that broke one of the guarantees (a) to (d) on a frozen population.

    Arguments: share of group 1 among applicants.
    """
    loop = BetaLoop(
        shared_arms(threshold_grid(n_thresholds)), base_shares=(1.0 - share, share), eta=0.0, share_gain=0.0,
        clip=(min(0.05, share), 1.0 - min(0.05, share)),
    )  # fmt: skip
    found = count_failures(loop, seeds, rounds)
    worst = max(found.failures.values())
    low, high = wilson(worst, seeds)
    return {
        "value": worst,
        "low": low,
        "high": high,
        "n": seeds,
        "details": {"failures": found.failures, "largest_share_of_bound_used": found.used},
    }


def simulation_seconds(*, seeds: int = 1000, rounds: int = 5000) -> dict[str, Any]:
    """Return process CPU seconds of the compiled loop at 41 thresholds, compilation apart; least of three."""
    from sfumato_ofs.kernel import play_many

    loop = named_loop("A")
    oracle = sweep(loop, CONSTRAINTS)
    rngs = [np.random.default_rng(k) for k in range(seeds)]
    play_many(loop, CONSTRAINTS, oracle, OptimisticFeasibleConfig(), 50, rngs[:1])
    times = []
    for _ in range(3):
        before = time.process_time()
        play_many(loop, CONSTRAINTS, oracle, OptimisticFeasibleConfig(), rounds, rngs)
        times.append(time.process_time() - before)
    return {"value": min(times), "low": min(times), "high": max(times), "n": 3, "details": {"all": times}}
