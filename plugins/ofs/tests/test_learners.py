"""The rules that pick an arm, on tables small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato_ofs.arm_statistics import ArmStatistics, log_term
from sfumato_ofs.config import OptimisticFeasibleConfig, PrimalDualConfig, UnconstrainedConfig
from sfumato_ofs.learners import PrimalDual, Reason, Unconstrained, pick
from sfumato_ofs.search import OptimisticFeasible

SCALES = {"reward_scale": 0.1, "residual_scales": np.array([0.1, 0.1, 0.05])}


def make(
    config: OptimisticFeasibleConfig, n_arms: int = 3, n_items: int = 1, horizon: int = 100
) -> OptimisticFeasible:
    return OptimisticFeasible(n_items, n_arms, horizon, config, **SCALES)


def sweep_through(learner, rows: list[tuple[float, list[float]]]) -> list[int]:
    """Hand the given rewards and residuals to the learner's choices in turn and return the choices."""
    arms = []
    for reward, residuals in rows:
        arm = learner.select()
        arms.append(int(arm[0]))
        learner.update(arm, np.array([reward]), np.array([residuals]))
    return arms


def test_the_first_sweep_plays_every_arm_in_grid_order() -> None:
    learner = make(OptimisticFeasibleConfig())
    seen = []
    for _ in range(3):
        arm = learner.select()
        assert learner.reason[0] == Reason.INIT
        seen.append(int(arm[0]))
        learner.update(arm, np.array([0.1]), np.array([[-1.0, -1.0, -1.0]]))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("order", "expected"), [("highest-service", [0, 1, 2]), ("strictest-first", [2, 1, 0])]
)
def test_the_first_sweep_can_run_either_way(order: str, expected: list[int]) -> None:
    learner = make(OptimisticFeasibleConfig(order=order))
    assert sweep_through(learner, [(0.1, [-0.1] * 3)] * 3) == expected


def test_a_random_sweep_is_a_permutation_from_the_items_own_generator() -> None:
    rngs = [np.random.default_rng(k) for k in range(2)]
    learner = OptimisticFeasible(2, 5, 100, OptimisticFeasibleConfig(order="random"), rngs=rngs, **SCALES)
    rows = []
    for _ in range(5):
        rows.append(learner.select())
        learner.update(rows[-1], np.zeros(2), np.zeros((2, 3)))
    played = np.stack(rows, axis=1)
    assert (np.sort(played, axis=1) == np.arange(5)).all()
    assert (played[1] == np.random.default_rng(1).permutation(5)).all()


def test_bounds_are_the_formula() -> None:
    """mean -+ scale * beta sqrt(2 ln(4 M (I+1) T / delta) / N) with I = 3."""
    stats = ArmStatistics(1, 3, 100, OptimisticFeasibleConfig(beta=0.7), **SCALES)
    for reward in (0.1, 0.3):
        stats.add(np.array([1]), np.array([reward]), np.array([[0.2, -0.2, np.nan]]))
    radius = 0.7 * math.sqrt(2 * log_term(3, 3, 100, 0.05) / 2)
    assert stats.upper_reward[0, 1] == pytest.approx(0.2 + 0.1 * radius)
    assert stats.lower[0, 1] == pytest.approx([0.2 - 0.1 * radius, -0.2 - 0.1 * radius, -np.inf])
    assert stats.upper[0, 1, 0] == pytest.approx(0.2 + 0.1 * radius)
    assert stats.upper[0, 1, 2] == np.inf
    assert log_term(41, 3, 5000, 0.05) == pytest.approx(math.log(4 * 41 * 4 * 5000 / 0.05))


def test_the_best_optimistic_reward_among_feasible_looking_arms() -> None:
    """The richest arm violates for certain; the next richest is played."""
    learner = make(OptimisticFeasibleConfig(beta=0.0))
    sweep_through(learner, [(0.1, [-0.1] * 3), (0.3, [-0.1] * 3), (0.9, [0.5, -0.7, -0.1])])
    assert learner.select()[0] == 1
    assert learner.reason[0] == Reason.FEASIBLE_OPTIMISTIC


def test_optimism_admits_an_arm_whose_violation_is_below_its_radius() -> None:
    """The radius is 0.48 after one play; a mean violation of 0.4 may be noise."""
    learner = make(OptimisticFeasibleConfig(beta=1.0))
    sweep_through(learner, [(0.1, [-0.1] * 3), (0.3, [-0.1] * 3), (0.9, [0.4, -0.6, -0.1])])
    assert learner.select()[0] == 2


def test_the_smallest_violation_when_nothing_looks_feasible() -> None:
    """Sums of positive parts decide: 0.2 + 0.2 is worse than 0.3 + 0."""
    learner = make(OptimisticFeasibleConfig(beta=0.0))
    sweep_through(learner, [(0.9, [0.2, -0.5, 0.2]), (0.1, [0.3, -0.5, -0.1]), (0.5, [0.5, -0.7, 0.1])])
    assert learner.select()[0] == 1
    assert learner.reason[0] == Reason.LEAST_VIOLATION


def test_ties_go_to_the_smaller_bound_then_fewer_plays_then_lower_index() -> None:
    score = np.array([[1.0, 1.0 + 5e-13, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    worst = np.array([[-0.1, -0.1, -0.3], [-0.1, -0.1, 0.0], [-0.1, -0.1, -0.1]])
    plays = np.array([[1.0, 1.0, 9.0], [4.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    assert pick(score, worst, plays).tolist() == [2, 1, 0]


def test_margin_shifts_every_comparison() -> None:
    """With margin 0.2 a residual of -0.1 no longer holds."""
    rows = [(0.1, [-0.5] * 3), (0.9, [-0.1] * 3), (0.2, [-0.5] * 3)]
    plain, strict = (
        make(OptimisticFeasibleConfig(beta=0.0)),
        make(OptimisticFeasibleConfig(beta=0.0, margin=0.2)),
    )
    sweep_through(plain, rows)
    sweep_through(strict, rows)
    assert plain.select()[0] == 1
    assert strict.select()[0] == 2


def test_discounted_counts_follow_the_geometric_sum() -> None:
    """After plays at rounds 1..4 the discounted count is 1 + g + g^2 + g^3."""
    stats = ArmStatistics(1, 2, 100, OptimisticFeasibleConfig(discount=0.9), **SCALES)
    for _ in range(4):
        stats.add(np.array([0]), np.array([0.5]), np.array([[0.0, 0.0, 0.0]]))
    assert stats.plays[0, 0] == pytest.approx(1 + 0.9 + 0.81 + 0.729)
    assert stats.mean_reward[0, 0] == pytest.approx(0.5)


def test_a_window_equals_statistics_over_its_last_rounds() -> None:
    """Ring buffer against recomputation from the last W rounds."""
    rng = np.random.default_rng(0)
    stats = ArmStatistics(2, 4, 100, OptimisticFeasibleConfig(window=7), **SCALES)
    history = []
    for _ in range(60):
        arm, reward = rng.integers(0, 4, 2), rng.random(2)
        residuals = np.where(rng.random((2, 3)) < 0.1, np.nan, rng.normal(size=(2, 3)))
        stats.add(arm, reward, residuals)
        history.append((arm, reward, residuals))
        fresh = ArmStatistics(2, 4, 100, OptimisticFeasibleConfig(), **SCALES)
        for past in history[-7:]:
            fresh.add(*past)
        assert stats.plays == pytest.approx(fresh.plays)
        assert stats.reward_sum == pytest.approx(fresh.reward_sum, abs=1e-12)
        assert stats.seen == pytest.approx(fresh.seen)
        assert np.where(np.isfinite(stats.lower), stats.lower, -9) == pytest.approx(
            np.where(np.isfinite(fresh.lower), fresh.lower, -9)
        )


def test_anytime_replaces_the_horizon_by_the_round_squared() -> None:
    stats = ArmStatistics(1, 2, 999999, OptimisticFeasibleConfig(anytime=True, beta=1.0), **SCALES)
    for _ in range(10):
        stats.add(np.array([0]), np.array([0.5]), np.array([[0.0, 0.0, 0.0]]))
    assert stats.width == pytest.approx(math.sqrt(2 * log_term(2, 3, 100, 0.05)))
    assert stats.upper_reward[0, 0] == pytest.approx(0.5 + 0.1 * stats.width / math.sqrt(10))


def test_a_block_is_held_and_its_first_half_is_not_learned_from() -> None:
    """Block 4: four plays of each choice, two of them counted."""
    learner = make(OptimisticFeasibleConfig(block=4))
    arms = []
    for _ in range(12):
        arm = learner.select()
        arms.append(int(arm[0]))
        learner.update(arm, np.array([0.1]), np.array([[-0.1] * 3]))
    assert arms == [0] * 4 + [1] * 4 + [2] * 4
    assert learner.statistics.plays[0].tolist() == [2.0, 2.0, 2.0]


def test_reprobes_visit_both_neighbours_of_the_current_arm() -> None:
    """Every 10 decisions the arms beside the current one are played once each."""
    learner = make(OptimisticFeasibleConfig(beta=0.0, reprobe_every=10), n_arms=5)
    rewards = [0.1, 0.2, 0.9, 0.3, 0.1]
    arms = []
    for _ in range(25):
        arm = learner.select()
        arms.append(int(arm[0]))
        learner.update(arm, np.array([rewards[arm[0]]]), np.array([[-0.1] * 3]))
    assert arms[5:10] == [2] * 5
    assert arms[11:13] == [1, 3] and arms[10] == 2
    assert arms[21:23] == [1, 3]


def test_pessimism_never_leaves_the_certified_set_and_its_border() -> None:
    """Arm 0 is safe, 1 feasible, 2 violates: 2 is tried only as a border arm, a bounded share of rounds."""
    config = OptimisticFeasibleConfig(pessimistic=True, safe_arm=0, beta=0.5, probe_every=10)
    learner = make(config, n_arms=4, horizon=2000)
    table = [(0.1, [-0.5] * 3), (0.3, [-0.4] * 3), (0.9, [0.4, -0.6, -0.4]), (0.95, [0.9, -1.0, -0.4])]
    counts = np.zeros(4)
    for _ in range(2000):
        arm = learner.select()
        counts[arm[0]] += 1
        reward, residuals = table[arm[0]]
        learner.update(arm, np.array([reward]), np.array([residuals]))
    assert counts[3] == 0
    assert counts[2] <= 2
    assert counts[1] > 1800


def test_a_recommendation_needs_one_percent_of_the_plays() -> None:
    """A lucky arm played once in 300 rounds is not recommended; a violating one never."""
    stats = ArmStatistics(1, 3, 1000, OptimisticFeasibleConfig(), **SCALES)
    for arm, reward, residual, times in ((0, 0.9, -0.1, 1), (1, 0.4, -0.1, 150), (2, 0.8, 0.1, 149)):
        for _ in range(times):
            stats.add(np.array([arm]), np.array([reward]), np.array([[residual] * 3]))
    assert stats.recommend()[0] == 1


def test_without_a_feasible_arm_the_most_played_is_recommended() -> None:
    stats = ArmStatistics(1, 2, 1000, OptimisticFeasibleConfig(), **SCALES)
    for arm in (0, 1, 1):
        stats.add(np.array([arm]), np.array([0.5]), np.array([[0.3] * 3]))
    assert stats.recommend()[0] == 1


def test_the_unconstrained_learner_ignores_residuals() -> None:
    learner = Unconstrained(1, 2, 100, UnconstrainedConfig(beta=0.0), **SCALES)
    sweep_through(learner, [(0.1, [-0.5] * 3), (0.9, [0.9] * 3)])
    assert learner.select()[0] == 1


def test_multipliers_rise_with_violation_and_stay_in_their_range() -> None:
    """lambda <- clip(lambda + step * g, 0, ceiling), from 0; a missing residual moves nothing."""
    learner = PrimalDual(1, 2, 100, PrimalDualConfig(step=0.5, ceiling=0.3), **SCALES)
    learner.update(np.array([0]), np.array([0.1]), np.array([[0.4, -0.4, np.nan]]))
    assert learner.multipliers[0] == pytest.approx([0.2, 0.0, 0.0])
    learner.update(np.array([0]), np.array([0.1]), np.array([[0.4, -0.4, 0.1]]))
    assert learner.multipliers[0] == pytest.approx([0.3, 0.0, 0.05])


@pytest.mark.parametrize("residual", ["optimistic", "mean"])
def test_a_multiplier_turns_the_choice(residual: str) -> None:
    """lambda (0.2) times the residual 0.5 outweighs a lead of 0.05 in reward."""
    learner = PrimalDual(1, 2, 100, PrimalDualConfig(beta=0.0, step=0.4, residual=residual), **SCALES)
    sweep_through(learner, [(0.50, [-0.5, -0.5, -0.5]), (0.55, [0.5, -0.7, -0.5])])
    assert learner.multipliers[0, 0] == pytest.approx(0.2)
    assert learner.select()[0] == 0


def test_items_of_a_batch_do_not_touch_each_other() -> None:
    """Item 2 of a batch of 5 makes the choices that it makes alone."""
    rng = np.random.default_rng(0)
    config = OptimisticFeasibleConfig()
    together, alone = make(config, 6, 5, 200), make(config, 6, 1, 200)
    for _ in range(200):
        a, b = together.select(), alone.select()
        assert a[2] == b[0]
        reward, residuals = rng.random(5), rng.normal(size=(5, 3))
        together.update(a, reward, residuals)
        alone.update(b, reward[2:3], residuals[2:3])


def test_pessimism_without_a_safe_arm_is_refused() -> None:
    with pytest.raises(ValueError, match="pessimistic needs safe_arm"):
        OptimisticFeasibleConfig(pessimistic=True)
    with pytest.raises(ValueError, match="safe_arm must be an arm index below 3"):
        make(OptimisticFeasibleConfig(pessimistic=True, safe_arm=7))


def test_a_late_reward_counts_like_one_in_time() -> None:
    """Residuals at once and the reward later give the same statistics as both at once."""
    rng = np.random.default_rng(0)
    prompt = ArmStatistics(2, 4, 100, OptimisticFeasibleConfig(), **SCALES)
    late = ArmStatistics(2, 4, 100, OptimisticFeasibleConfig(), **SCALES)
    waiting = []
    for _ in range(30):
        arm, reward, residuals = rng.integers(0, 4, 2), rng.random(2), rng.normal(size=(2, 3))
        prompt.add(arm, reward, residuals)
        late.add(arm, np.full(2, np.nan), residuals)
        waiting.append((arm, reward))
    assert np.isnan(late.mean_reward[late.plays > 0]).all()
    for arm, reward in waiting:
        late.add_reward(arm, reward)
    assert late.upper_reward == pytest.approx(prompt.upper_reward)
    assert late.lower == pytest.approx(prompt.lower)


def test_late_rewards_leave_the_window_too() -> None:
    """After W more rounds nothing of a late reward is left."""
    stats = ArmStatistics(1, 2, 100, OptimisticFeasibleConfig(window=5), **SCALES)
    stats.add(np.array([0]), np.array([np.nan]), np.zeros((1, 3)))
    stats.add_reward(np.array([0]), np.array([0.7]))
    assert stats.rewarded[0, 0] == 1
    for _ in range(5):
        stats.add(np.array([1]), np.array([0.1]), np.zeros((1, 3)))
    assert stats.rewarded[0, 0] == 0 and stats.reward_sum[0, 0] == 0


def test_the_detector_forgets_after_a_jump_and_not_before() -> None:
    """Residuals jump by five batch scales: one alarm within ten rounds; none in 2,000 quiet rounds."""
    rng = np.random.default_rng(0)
    learner = make(OptimisticFeasibleConfig(detect=20.0), n_arms=2, horizon=3000)
    noise = np.array([0.1, 0.1, 0.05])
    for _ in range(2000):
        arm = learner.select()
        learner.update(arm, np.array([0.1 * arm[0]]), -0.5 + noise * rng.normal(size=(1, 3)))
    assert learner.alarms[0] == 0
    for _ in range(10):
        arm = learner.select()
        learner.update(arm, np.array([0.1 * arm[0]]), 0.0 + noise * rng.normal(size=(1, 3)))
        if learner.alarms[0]:
            break
    assert learner.alarms[0] == 1
    assert learner.select()[0] == 0 or learner.statistics.plays.sum() <= 1
