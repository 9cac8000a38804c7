"""Closed loops: expectations, draws, dynamics, certificates."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from sfumato_ofs.errors import OfsError
from sfumato_ofs.loops import (
    BetaLoop,
    PoolLoop,
    batch_reward,
    check_grid,
    product_arms,
    shared_arms,
    threshold_grid,
)


def test_grid_points_are_the_literals_they_read_as() -> None:
    """0.275 on the 41-point grid is the literal 0.275, not a neighbour."""
    grid = threshold_grid(41)
    assert grid[11] == 0.275
    assert grid[14] == 0.35
    assert grid[0] == 0.0 and grid[-1] == 1.0


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([0.5], "at least 2"),
        ([0.1, np.nan], "finite"),
        ([0.1, 0.3, 0.2], "strictly increasing"),
        ([0.1, 0.1], "strictly increasing"),
        ([[0.1, 0.2]], "one dimension"),
    ],
)
def test_a_bad_grid_is_refused_by_name(grid: object, message: str) -> None:
    """The message names the argument and what is wrong with it."""
    with pytest.raises(OfsError, match=f"grid.*{message}"):
        check_grid(grid)


def test_beta_expectations_agree_with_quadrature(beta_loop: BetaLoop) -> None:
    """Acceptance and good-acceptance match numerical integration of the Beta density."""
    arm = np.array([11])
    accept, good = beta_loop.expectations(beta_loop.rest(1), arm)
    for a, m in enumerate((0.60, 0.45)):
        density = beta(8 * m, 8 * (1 - m)).pdf
        assert accept[0, a] == pytest.approx(quad(density, 0.275, 1)[0], abs=1e-9)
        assert good[0, a] == pytest.approx(quad(lambda s, f=density: s * f(s), 0.275, 1)[0], abs=1e-9)


def test_the_certificate_holds_for_preset_a_and_warns_for_a_slow() -> None:
    """kappa 0.8 contracts; kappa 0.9 does not, and the constructor says so."""
    arms = shared_arms(threshold_grid(41))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0.95 < BetaLoop(arms).contraction_factor() < 0.953
    with pytest.warns(UserWarning, match="contraction certificate fails"):
        slow = BetaLoop(arms, kappa=0.9)
    assert slow.contraction_factor() > 1.0


def test_the_certificate_bounds_the_map(beta_loop: BetaLoop) -> None:
    """No finite difference of the mean map exceeds the certified factor."""
    rng = np.random.default_rng(0)
    state = np.tile(beta_loop.rest(1), (4000, 1))
    state[:, :2] = rng.uniform(0.06, 0.94, (4000, 2))
    moved = state.copy()
    moved[:, :2] += 1e-5
    arm = rng.integers(0, 41, 4000)
    after = [beta_loop.advance(s, beta_loop.expectations(s, arm)[0])[:, :2] for s in (state, moved)]
    assert np.abs(after[1] - after[0]).max() / 1e-5 <= beta_loop.contraction_factor() + 1e-6


def test_the_pool_counts_scores_on_the_threshold_as_accepted(small_pool: PoolLoop) -> None:
    """A score equal to the threshold is accepted: `>=`, also at discrete scores."""
    accept, good = small_pool.table
    assert accept[:, 0].tolist() == [1.0, 0.8, 0.6, 0.4, 0.2]
    assert accept[:, 1].tolist() == [1.0, 1.0, 0.6, 0.2, 0.0]
    assert good[:, 1].tolist() == pytest.approx([0.6, 0.6, 0.4, 0.2, 0.0])


def test_a_pool_with_a_missing_group_is_refused() -> None:
    """Every group index needs people."""
    with pytest.raises(OfsError, match="groups must take every value"):
        PoolLoop(shared_arms(threshold_grid(3)), np.array([0.5]), np.array([1]), np.array([0]))


def test_an_absent_group_moves_nothing(beta_loop: BetaLoop) -> None:
    """A NaN rate leaves the composition's push at zero and the mean's push at zero."""
    state = beta_loop.rest(1)
    after = beta_loop.advance(state, np.array([[0.9, np.nan]]))
    assert after[0, 1] == pytest.approx(0.45)
    assert after[0, 3] == pytest.approx(0.40)


@pytest.mark.parametrize("arm", [0, 11, 20, 32])
def test_binomial_rounds_agree_with_individuals(beta_loop: BetaLoop, arm: int) -> None:
    """Reward and group rates of 1,000 seeds agree in mean and variance with drawing every person, 4 standard errors."""
    rng = np.random.default_rng(arm)
    n_seeds = 1000
    state = beta_loop.rest(n_seeds)
    counts = beta_loop.draw(state, np.full(n_seeds, arm), rng.random((n_seeds, beta_loop.n_uniforms)))
    reward = np.empty(n_seeds)
    rates = np.empty((n_seeds, 2))
    for k in range(n_seeds):
        group = rng.random(200) < 0.40
        good = bad = 0
        for a in (0, 1):
            s, y = beta_loop.scores(a, (0.60, 0.45)[a], int((group == a).sum()), rng)
            taken = s >= beta_loop.arms[arm, a]
            rates[k, a] = taken.mean()
            good += int(y[taken].sum())
            bad += int(taken.sum() - y[taken].sum())
        reward[k] = (good - bad) / 200
    for ours, theirs in ((batch_reward(counts, 1.0), reward), *zip(counts.rates().T, rates.T, strict=True)):
        error = np.sqrt((ours.var() + theirs.var()) / n_seeds) + 1e-12
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        spread = max(ours.var(), theirs.var()) * np.sqrt(4.0 / n_seeds) + 1e-12
        assert abs(ours.var() - theirs.var()) < 4 * spread


def test_three_groups_split_a_batch_by_their_shares() -> None:
    """Counts of three groups sum to n and have the shares as means."""
    loop = BetaLoop(
        shared_arms(threshold_grid(5), 3), base_means=(0.6, 0.5, 0.4), base_shares=(0.5, 0.3, 0.2)
    )
    rng = np.random.default_rng(0)
    counts = loop.draw(loop.rest(4000), np.full(4000, 2), rng.random((4000, loop.n_uniforms)))
    assert (counts.applicants.sum(axis=1) == 200).all()
    assert np.abs(counts.applicants.mean(axis=0) / 200 - [0.5, 0.3, 0.2]).max() < 0.003
    assert (counts.good <= counts.accepted).all() and (counts.accepted <= counts.applicants).all()


def test_product_arms_enumerate_every_pair() -> None:
    """Group 0 runs slowest."""
    arms = product_arms([np.array([0.1, 0.2]), np.array([0.3, 0.4])])
    assert arms.tolist() == [[0.1, 0.3], [0.1, 0.4], [0.2, 0.3], [0.2, 0.4]]
