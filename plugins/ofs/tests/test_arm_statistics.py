"""Bounds of means whose batches weigh differently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato_ofs.arm_statistics import ArmStatistics
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.stream import StreamSearch


@pytest.mark.parametrize(("share", "short"), [(0.40, 1.02), (0.19, 1.27), (0.05, 2.48)])
def test_gap_bounds_are_as_wide_as_the_groups_sizes_ask(share: float, short: float) -> None:
    """40 batches of 200 with groups of random size, fair acceptance, 4,000 items: in units of the claimed noise
    scale / sqrt(count) the mean's error is 1 with weights by group size, and 2% to 148% above without them."""
    rng = np.random.default_rng(3)
    c, n, n_items = Constraints(rho_min=None), 200, 4000
    sized, equal = (
        OptimisticFeasible(
            n_items,
            1,
            1000,
            OptimisticFeasibleConfig(gap_weight=kind),
            reward_scale=0.1,
            residual_scales=c.scales(n),
        )
        for kind in ("group-sizes", "equal")
    )
    arm = np.zeros(n_items, dtype=np.int64)
    for _ in range(40):
        second = rng.binomial(n, share, n_items)
        sizes = np.stack([n - second, second], axis=1)
        with np.errstate(invalid="ignore"):
            rates = rng.binomial(sizes, 0.5) / sizes
        residuals = c.residuals(rates, np.full(n_items, 0.5))
        weights = c.weights(sizes, np.full(n_items, n), n)
        for learner in (sized, equal):
            learner.update(arm, np.zeros(n_items), residuals, residual_weight=weights)
    for learner, expected in ((sized, 1.0), (equal, short)):
        s = learner.statistics
        error = (s.mean_residuals[:, 0, 0] + c.eps) * np.sqrt(s.seen[:, 0, 0]) / s.residual_scales[0]
        assert error.std() == pytest.approx(expected, abs=0.05)


def test_the_allowance_for_a_population_that_remembers_shrinks_as_one_over_n() -> None:
    """b / N on top of every radius: 0.3, then 0.15 after two plays; the short way agrees."""
    config = OptimisticFeasibleConfig(beta=0.0, bias=0.3)
    scales = {"reward_scale": 0.1, "residual_scales": np.array([0.1])}
    stats, stream = ArmStatistics(1, 2, 100, config, **scales), StreamSearch(1, 2, 100, config, **scales)
    for k in (1, 2):
        stats.add(np.array([0]), np.array([0.5]), np.array([[-0.1]]))
        stream.update_one(0, 0.5, [-0.1])
        for s in (stats, stream.statistics):
            assert s.upper_reward[0, 0] == pytest.approx(0.5 + 0.3 / k)
            assert s.lower[0, 0, 0] == pytest.approx(-0.1 - 0.3 / k)
            assert s.upper[0, 0, 0] == pytest.approx(-0.1 + 0.3 / k)
    assert math.isinf(stats.upper_reward[0, 1])
