"""Empirical Bernstein bounds: by hand, valid, and narrower where rates are extreme."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit
from sfumato_ofs.bernstein import PersonMemory, radius
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.loops import BetaLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World

BERNSTEIN = OptimisticFeasibleConfig(beta=1.0, bounds="bernstein")


def test_the_radius_is_the_formula() -> None:
    """sqrt(2 V t / n) + 7 t / (3 (n - 1)) with V = 0.09 * 100 / 99."""
    value = radius(np.array([0.09]), np.array([100.0]), 10.0, 1.0)[0]
    assert value == pytest.approx(math.sqrt(2 * 0.09 * 100 / 99 * 10 / 100) + 70 / (3 * 99))
    assert radius(np.array([0.0]), np.array([1.0]), 10.0, 1.0)[0] == np.inf


def test_squares_of_single_rewards_come_from_reward_and_acceptance() -> None:
    """Loss 2; of 10 people 6 are accepted, 4 good and 2 bad: mean (4 - 4) / 10, mean square (4 + 2 * 4) / 10."""
    memory = PersonMemory(1, 2, 2.0)
    memory.add_reward(np.array([1]), np.array([0.0]), np.array([0.6]), np.array([10.0]))
    assert memory.reward[0, 1] == pytest.approx(0.0) and memory.square[0, 1] == pytest.approx(12.0)


@pytest.mark.parametrize("gap", ["signed", "ratio", "to-overall", "abs"])
@pytest.mark.parametrize("monotone", [False, True])
def test_bounds_hold_the_truth_on_a_frozen_population(gap: str, monotone: bool) -> None:
    """40 seeds, 300 rounds, 11 thresholds at beta 1: in no seed does a residual or a reward leave its bounds at any round."""
    loop = BetaLoop(shared_arms(threshold_grid(11)), eta=0.0, share_gain=0.0)
    constraints = Constraints(gap=gap, rho_max=0.99)
    truth = sweep(loop, constraints)
    config = OptimisticFeasibleConfig(beta=1.0, bounds="bernstein", monotone=monotone)
    learner = OptimisticFeasible(
        40, 11, 300, config, reward_scale=reward_scale(1.0, 200), residual_scales=constraints.scales(200),
        constraints=constraints, levels=loop.levels,
    )  # fmt: skip
    world = World(
        loop, constraints, 300, [np.random.default_rng([0, k]) for k in range(40)], ~truth.is_feasible
    )
    for t in range(300):
        arm = learner.select()
        seen = world.step(arm)
        learner.update(arm, seen.reward, seen.residuals, seen.rates, 1.0, seen.weights, seen.people)
        if t % 10 == 9:
            lower, upper = learner.bounds()
            assert (lower <= truth.residuals + 1e-12).all() and (upper >= truth.residuals - 1e-12).all()
            low, high = learner.reward_bounds()
            assert (low <= truth.reward + 1e-12).all() and (high >= truth.reward - 1e-12).all()


def test_they_are_narrower_where_nearly_everybody_is_accepted() -> None:
    """Rates of 0.98: after 50 batches the gap's width is below 0.7 of Hoeffding's; at rates of 0.5 it is wider."""
    widths = {}
    for rate in (0.98, 0.5):
        for name, settings in (("bernstein", BERNSTEIN), ("hoeffding", OptimisticFeasibleConfig(beta=1.0))):
            bandit = ThresholdBandit(policy="ofs", settings=settings)
            rng = np.random.default_rng(0)
            for _ in range(50):
                taken = rng.random(200) < rate
                bandit.partial_fit(
                    0.5, groups=np.arange(200) % 2, accepted=taken, labels=rng.random(200) < 0.7
                )
            lower, upper = bandit.bounds()
            widths[rate, name] = float(upper[20, 0] - lower[20, 0])
    assert widths[0.98, "bernstein"] < 0.7 * widths[0.98, "hoeffding"]
    assert widths[0.5, "bernstein"] > widths[0.5, "hoeffding"]


def test_late_rewards_and_a_restart_come_to_the_same_bounds() -> None:
    """Labels at once, or later, or after the state went through another bandit."""
    rng = np.random.default_rng(0)
    rows = [
        (rng.integers(0, 2, 100), rng.random(100) < 0.6, (rng.random(100) < 0.7).astype(float))
        for _ in range(8)
    ]
    prompt, late = (ThresholdBandit(policy="ofs", settings=BERNSTEIN) for _ in range(2))
    for groups, taken, labels in rows:
        prompt.partial_fit(0.5, groups=groups, accepted=taken, labels=labels)
        late.partial_fit(0.5, groups=groups, accepted=taken)
    again = ThresholdBandit(policy="ofs", settings=BERNSTEIN)
    again.load_state_dict(late.state_dict())
    for bandit in (late, again):
        for k, (_, _, labels) in enumerate(rows):
            bandit.add_labels(k, labels)
        assert bandit._search.reward_bounds()[1][0, 20] == pytest.approx(
            prompt._search.reward_bounds()[1][0, 20]
        )
        assert bandit.bounds()[1][20] == pytest.approx(prompt.bounds()[1][20])
    assert prompt.certificate()["holds"] and "empirical Bernstein" in prompt.certificate()["bounds"]


def test_what_it_needs_and_does_not_go_with_is_named() -> None:
    bandit = ThresholdBandit(policy="ofs", settings=BERNSTEIN)
    with pytest.raises(OfsError, match="rates must be given"):
        bandit.partial_fit_stats(0.5, 0.1, [-0.1, -0.1, -0.3], 200)
    with pytest.raises(ValueError, match="bounds = bernstein counts people and goes with neither discount"):
        OptimisticFeasibleConfig(bounds="bernstein", discount=0.9)
    with pytest.raises(OfsError, match="bounds = bernstein needs constraints and levels"):
        OptimisticFeasible(1, 3, 9, BERNSTEIN, reward_scale=0.1, residual_scales=np.array([0.1]))
