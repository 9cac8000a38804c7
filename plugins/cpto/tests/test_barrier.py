"""Projections on the barrier set: known cases, feasibility, optimality against a general method."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from sfumato_cpto.barrier import condition, project_exact, project_forward


def _gamma(n):
    return np.linspace(0.2, 1.0, n - 1)


def test_a_point_on_the_barrier_set_stays():
    d = 1.0 + np.linspace(1.0, 3.0, 20)
    np.testing.assert_allclose(project_forward(d, _gamma(20)), d)
    np.testing.assert_allclose(project_exact(d, _gamma(20)), d, atol=1e-12)


def test_with_rate_one_the_barrier_is_mere_clearance():
    d = np.array([2.0, 0.5, 1.5, 0.2])
    expected = np.array([2.0, 1.0, 1.5, 1.0])
    np.testing.assert_allclose(project_forward(d, np.ones(3)), expected)
    np.testing.assert_allclose(project_exact(d, np.ones(3)), expected)


def test_a_start_inside_comes_back_at_the_barriers_rate():
    gamma = np.full(4, 0.5)
    out = project_forward(np.array([0.6, 0.0, 0.0, 0.0, 0.0]), gamma)
    np.testing.assert_allclose(out, 1.0 - 0.4 * 0.5 ** np.arange(5))


def test_the_forward_clamp_equals_its_loop():
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.1, 1.0, 29)
    gamma[10] = 1.0
    d = rng.uniform(0.0, 3.0, (4, 30))
    d[:, 0] = 1.0 + rng.random(4)
    expected = d.copy()
    for k in range(1, 30):
        expected[:, k] = np.maximum(d[:, k], 1.0 + (1.0 - gamma[k - 1]) * (expected[:, k - 1] - 1.0))
    np.testing.assert_allclose(project_forward(d, gamma), expected, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 20))
def test_the_exact_projection_is_the_nearest_point(seed, n):
    rng = np.random.default_rng(seed)
    gamma = _gamma(n)
    d = rng.uniform(0.0, 3.0, n)
    d[0] = 1.0 + rng.random()
    out = project_exact(d, gamma)
    assert condition(out, gamma).min() >= -1e-9
    # The set in increments r >= 0 is a box: d = M r + constant, a bounded least-squares problem.
    keep = 1.0 - gamma
    m = np.zeros((n, n - 1))
    constant = np.ones(n)
    constant[0] = d[0]
    for k in range(1, n):
        m[k] = keep[k - 1] * m[k - 1]
        m[k, k - 1] += 1.0
        constant[k] = 1.0 + keep[k - 1] * (constant[k - 1] - 1.0)
    reference = lsq_linear(m, d - constant, (0.0, np.inf), method="bvls", tol=1e-14)
    np.testing.assert_allclose(out, m @ reference.x + constant, atol=1e-8)
