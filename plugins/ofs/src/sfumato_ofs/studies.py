"""Runs behind the claims, tables and pictures: named loops, many seeds, the compiled loop where it can."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs import data
from sfumato_ofs.config import (
    BanditConfig,
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import GridLearner, PrimalDual, Unconstrained
from sfumato_ofs.loops import BetaLoop, ClosedLoop, PoolLoop, shared_arms, threshold_grid
from sfumato_ofs.observed import ObservedScores
from sfumato_ofs.oracle import Sweep, sweep
from sfumato_ofs.score_model import out_of_fold_scores
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World, play, play_observed

FloatArray = NDArray[np.float64]
CONSTRAINTS = Constraints()


def named_loop(name: str, data_dir: Path | None = None, n_thresholds: int = 41) -> ClosedLoop:
    """Return a loop of the reference design: `A`, `A-slow`, `frozen`, `german` or `compas` (these two need data_dir)."""
    arms = shared_arms(threshold_grid(n_thresholds))
    if name in ("A", "synthetic"):
        return BetaLoop(arms)
    if name == "A-slow":
        with warnings.catch_warnings():
            # Whoever asks for the slow preset by name knows that its certificate fails.
            warnings.filterwarnings("ignore", message="BetaLoop: the contraction certificate")
            return BetaLoop(arms, kappa=0.9)
    if name == "frozen":
        return BetaLoop(arms, eta=0.0, share_gain=0.0)
    if name not in ("german", "compas"):
        raise OfsError(f"loop must be A, A-slow, frozen, german or compas, got {name!r}")
    if data_dir is None:
        raise OfsError(f"loop {name!r} needs data_dir, the folder that 'sfumato ofs fetch' fills")
    minimal = data_dir / data.COMPAS_MINIMAL_FILE
    if name == "german":
        path = data_dir / data.GERMAN_FILE
    else:
        path = minimal if minimal.exists() else data_dir / data.COMPAS_FILE
    if not path.is_file():
        raise OfsError(
            f"data_dir: {path} is not there. Run 'sfumato ofs fetch', or set SFUMATO_DATA to a folder that has it"
        )
    table = data.load_german(path) if name == "german" else data.load_compas(path)
    return PoolLoop(arms, out_of_fold_scores(table), table.good, table.groups)


def generators(seed: int, n_seeds: int) -> list[np.random.Generator]:
    """Return one generator an item; item k's depends on the seed and k alone."""
    return [np.random.default_rng([seed, k]) for k in range(n_seeds)]


def make_learner(config: BanditConfig, n_seeds: int, loop: ClosedLoop, horizon: int) -> GridLearner:
    """Return the array learner for a config."""
    scales: dict[str, Any] = {
        "reward_scale": reward_scale(loop.loss, loop.n),
        "residual_scales": CONSTRAINTS.scales(loop.n),
    }
    if isinstance(config, OptimisticFeasibleConfig):
        return OptimisticFeasible(
            n_seeds,
            loop.n_arms,
            horizon,
            config,
            constraints=CONSTRAINTS,
            levels=loop.levels,
            loss=loop.loss,
            **scales,
        )
    if isinstance(config, PrimalDualConfig):
        return PrimalDual(n_seeds, loop.n_arms, horizon, config, **scales)
    if isinstance(config, UnconstrainedConfig):
        return Unconstrained(n_seeds, loop.n_arms, horizon, config, **scales)
    raise OfsError(f"config must be one of the grid learners', got {type(config).__name__}")


def run_many(
    loop: ClosedLoop,
    oracle: Sweep,
    config: BanditConfig | ObservedScoresConfig,
    *,
    n_seeds: int = 20,
    horizon: int = 5000,
    seed: int = 0,
) -> Mapping[str, Any]:
    """Play n_seeds and return the sums of `RunningSums.truth` with `recommended`; `compiled` says whether the kernel ran.

    It runs where numba is installed and it does what is asked. Compiled and array runs play the same arms (the kernel's
    tests show it), so which one ran does not change a figure beyond its printed digits.
    """
    rngs = generators(seed, n_seeds)
    if isinstance(config, ObservedScoresConfig):
        world = World(loop, CONSTRAINTS, horizon, rngs, ~oracle.is_feasible, scores_seen=True)
        observed = ObservedScores(n_seeds, loop.arms, CONSTRAINTS, config, loss=loop.loss)
        sums = play_observed(world, observed)
        return {**sums.truth(), "recommended": observed.recommend(), "compiled": False}
    try:
        from sfumato_ofs import kernel
    except ImportError:
        kernel = None  # type: ignore[assignment]
    if kernel is not None and kernel.can_play(loop, CONSTRAINTS, config):
        truth = kernel.play_many(loop, CONSTRAINTS, oracle, config, horizon, rngs)
        return {**truth, "compiled": True}
    learner = make_learner(config, n_seeds, loop, horizon)
    sums = play(World(loop, CONSTRAINTS, horizon, rngs, ~oracle.is_feasible), learner)
    return {**sums.truth(), "recommended": learner.recommend(), "compiled": False}


def interval(values: FloatArray, n_draws: int = 2000) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean over seeds."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(n_draws, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def picture_runs(
    loop: str, n_seeds: int, horizon: int, data_dir: Path
) -> tuple[dict[str, Mapping[str, Any]], Sweep, tuple[FloatArray, FloatArray]]:
    """Return the search's and its baselines' runs, the oracle, and the search's final bounds on the first seed."""
    built = named_loop(loop, data_dir)
    oracle = sweep(built, CONSTRAINTS)
    configs: dict[str, BanditConfig] = {
        "optimistic-feasible": OptimisticFeasibleConfig(),
        "primal-dual": PrimalDualConfig(),
        "unconstrained": UnconstrainedConfig(),
    }
    runs = {
        name: run_many(built, oracle, config, n_seeds=n_seeds, horizon=horizon)
        for name, config in configs.items()
    }
    learner = make_learner(configs["optimistic-feasible"], 1, built, horizon)
    play(World(built, CONSTRAINTS, horizon, generators(0, 1), ~oracle.is_feasible), learner)
    s = learner.statistics
    return runs, oracle, (s.lower[0], s.upper[0])
