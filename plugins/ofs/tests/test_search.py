"""Corridor, incumbent and loss cap of the search; its other rules are tested with the learners."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import Reason
from sfumato_ofs.loops import product_arms, shared_arms, threshold_grid
from sfumato_ofs.search import OptimisticFeasible, corridor_of

SCALES = {"reward_scale": 0.05, "residual_scales": np.array([0.05])}


def play(learner: OptimisticFeasible, rewards: list[float], residuals: list[float], rounds: int) -> list[int]:
    arms = []
    for _ in range(rounds):
        arm = learner.select()
        arms.append(int(arm[0]))
        learner.update(arm, np.array([rewards[arm[0]]]), np.array([[residuals[arm[0]]]]))
    return arms


def test_the_sweep_goes_outward_from_the_incumbent_and_stays_in_the_corridor() -> None:
    """Grid of 11, incumbent 0.5, corridor 0.2: 0.5, then neighbours by distance, never beyond 0.3 and 0.7."""
    incumbent, allowed, _ = corridor_of(shared_arms(threshold_grid(11)), 0.5, 0.2)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, corridor=0.2)
    learner = OptimisticFeasible(1, 11, 100, config, allowed=allowed, incumbent=incumbent, **SCALES)
    arms = play(learner, [0.1 * j for j in range(11)], [-1.0] * 11, 100)
    assert arms[:5] == [5, 4, 6, 3, 7]
    assert set(arms) == {3, 4, 5, 6, 7}


def test_after_the_loss_cap_only_the_incumbent_is_played() -> None:
    """Every other arm loses 0.3 a round; with a cap of 1 exploring stops after four such rounds."""
    incumbent, allowed, _ = corridor_of(shared_arms(threshold_grid(11)), 0.5, None)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, loss_cap=1.0)
    learner = OptimisticFeasible(1, 11, 200, config, allowed=allowed, incumbent=incumbent, **SCALES)
    rewards = [0.2] * 11
    rewards[5] = 0.5
    arms = play(learner, rewards, [-1.0] * 11, 200)
    assert sum(arm != 5 for arm in arms) == 4
    assert set(arms[10:]) == {5}
    assert learner.reason[0] == Reason.LOSS_CAP


def test_after_the_cap_a_certified_better_arm_is_kept() -> None:
    """A neighbour that is surely better and certified takes the incumbent's place."""
    incumbent, allowed, _ = corridor_of(shared_arms(threshold_grid(3)), 0.5, None)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, loss_cap=1e-6, beta=0.1)
    learner = OptimisticFeasible(1, 3, 200, config, allowed=allowed, incumbent=incumbent, **SCALES)
    for arm, reward in ((1, 0.5), (2, 0.6), (0, 0.1)):
        for _ in range(20):
            learner.update(np.array([arm]), np.array([reward]), np.array([[-0.5]]))
    assert learner.shortfall[0] == pytest.approx(20 * (0.4 - 0.1))
    assert learner.select()[0] == 2


@pytest.mark.parametrize("settings", [{"order": "outward"}, {"corridor": 0.1}, {"loss_cap": 1.0}])
def test_options_that_need_an_incumbent_say_so(settings: dict) -> None:
    with pytest.raises(ValueError, match="needs incumbent"):
        OptimisticFeasibleConfig(**settings)


def update(learner: OptimisticFeasible, arm: int, reward: float, residual: float = -1.0) -> None:
    learner.update(np.array([arm]), np.array([reward]), np.array([[residual]]))


def test_rounds_that_a_block_skips_still_count_against_the_loss_cap() -> None:
    """Blocks of 4 learn from two rounds of four; each of the four loses 0.3 all the same."""
    incumbent, allowed, _ = corridor_of(shared_arms(threshold_grid(5)), 0.5, None)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, loss_cap=1.0, block=4)
    learner = OptimisticFeasible(1, 5, 200, config, allowed=allowed, incumbent=incumbent, **SCALES)
    rewards = [0.2, 0.2, 0.5, 0.2, 0.2]
    arms = play(learner, rewards, [-1.0] * 5, 40)
    assert arms[:8] == [2] * 4 + [1] * 4
    assert learner.statistics.rewarded[0, 1] == 2
    assert learner.shortfall[0] == pytest.approx(4 * 0.3)
    assert set(arms[8:]) == {2}


def test_losses_before_the_incumbents_mean_is_known_are_counted_once_it_is() -> None:
    """With rewards that come late, four rounds of another arm are reckoned against the mean that arrives afterwards."""
    config = OptimisticFeasibleConfig(incumbent=0.5, loss_cap=1.0)
    learner = OptimisticFeasible(1, 5, 200, config, incumbent=2, **SCALES)
    for arm in (2, 1, 1, 1, 1):
        update(learner, arm, np.nan)
    for _ in range(4):
        learner.update_late(np.array([1]), np.array([0.2]))
    assert learner.shortfall[0] == 0.0
    learner.update_late(np.array([2]), np.array([0.5]))
    assert learner.shortfall[0] == pytest.approx(1.2)


def test_late_rewards_of_rounds_that_a_block_skipped_are_not_learned() -> None:
    """Block 4, rewards one round late: two of four rewards reach the arm, those of the rounds learned from."""
    learner = OptimisticFeasible(1, 3, 100, OptimisticFeasibleConfig(block=4), **SCALES)
    waiting: list[tuple[int, float]] = []
    for t in range(5):
        arm = int(learner.select()[0])
        update(learner, arm, np.nan)
        waiting.append((arm, 0.1 * t))
        if t:
            j, reward = waiting.pop(0)
            learner.update_late(np.array([j]), np.array([reward]))
    s = learner.statistics
    assert s.rewarded[0].tolist() == [2.0, 0.0, 0.0] and s.plays[0, 0] == 2.0
    assert s.mean_reward[0, 0] == pytest.approx((0.2 + 0.3) / 2)


def test_the_sweep_over_thresholds_by_group_goes_outward_in_thresholds() -> None:
    """A 5 x 5 product: the eight pairs within one step of the incumbent come before any two steps away."""
    grid = threshold_grid(5)
    arms = product_arms([grid, grid])
    incumbent, allowed, distance = corridor_of(arms, 0.5, None)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5)
    learner = OptimisticFeasible(
        1, 25, 100, config, lattice=(5, 5), allowed=allowed, incumbent=incumbent, distance=distance, **SCALES
    )
    tried = play(learner, [0.1] * 25, [-1.0] * 25, 25)
    away = [np.abs(arms[j] - 0.5).max() for j in tried]
    assert tried[0] == incumbent and away == sorted(away) and away[8] == 0.25 and away[9] == 0.5


def test_a_safe_arm_outside_the_corridor_is_refused() -> None:
    incumbent, allowed, _ = corridor_of(shared_arms(threshold_grid(11)), 0.5, 0.2)
    config = OptimisticFeasibleConfig(pessimistic=True, safe_arm=0, incumbent=0.5, corridor=0.2)
    with pytest.raises(OfsError, match="safe_arm must lie inside the corridor .*got arm 0"):
        OptimisticFeasible(1, 11, 100, config, allowed=allowed, incumbent=incumbent, **SCALES)


@pytest.mark.parametrize(("every", "lattice"), [(1, (5,)), (2, (5,)), (4, (5, 5))])
def test_a_re_probe_that_could_not_reach_all_neighbours_is_refused(every: int, lattice: tuple) -> None:
    """Probing takes a decision for each neighbour, so every 1 or 2 decisions it would never come to all of them."""

    def make() -> None:
        config = OptimisticFeasibleConfig(reprobe_every=every)
        OptimisticFeasible(1, int(np.prod(lattice)), 100, config, lattice=lattice, **SCALES)

    with pytest.raises(ValueError, match="reprobe_every must exceed the . neighbours"):
        make()


def test_after_the_cap_an_arm_must_beat_the_incumbents_upper_bound() -> None:
    """Its lower bound lies above the incumbent's mean and below its upper bound: not surely better, so not played."""
    config = OptimisticFeasibleConfig(incumbent=0.5, loss_cap=0.5, beta=0.1)
    learner = OptimisticFeasible(1, 3, 200, config, incumbent=1, **SCALES)
    for arm, reward in ((1, 0.50), (2, 0.508), (0, 0.1)):
        for _ in range(20):
            update(learner, arm, reward, -0.5)
    s = learner.statistics
    low = s.mean_reward[0, 2] - s.radii(s.rewarded[0, 2], s.reward_scale)
    assert s.mean_reward[0, 1] < low < s.upper_reward[0, 1] and learner.shortfall[0] > 0.5
    assert learner.select()[0] == 1 and learner.reason[0] == Reason.LOSS_CAP
