"""One stream, the short way, against the same learner for many items."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.stream import StreamSearch

SCALES = {"reward_scale": 0.07, "residual_scales": np.array([0.07, 0.07, 0.035])}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.1},
        {"anytime": True},
        {"discount": 0.98},
        {"margin": 0.05, "reprobe_every": 20},
        {"window": 30},
        {"block": 4},
        {"detect": 5.0},
        {"pessimistic": True, "safe_arm": 2},
    ],
    ids=str,
)
def test_the_short_way_makes_the_same_choices(settings: dict) -> None:
    """400 rounds of noisy residuals, some missing: choices, reasons and bounds agree with the array learner."""
    config = OptimisticFeasibleConfig(**settings)
    short, plain = StreamSearch(1, 9, 400, config, **SCALES), OptimisticFeasible(1, 9, 400, config, **SCALES)
    rng = np.random.default_rng(0)
    centre = np.linspace(-0.15, 0.15, 9)
    for _ in range(400):
        arm = short.select()
        assert arm[0] == plain.select()[0]
        assert short.reason[0] == plain.reason[0]
        j = int(arm[0])
        reward = float(rng.choice([0.2 + 0.02 * j, np.nan], p=[0.9, 0.1])) + 0.05 * rng.normal()
        g = np.array([centre[j], -centre[j] - 0.2, -0.3]) + 0.05 * rng.normal(size=3)
        g[rng.random(3) < 0.05] = np.nan
        short.update_one(j, reward, g.tolist())
        plain.update(arm, np.array([reward]), g[None])
    short.settle()
    a, b = short.statistics, plain.statistics
    if short._lazy:  # sums of violations are worked out only when nothing looks feasible
        a.violation[:] = np.maximum(a.lower, 0.0).sum(axis=2)
    assert a.upper_reward == pytest.approx(b.upper_reward, abs=1e-12)
    assert a.lower == pytest.approx(b.lower, abs=1e-12)
    assert a.violation == pytest.approx(b.violation, abs=1e-12)


def test_late_rewards_reach_the_bounds_that_are_worked_out_late() -> None:
    """With bounds at any time, a reward that comes later counts as it does in the array learner."""
    config = OptimisticFeasibleConfig(anytime=True)
    short, plain = StreamSearch(1, 4, 100, config, **SCALES), OptimisticFeasible(1, 4, 100, config, **SCALES)
    for j in (0, 1, 2, 3, 1):
        short.update_one(j, float("nan"), [-0.1, -0.2, -0.3])
        plain.update(np.array([j]), np.array([np.nan]), np.array([[-0.1, -0.2, -0.3]]))
    short.add_late_reward(1, 0.4, 1.0)
    plain.update_late(np.array([1]), np.array([0.4]))
    short.settle()
    assert short.statistics.upper_reward == pytest.approx(plain.statistics.upper_reward)
    assert short.select()[0] == plain.select()[0]
