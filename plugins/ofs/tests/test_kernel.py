"""The compiled loop against the array simulation."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled loop needs numba (extra numba)")
from sfumato_ofs.config import (
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.kernel import _binomial, play_many
from sfumato_ofs.learners import PrimalDual, Unconstrained
from sfumato_ofs.loops import BetaLoop, PoolLoop, product_arms, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World, play

pytestmark = pytest.mark.optional


def pool() -> PoolLoop:
    """A scored pool of 600 people whose group 1 scores lower."""
    rng = np.random.default_rng(0)
    groups = (rng.random(600) < 0.4).astype(int)
    mean = np.where(groups == 1, 0.45, 0.6)
    scores = rng.beta(8 * mean, 8 * (1 - mean))
    return PoolLoop(shared_arms(threshold_grid(21)), scores, (rng.random(600) < scores).astype(int), groups)


def rngs(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([9, k]) for k in range(n)]


def test_binomials_agree_with_scipy() -> None:
    """The same integers as the inverse distribution function."""
    from math import lgamma

    from scipy.stats import binom

    rng = np.random.default_rng(0)
    table = np.array([lgamma(k + 1.0) for k in range(401)])
    u, n, p = rng.random(20000), rng.integers(0, 401, 20000), rng.random(20000)
    ours = [_binomial(*row, table) for row in zip(u, n, p, strict=True)]
    assert (np.array(ours) == binom.ppf(u, n, p)).all()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (OptimisticFeasible, OptimisticFeasibleConfig(margin=0.01)),
        (Unconstrained, UnconstrainedConfig(beta=1.0)),
        (PrimalDual, PrimalDualConfig(beta=1.0)),
        (PrimalDual, PrimalDualConfig(residual="mean")),
    ],
)
@pytest.mark.parametrize("which", ["beta", "pool"])
def test_every_play_and_sum_agrees(kind: type, config, which: str) -> None:
    """Three seeds, 500 rounds: identical plays, sums to 1e-6, the same recommendation."""
    loop = BetaLoop(shared_arms(threshold_grid(21))) if which == "beta" else pool()
    constraints = Constraints(rho_max=0.99)
    oracle = sweep(loop, constraints)
    world = World(loop, constraints, 500, rngs(3), ~oracle.is_feasible)
    learner = kind(
        3, 21, 500, config, reward_scale=reward_scale(1.0, 200), residual_scales=constraints.scales(200)
    )
    arrays = play(world, learner).truth()
    compiled = play_many(loop, constraints, oracle, config, 500, rngs(3), chunk=2)
    assert (arrays["plays"] == compiled["plays"]).all()
    assert (learner.recommend() == compiled["recommended"]).all()
    for name, value in arrays.items():
        assert np.asarray(compiled[name]) == pytest.approx(np.asarray(value), abs=1e-6), name


@pytest.mark.parametrize(
    "config",
    [
        ObservedScoresConfig(),
        OptimisticFeasibleConfig(window=10),
        OptimisticFeasibleConfig(anytime=True),
        OptimisticFeasibleConfig(order="strictest-first"),
    ],
    ids=lambda c: type(c).__name__,
)
def test_what_the_compiled_loop_does_not_do_is_refused(config) -> None:
    loop, constraints = BetaLoop(shared_arms(threshold_grid(5))), Constraints()
    with pytest.raises(OfsError, match=r"use simulate.play"):
        play_many(loop, constraints, sweep(loop, constraints), config, 50, rngs(1))


def test_three_groups_are_refused() -> None:
    loop = BetaLoop(
        shared_arms(threshold_grid(3), 3), base_means=(0.6, 0.5, 0.4), base_shares=(0.5, 0.3, 0.2)
    )
    constraints = Constraints(n_groups=3)
    with pytest.raises(OfsError, match="two groups"):
        play_many(loop, constraints, sweep(loop, constraints), OptimisticFeasibleConfig(), 50, rngs(1))


def test_thresholds_by_group_run_compiled() -> None:
    """Product arms need no other code: levels by group."""
    grid = threshold_grid(5)
    loop, constraints = BetaLoop(product_arms([grid, grid])), Constraints()
    truth = play_many(loop, constraints, sweep(loop, constraints), OptimisticFeasibleConfig(), 100, rngs(2))
    assert truth["plays"].sum() == 200
