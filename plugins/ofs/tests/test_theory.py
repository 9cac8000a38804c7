"""The guarantees on a frozen population, at a size that a test can afford; the claim counts 1,000 seeds."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.loops import BetaLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World
from sfumato_ofs.studies import named_loop
from sfumato_ofs.theory import count_failures


def test_no_guarantee_fails_more_often_than_delta() -> None:
    """200 seeds, 300 rounds: at most 5% break (a), (b), (c) or (d), and the bounds are not empty talk."""
    found = count_failures(named_loop("frozen", n_thresholds=11), 200, 300)
    assert all(share <= 0.05 for share in found.failures.values())
    assert found.used["d"] > 0.1


def test_a_frozen_loop_stays_where_it_is() -> None:
    loop = named_loop("frozen")
    state = loop.rest(3)
    moved = loop.advance(state, np.array([[0.9, 0.1], [0.0, 1.0], [np.nan, 0.5]]))
    assert np.abs(moved - state).max() < 1e-15


@pytest.mark.parametrize("share", [0.4, 0.05])
def test_anytime_bounds_hold_in_all_rounds_at_once(share: float) -> None:
    """100 seeds, 300 rounds, groups 60/40 and 95/5, beta 1: at most 5% of seeds see any bound of any arm fail in any round."""
    loop = BetaLoop(
        shared_arms(threshold_grid(5)), base_shares=(1 - share, share), eta=0.0, share_gain=0.0, clip=(0.01, 0.99)
    )  # fmt: skip
    constraints = Constraints()
    truth = sweep(loop, constraints)
    learner = OptimisticFeasible(
        100, 5, 1, OptimisticFeasibleConfig(beta=1.0, anytime=True), reward_scale=reward_scale(1.0, 200),
        residual_scales=constraints.scales(200),
    )  # fmt: skip
    rngs = [np.random.default_rng([2, k]) for k in range(100)]
    world, failed = World(loop, constraints, 300, rngs, ~truth.is_feasible), np.zeros(100, dtype=bool)
    tightest = np.inf
    for _ in range(300):
        arm = learner.select()
        seen = world.step(arm)
        learner.update(arm, seen.reward, seen.residuals, seen.rates, 1.0, seen.weights, seen.people)
        lower, upper = learner.bounds()
        low, high = learner.reward_bounds()
        failed |= ((lower > truth.residuals) | (upper < truth.residuals)).any(axis=(1, 2))
        failed |= ((low > truth.reward) | (high < truth.reward)).any(axis=1)
        tightest = min(tightest, float((upper - lower).min()))
    assert failed.mean() <= 0.05 and tightest < 0.5


def test_a_small_group_breaks_no_guarantee_when_gaps_are_weighed_by_size() -> None:
    """Groups 95/5: (a) to (d) hold, and the number of plays of a violating arm comes near its bound."""
    loop = BetaLoop(
        shared_arms(threshold_grid(11)), base_shares=(0.95, 0.05), eta=0.0, share_gain=0.0, clip=(0.01, 0.99)
    )
    found = count_failures(loop, 100, 300)
    assert all(share <= 0.05 for share in found.failures.values()) and found.used["d"] > 0.1
