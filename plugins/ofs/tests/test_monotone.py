"""Bounds tightened by monotone acceptance."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.loops import product_arms
from sfumato_ofs.monotone import RateMemory
from sfumato_ofs.search import OptimisticFeasible


def test_a_rate_seen_at_one_threshold_bounds_the_others() -> None:
    """A rate of 0.5 at level 1 of three: at most 0.5 + radius above it, at least 0.5 - radius below it."""
    memory = RateMemory(1, np.array([[0, 0], [1, 1], [2, 2]]))
    memory.add(np.array([1]), np.array([[0.5, np.nan]]), np.array([[25.0, 0.0]]))
    lower, upper = memory.bounds(0.5)
    assert lower[0, 0] == pytest.approx([0.4, 0.4, 0.0])
    assert upper[0, 0] == pytest.approx([1.0, 0.6, 0.6])
    assert lower[0, 1].tolist() == [0, 0, 0] and upper[0, 1].tolist() == [1, 1, 1]


def test_arms_that_share_a_groups_threshold_are_pooled() -> None:
    """On a 2 x 2 product each group's rate is learned from both arms with its level."""
    memory = RateMemory(1, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    for arm, rates in ((0, [0.8, 0.6]), (1, [0.6, 0.2])):
        memory.add(np.array([arm]), np.array([rates]), np.array([[10.0, 5.0]]))
    assert memory.total[0, 0].tolist() == pytest.approx([14.0, 0.0])
    assert memory.seen[0, 0].tolist() == [20.0, 0.0]
    assert memory.total[0, 1].tolist() == pytest.approx([3.0, 1.0])


def test_larger_batches_weigh_more_and_old_ones_leave_the_window() -> None:
    """A rate of 1 from 90 people and of 0 from 10 is 0.9; after the window only what is inside counts."""
    memory = RateMemory(1, np.array([[0, 0], [1, 1]]), window=2)
    for rate, people in ((1.0, 90.0), (0.0, 10.0)):
        memory.add(np.array([0]), np.array([[rate, rate]]), np.array([[people, people]]))
    assert memory.total[0, 0, 0] / memory.seen[0, 0, 0] == pytest.approx(0.9)
    for _ in range(2):
        memory.add(np.array([1]), np.array([[0.5, 0.5]]), np.array([[10.0, 10.0]]))
    assert memory.seen[0, :, 0].tolist() == [0.0, 0.0] and memory.seen[0, 0, 1] == 20.0


def test_tightened_bounds_hold_the_truth_and_never_widen() -> None:
    """On a frozen product grid at beta = 1: contained in the plain bounds, and still around the true residuals."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 4)
    arms = product_arms([grid, grid])
    levels = np.searchsorted(grid, arms)
    truth = np.stack([1 - 0.8 * grid, 0.9 - 0.8 * grid])
    constraints = Constraints(eps=0.1, rho_min=0.2)
    learner = OptimisticFeasible(
        1,
        16,
        500,
        OptimisticFeasibleConfig(beta=1.0, monotone=True),
        lattice=(4, 4),
        constraints=constraints,
        levels=levels,
        reward_scale=0.07,
        residual_scales=constraints.scales(200),
    )
    true_rates = truth[[0, 1], levels]
    for _ in range(500):
        arm = learner.select()
        rates = np.stack([rng.binomial(100, true_rates[arm[0]]) / 100])
        overall = rates.mean(axis=1)
        people = np.full((1, 2), 100.0)
        learner.update(arm, 0.1 + 0.5 * overall, constraints.residuals(rates, overall), rates, people=people)
    lower, upper = learner.bounds()
    s = learner.statistics
    expected = constraints.residuals(true_rates, true_rates.mean(axis=1))
    assert (lower >= s.lower - 1e-12).all() and (upper <= s.upper + 1e-12).all()
    assert (lower[0] <= expected + 1e-12).all() and (upper[0] >= expected - 1e-12).all()
    assert (upper - lower)[:, :, :2].mean() < 0.8 * (s.upper - s.lower)[:, :, :2].mean()


def test_monotone_without_its_facts_is_refused() -> None:
    with pytest.raises(OfsError, match="monotone needs constraints and levels"):
        OptimisticFeasible(
            1,
            3,
            10,
            OptimisticFeasibleConfig(monotone=True),
            reward_scale=0.1,
            residual_scales=np.array([0.1]),
        )
