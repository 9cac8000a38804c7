"""The observed-scores learner."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import ObservedScoresConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import Reason
from sfumato_ofs.loops import BetaLoop, product_arms, shared_arms, threshold_grid
from sfumato_ofs.observed import ObservedScores, cell_scores
from sfumato_ofs.oracle import sweep
from sfumato_ofs.scored import Cells
from sfumato_ofs.simulate import World, play_observed


def test_cells_have_their_middle_scores() -> None:
    """Grid 0, 0.5, 1 has cells below 0 (empty), [0, 0.5), [0.5, 1) and exactly 1."""
    assert cell_scores(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 0.25, 0.75, 1.0]


def test_rates_and_reward_by_hand() -> None:
    """Ten people in each group: the rates at every threshold are read off, labels pull quality from the score's claim."""
    arms = shared_arms(np.array([0.0, 0.5, 1.0]))
    learner = ObservedScores(1, arms, Constraints(), ObservedScoresConfig(tau=0.5, prior=1e-9), loss=1.0)
    applicants = np.array([[[0, 4, 6, 0], [0, 8, 2, 0]]])
    labelled = np.array([[[0, 0, 6, 0], [0, 0, 2, 0]]])
    good = np.array([[[0, 0, 3, 0], [0, 0, 2, 0]]])
    learner.update(np.array([1]), Cells(applicants, labelled, good))
    reward, residuals = learner.estimates()
    # At 0.5: rates 0.6 and 0.2, five of eight good: (5 - 3) / 20.
    assert reward[0, 1] == pytest.approx(0.1)
    assert residuals[0, 1] == pytest.approx([0.6 - 0.2 - 0.1, 0.2 - 0.6 - 0.1, 0.3 - 0.4])
    # At 0 the twelve unlabelled count at their score 0.25: 12 * (2 * 0.25 - 1) = -6.
    assert reward[0, 0] == pytest.approx((2 - 6) / 20, abs=1e-6)
    assert residuals[0, 2] == pytest.approx([-0.1, -0.1, 0.3])


def test_the_first_choice_is_the_incumbent_and_choices_stay_in_the_corridor(beta_loop: BetaLoop) -> None:
    """Corridor 0.1 around 0.5: never below 0.4, although feasibility lies there."""
    constraints = Constraints()
    world = World(
        beta_loop, constraints, 60, [np.random.default_rng(0)], np.zeros(41, bool), scores_seen=True
    )
    learner = ObservedScores(1, beta_loop.arms, constraints, ObservedScoresConfig(corridor=0.1), loss=1.0)
    assert beta_loop.arms[learner.select()[0], 0] == 0.5
    sums = play_observed(world, learner)
    played = beta_loop.arms[sums.plays[0] > 0, 0]
    assert played.min() >= 0.4 and played.max() <= 0.6


def test_it_violates_far_less_than_a_bandit_at_equal_reward(beta_loop: BetaLoop) -> None:
    """4 seeds, T = 2000 on environment A: violation below 1 (the bandit needs 11.7), tail gap below 0.001."""
    constraints = Constraints()
    oracle = sweep(beta_loop, constraints)
    rngs = [np.random.default_rng([5, k]) for k in range(4)]
    world = World(beta_loop, constraints, 2000, rngs, ~oracle.is_feasible, scores_seen=True)
    sums = play_observed(
        world, ObservedScores(4, beta_loop.arms, constraints, ObservedScoresConfig(), loss=1.0)
    )
    assert sums.violation.max() < 1.0
    assert abs(oracle.reward[oracle.best] - sums.tail_reward.mean() / 400) < 1e-3


def test_with_thresholds_by_group_it_settles_where_it_is_best_now(beta_loop: BetaLoop) -> None:
    """Known limit: estimates are those of the present population, so a stable pair is held although a better one exists.

    From the incumbent 0.5 the pair (0.55, 0.40) is best for the population that it makes; the oracle's pair
    (0.40, 0.30) would be feasible only once the population had answered to it.
    """
    grid = threshold_grid(21)
    loop = BetaLoop(product_arms([grid, grid]))
    constraints = Constraints()
    shared, own = sweep(beta_loop, constraints), sweep(loop, constraints)
    assert own.arms[own.best].tolist() == [0.4, 0.3]
    assert own.reward[own.best] > shared.reward[shared.best] + 0.005
    world = World(loop, constraints, 400, [np.random.default_rng(0)], ~own.is_feasible, scores_seen=True)
    sums = play_observed(world, ObservedScores(1, loop.arms, constraints, ObservedScoresConfig(), loss=1.0))
    assert sums.violation[0] < 2.0
    assert sums.tail_reward[0] / 80 < own.reward[own.best]


def test_an_incumbent_off_the_grid_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        OfsError, match=r"tau must lie on the grid, got 0.51; the nearest grid threshold is 0.5"
    ):
        ObservedScores(
            1, shared_arms(threshold_grid(41)), Constraints(), ObservedScoresConfig(tau=0.51), loss=1.0
        )


def test_a_group_not_seen_yet_holds_the_incumbent() -> None:
    """Group 1 never applied: item 0 holds 0.5 although accepting everybody pays; item 1, where it did apply, moves."""
    arms = shared_arms(np.array([0.0, 0.25, 0.5, 1.0]))
    learner = ObservedScores(2, arms, Constraints(rho_min=None), ObservedScoresConfig(tau=0.5), loss=1.0)
    applicants = np.zeros((2, 2, 5), dtype=np.int64)
    applicants[:, 0, 2:4] = 50
    applicants[1, 1, 2:4] = 50
    learner.update(np.array([2, 2]), Cells(applicants, applicants, applicants))
    assert learner.select().tolist() == [2, 0] or learner.select().tolist() == [2, 1]
    assert Reason(learner.reason[0]).label == "unseen-group"
    reward, residuals = learner.estimates()
    assert np.isnan(residuals[0]).all() and not np.isnan(residuals[1]).any() and not np.isnan(reward).any()
