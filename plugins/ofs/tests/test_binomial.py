"""Binomial counts by inversion."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from sfumato_ofs.binomial import UniformBlocks, binomial_quantile


def test_quantile_agrees_with_scipy_on_random_parameters() -> None:
    """The integer is the one that scipy's own inverse gives."""
    rng = np.random.default_rng(1)
    u, n, p = rng.random(20000), rng.integers(0, 400, 20000), rng.random(20000)
    assert (binomial_quantile(u, n, p) == binom.ppf(u, n, p)).all()


@settings(max_examples=200, deadline=None)
@given(
    u=st.floats(0.0, 1.0, exclude_max=True),
    n=st.integers(0, 500),
    p=st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0)),
)
def test_quantile_brackets_u(u: float, n: int, p: float) -> None:
    """F(k - 1) <= u < F(k) for every u, n and p, at the edges too."""
    k = int(binomial_quantile(np.array([u]), np.array([n]), np.array([p]))[0])
    assert 0 <= k <= n
    assert binom.cdf(k, n, p) > u - 1e-12
    if k > 0:
        assert binom.cdf(k - 1, n, p) <= u + 1e-12


def test_mean_and_variance_are_binomial() -> None:
    """Counts drawn from uniforms have the binomial's mean and variance, 4 standard errors."""
    rng = np.random.default_rng(2)
    n, p, size = 80, 0.37, 40000
    k = binomial_quantile(rng.random(size), np.full(size, n), np.full(size, p))
    variance = n * p * (1 - p)
    assert abs(k.mean() - n * p) < 4 * np.sqrt(variance / size)
    assert abs(k.var() - variance) < 4 * variance * np.sqrt(2.0 / size)


def test_an_items_uniforms_do_not_depend_on_its_batch() -> None:
    """Item k draws the same rows alone, beside others, and under another block length."""
    together = UniformBlocks([np.random.default_rng(k) for k in range(4)], 5, block=3)
    alone = UniformBlocks([np.random.default_rng(2)], 5, block=7)
    for _ in range(20):
        assert (together.next()[2] == alone.next()[0]).all()
