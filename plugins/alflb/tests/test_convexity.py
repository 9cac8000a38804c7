from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import ArgumentError
from sfumato_alflb.convexity import (
    curvature_along,
    estimate_convexity,
    iid_modulus,
    pair_weight,
    uniform_modulus,
)


@pytest.mark.parametrize(("n_experts", "k"), [(4, 1), (16, 2), (64, 8), (256, 8), (64, 63)])
def test_uniform_scores_have_the_weight_one_over_e_minus_one(n_experts: int, k: int) -> None:
    """Whatever K; so mu = T E/(E - 1)."""
    weight = pair_weight(n_experts, k, np.ones_like, lambda x: x, (0.0, 1.0))
    assert weight == pytest.approx(1 / (n_experts - 1), rel=1e-9)
    assert iid_modulus(100, n_experts, weight) == pytest.approx(uniform_modulus(100, n_experts), rel=1e-9)


def test_stretching_the_scores_divides_the_weight() -> None:
    """A density on [0, 2] is half as high."""
    weight = pair_weight(8, 2, lambda x: np.full_like(x, 0.5), lambda x: x / 2, (0.0, 2.0))
    assert weight == pytest.approx(0.5 / 7)


def test_monte_carlo_curvature_agrees_with_theory(rng: np.random.Generator) -> None:
    """Second difference of the sample's dual, E = 64, K = 8: 1.0159 per token within 3 %."""
    values = [curvature_along(rng.random((60_000, 64)), 8, rng.standard_normal(64), 0.02) for _ in range(4)]
    assert np.mean(values) == pytest.approx(64 / 63, rel=0.03)


def test_the_estimator_finds_the_modulus_of_uniform_scores(rng: np.random.Generator) -> None:
    """Within 8 %: lambda_2 of a noisy graph is a little below that of the true one."""
    found = estimate_convexity(rng.random((60_000, 8)), 2, bandwidth=0.05)
    assert found.n_parts == 1
    assert found.mu == pytest.approx(uniform_modulus(60_000, 8), rel=0.08)
    assert found.mean == pytest.approx(uniform_modulus(60_000, 8), rel=0.03)


def test_the_mean_curvature_is_steady_in_one_small_batch(rng: np.random.Generator) -> None:
    """256 tokens cannot tell 120 pairs apart, but their mean comes out right."""
    found = [estimate_convexity(rng.random((256, 16)), 2) for _ in range(20)]
    want = uniform_modulus(256, 16)
    assert all(0.5 < f.mean / want < 1.6 for f in found)
    assert np.mean([f.mean for f in found]) == pytest.approx(want, rel=0.12)
    assert np.mean([f.mu for f in found]) < 0.5 * want


def test_experts_that_never_compete_have_no_curvature(rng: np.random.Generator) -> None:
    """Two groups with score ranges apart: mu = 0, and the report says two parts."""
    scores = rng.random((4000, 6)) + np.array([5.0, 5.0, 5.0, 0.0, 0.0, 0.0])
    found = estimate_convexity(scores, 1)
    assert found.mu == 0.0 and found.n_parts > 1


def test_tied_scores_need_a_bandwidth() -> None:
    """No density can be read off equal scores."""
    with pytest.raises(ArgumentError, match="bandwidth"):
        estimate_convexity(np.full((10, 3), 0.5), 1)
