"""The oracle sweep against our reference figures and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.constraints import Constraints
from sfumato_ofs.loops import BetaLoop, PoolLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep
from sfumato_ofs.simulate import World


def test_reference_fixed_points_of_environment_a(beta_loop: BetaLoop, constraints: Constraints) -> None:
    """Reward, gap and rate at six thresholds, to the printed digits."""
    s = sweep(beta_loop, constraints)
    rows = {
        0: (0.180000, 0.0, 1.0),
        8: (0.189491, 0.032004, 0.984427),
        12: (0.210187, 0.124360, 0.932565),
        16: (0.232914, 0.289990, 0.821010),
        20: (0.231471, 0.430031, 0.643627),
        32: (0.031662, 0.062243, 0.045423),
    }
    for arm, (reward, gap, rate) in rows.items():
        assert (s.reward[arm], s.gap[arm], s.overall[arm]) == pytest.approx((reward, gap, rate), abs=6e-7)
    assert s.converged.all()


def test_oracle_of_environment_a(beta_loop: BetaLoop, constraints: Constraints) -> None:
    """Threshold 0.275 with reward 0.20412277906654763, to 1e-9; 12 feasible points; 0.45 without constraints."""
    s = sweep(beta_loop, constraints)
    assert s.arms[s.best, 0] == 0.275
    assert s.reward[s.best] == pytest.approx(0.20412277906654763, abs=1e-9)
    assert s.gap[s.best] == pytest.approx(0.0937982, abs=5e-8)
    assert s.state[s.best] == pytest.approx([0.648624, 0.489244, 1 - 0.381240, 0.381240], abs=1e-6)
    assert s.is_feasible.sum() == 12 and s.feasible
    assert s.arms[s.unconstrained, 0] == 0.45
    assert s.reward[s.unconstrained] == pytest.approx(0.2372055, abs=5e-8)


@pytest.mark.filterwarnings("ignore:BetaLoop")
def test_oracle_of_the_slow_preset(constraints: Constraints) -> None:
    """kappa 0.9: threshold 0.30 with reward 0.28997869166242873, to 1e-9."""
    s = sweep(BetaLoop(shared_arms(threshold_grid(41)), kappa=0.9), constraints)
    assert s.arms[s.best, 0] == 0.30
    assert s.reward[s.best] == pytest.approx(0.28997869166242873, abs=1e-9)


def test_nothing_feasible_gives_the_least_violating_arm(small_pool: PoolLoop) -> None:
    """An impossible floor and gap: `feasible` is False and the arm is the argmin of the violation."""
    s = sweep(small_pool, Constraints(eps=0.0, rho_min=0.9, rho_max=0.95))
    assert not s.feasible
    violation = np.maximum(s.residuals, 0).sum(axis=1)
    assert violation[s.best] == violation.min() > 0


def test_a_simulated_sweep_agrees(beta_loop: BetaLoop, constraints: Constraints) -> None:
    """Holding a threshold for 20 seeds gives the fixed point's reward within 3 standard errors after burn-in."""
    s = sweep(beta_loop, constraints)
    for arm in (0, 11):
        rngs = [np.random.default_rng([3, arm, k]) for k in range(20)]
        world = World(beta_loop, constraints, 1500, rngs, ~s.is_feasible)
        rewards = np.stack([world.step(np.full(20, arm)).reward for _ in range(1500)])[300:]
        by_seed = rewards.mean(axis=0)
        # The population's noise curves the map a little: the mean state is off the fixed point by its second moment.
        assert abs(by_seed.mean() - s.reward[arm]) < 3 * by_seed.std(ddof=1) / np.sqrt(20) + 2e-4
