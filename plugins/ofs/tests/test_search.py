"""Corridor, incumbent and loss cap of the search; its other rules are tested with the learners."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.learners import Reason
from sfumato_ofs.loops import shared_arms, threshold_grid
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
    incumbent, allowed = corridor_of(shared_arms(threshold_grid(11)), 0.5, 0.2)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, corridor=0.2)
    learner = OptimisticFeasible(1, 11, 100, config, allowed=allowed, incumbent=incumbent, **SCALES)
    arms = play(learner, [0.1 * j for j in range(11)], [-1.0] * 11, 100)
    assert arms[:5] == [5, 4, 6, 3, 7]
    assert set(arms) == {3, 4, 5, 6, 7}


def test_after_the_loss_cap_only_the_incumbent_is_played() -> None:
    """Every other arm loses 0.3 a round; with a cap of 1 exploring stops after four such rounds."""
    incumbent, allowed = corridor_of(shared_arms(threshold_grid(11)), 0.5, None)
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
    incumbent, allowed = corridor_of(shared_arms(threshold_grid(3)), 0.5, None)
    config = OptimisticFeasibleConfig(order="outward", incumbent=0.5, loss_cap=1e-6, beta=0.1)
    learner = OptimisticFeasible(1, 3, 200, config, allowed=allowed, incumbent=incumbent, **SCALES)
    learner.shortfall[:] = 1.0
    for arm, reward in ((1, 0.5), (2, 0.9), (0, 0.1)):
        for _ in range(20):
            learner.update(np.array([arm]), np.array([reward]), np.array([[-0.5]]))
    learner.shortfall[:] = 1.0
    assert learner.select()[0] == 2


@pytest.mark.parametrize("settings", [{"order": "outward"}, {"corridor": 0.1}, {"loss_cap": 1.0}])
def test_options_that_need_an_incumbent_say_so(settings: dict) -> None:
    with pytest.raises(ValueError, match="needs incumbent"):
        OptimisticFeasibleConfig(**settings)
