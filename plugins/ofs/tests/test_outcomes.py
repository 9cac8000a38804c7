"""Equal opportunity, equalised odds, predictive parity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from sfumato_ofs.config import OptimisticFeasibleConfig, SyntheticConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.loops import BetaLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.outcomes import OutcomeMemory, expected_outcomes, outcome_rates
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World, play
from sfumato_ofs.threshold_bandit import ThresholdBandit


def test_rates_by_hand() -> None:
    """Of 10 good 6 are accepted, of 10 bad 2: 0.6, 0.2, and 6 of 8 accepted are good."""
    rates = outcome_rates(*(np.array([[float(x)]]) for x in (6, 2, 10, 10)))
    assert (rates.tpr[0, 0], rates.fpr[0, 0], rates.ppv[0, 0]) == pytest.approx((0.6, 0.2, 0.75))


def test_expected_rates_agree_with_drawn_people() -> None:
    """The Beta loop's true and false positive rates against 200,000 people, 4 standard errors."""
    loop = BetaLoop(shared_arms(threshold_grid(11)))
    state, arm = loop.rest(1), np.array([5])
    accept, good = loop.expectations(state, arm)
    expected = expected_outcomes(accept, good, loop.base_good(state))
    rng = np.random.default_rng(0)
    for a, m in enumerate((0.60, 0.45)):
        s, y = loop.scores(a, m, 200000, rng)
        for outcome, rate in ((1, expected.tpr[0, a]), (0, expected.fpr[0, a])):
            taken = s[y == outcome] >= 0.5
            assert taken.mean() == pytest.approx(rate, abs=4 * np.sqrt(0.25 / len(taken)))
    # Good outcomes have scores Beta(nu m + 1, nu (1 - m)).
    assert expected.tpr[0, 0] == pytest.approx(1 - beta(5.8, 3.2).cdf(0.5), abs=1e-9)


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_explored_people_estimate_what_full_labels_show(rate: float) -> None:
    """Held at one arm, the running mean of the residuals comes to the expected residual, with all labels or 5% of them."""
    loop = BetaLoop(shared_arms(threshold_grid(11)), eta=0.0, share_gain=0.0)
    constraints = Constraints(measure="odds", explore_rate=rate)
    oracle = sweep(loop, constraints)
    world = World(loop, constraints, 600, [np.random.default_rng(k) for k in range(20)], ~oracle.is_feasible)
    total = np.zeros((20, constraints.size))
    for _ in range(600):
        total += world.step(np.full(20, 5)).residuals
    mean = total / 600
    error = mean.std(axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(mean.mean(axis=0) - oracle.residuals[5])[:4] < 4 * error[:4] + 2e-3).all()


def test_exploring_costs_reward_and_counts_as_acceptance() -> None:
    """Below 0.5 people are mostly bad: looking at 20% of them earns less and accepts more, and the sums expect just that."""
    loop = BetaLoop(shared_arms(threshold_grid(11)), eta=0.0, share_gain=0.0)
    rewards, rates = [], []
    for rate in (1.0, 0.2):
        constraints = Constraints(measure="opportunity", explore_rate=rate)
        world = World(
            loop, constraints, 300, [np.random.default_rng(k) for k in range(10)], np.zeros(11, bool)
        )
        seen = [world.step(np.full(10, 5)) for _ in range(300)]
        rewards.append(np.mean([s.reward for s in seen]))
        rates.append(np.mean([s.rates for s in seen]))
        assert rewards[-1] == pytest.approx(world.sums.reward.mean() / 300, abs=0.005)
    assert rewards[1] < rewards[0] - 0.01 and rates[1] > rates[0] + 0.05


def test_the_search_finds_the_arm_of_equal_opportunity() -> None:
    """Frozen population, full labels: in the last fifth next to no violation, and reward near the oracle's."""
    loop = BetaLoop(shared_arms(threshold_grid(11)), eta=0.0, share_gain=0.0)
    constraints = Constraints(measure="opportunity")
    oracle = sweep(loop, constraints)
    assert oracle.feasible and oracle.best != oracle.unconstrained
    learner = OptimisticFeasible(
        4,
        11,
        2000,
        OptimisticFeasibleConfig(beta=0.25),
        reward_scale=reward_scale(1.0, 200),
        residual_scales=constraints.scales(200),
    )
    sums = play(
        World(loop, constraints, 2000, [np.random.default_rng(k) for k in range(4)], ~oracle.is_feasible),
        learner,
    )
    assert sums.tail_violation.mean() / 400 < 0.01
    assert abs(oracle.reward[oracle.best] - sums.tail_reward.mean() / 400) < 0.01


def test_the_telescoping_mean_is_the_ratio_of_sums() -> None:
    memory = OutcomeMemory(1, 2, 2, 1)
    rng = np.random.default_rng(0)
    arm, total = np.array([1]), 0.0
    for n in range(1, 30):
        found = memory.add(arm, *(rng.random((1, 2)) for _ in range(4)))
        residual = found.tpr[:, [0]] - found.tpr[:, [1]]
        total += memory.increments(arm, residual)[0, 0]
        assert total / n == pytest.approx(residual[0, 0])


@pytest.mark.parametrize("fairness", ["opportunity", "odds"])
def test_accepted_labels_cannot_show_it_and_the_refusal_explains(fairness: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be learned from labels = accepted.*labels = explore"):
        SyntheticConfig(fairness=fairness)
    SyntheticConfig(fairness="predictive-parity")
    with pytest.raises(OfsError, match="needs outcomes"):
        Constraints(measure=fairness).residuals(np.array([[0.5, 0.5]]), np.array([0.5]))
    with pytest.raises(OfsError, match="needs outcomes of rejected people"):
        ThresholdBandit(constraints=Constraints(measure=fairness))


def test_plays_without_a_rate_do_not_count_in_the_telescoping_mean() -> None:
    """Twenty plays in which a rate was undefined, then 0.2 three times: the learner's mean is 0.2, not 4.2."""
    memory = OutcomeMemory(1, 1, 2, 1)
    arm, seen = np.zeros(1, dtype=np.int64), []
    for residual in [np.nan] * 20 + [0.2] * 3:
        ones = np.ones((1, 2))
        memory.add(arm, ones, ones, ones, ones)
        value = memory.increments(arm, np.array([[residual]]))[0, 0]
        if not np.isnan(value):
            seen.append(value)
            assert np.mean(seen) == pytest.approx(0.2)
    assert len(seen) == 3
