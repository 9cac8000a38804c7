"""Curves, derivatives and re-timing against numpy's polynomials."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato_cpto.bernstein import basis, derivative_matrices, shift_matrix, start_coefficients


def test_the_basis_sums_to_one_and_is_not_negative():
    b = basis(10, np.linspace(0, 1, 50))
    assert b.min() >= 0.0
    np.testing.assert_allclose(b.sum(axis=1), 1.0, atol=1e-14)


@pytest.mark.parametrize("degree", [6, 10, 13])
def test_derivatives_agree_with_exact_rational_differentiation(degree):
    from fractions import Fraction
    from math import comb

    n, dt = 21, 0.1
    rng = np.random.default_rng(3)
    coefficients = rng.integers(-9, 10, degree + 1)
    # Power-basis coefficients in exact arithmetic.
    power = [Fraction(0)] * (degree + 1)
    for i, c in enumerate(coefficients):
        for j in range(degree - i + 1):
            power[i + j] += int(c) * comb(degree, i) * comb(degree - i, j) * (-1) ** j
    duration = Fraction(n - 1, 10)
    for order, matrix in enumerate(derivative_matrices(degree, n, dt)):
        exact = []
        for k in range(n):
            tau = Fraction(k, n - 1)
            value = Fraction(0)
            for e in range(order, degree + 1):
                factor = 1
                for q in range(order):
                    factor *= e - q
                value += power[e] * factor * tau ** (e - order)
            exact.append(float(value / duration**order))
        np.testing.assert_allclose(matrix @ coefficients, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.2))
def test_a_shifted_curve_is_the_same_curve(seed, shift):
    c = np.random.default_rng(seed).normal(size=11)
    tau = np.linspace(0.0, 1.0 - shift, 17)
    moved = basis(10, tau) @ (shift_matrix(10, shift) @ c)
    np.testing.assert_allclose(moved, basis(10, tau + shift) @ c, rtol=1e-9, atol=1e-9 * np.abs(c).max())


def test_the_first_three_coefficients_give_the_start():
    p, p1, p2, _ = derivative_matrices(10, 50, 0.1)
    c = np.concatenate([start_coefficients(1.5, -2.0, 0.7, 10, 4.9), np.ones(8)])
    assert p[0] @ c == pytest.approx(1.5)
    assert p1[0] @ c == pytest.approx(-2.0)
    assert p2[0] @ c == pytest.approx(0.7)
