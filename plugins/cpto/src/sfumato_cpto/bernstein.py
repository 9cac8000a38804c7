"""Bernstein curves on a uniform time grid: bases, derivatives, exact re-timing.

A curve of degree n on [0, T_e] has n + 1 coefficients (control points). Position, velocity,
acceleration and jerk at the N samples are linear in them, so each is one matrix.

Source: Zheng et al., arXiv:2409.10310, section on trajectory parameterisation; Farouki, "The Bernstein
polynomial basis: a centennial retrospective" (2012) for the derivative and subdivision formulas.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def basis(degree: int, tau: Array) -> Array:
    """Return the Bernstein basis of `degree` at `tau` (dimensionless, [N]) as a float array [N, degree + 1]."""
    i = np.arange(degree + 1)
    binomial = np.array([comb(degree, int(j)) for j in i], dtype=np.float64)
    t = np.asarray(tau, dtype=np.float64)[:, None]
    result: Array = binomial * t**i * (1.0 - t) ** (degree - i)
    return result


def difference(m: int) -> Array:
    """Return the forward-difference matrix [m, m + 1] times m: coefficients of the derivative on [0, 1]."""
    d = np.zeros((m, m + 1))
    rows = np.arange(m)
    d[rows, rows] = -m
    d[rows, rows + 1] = m
    return d


def derivative_matrices(degree: int, n_samples: int, dt: float, order: int = 3) -> tuple[Array, ...]:
    """Return (P, P1, ..., P_order), each [N, degree + 1], on the grid t_k = k dt, k = 0 .. N - 1.

    Row k of P_m times the coefficients is the m-th time derivative at t_k (unit of the curve / s^m).
    """
    if n_samples < 2 or degree < order:
        raise ValueError(
            f"expected at least 2 samples and degree >= {order}, got {n_samples} samples, degree {degree}"
        )
    tau = np.linspace(0.0, 1.0, n_samples)
    duration = (n_samples - 1) * dt
    matrices = []
    chain = np.eye(degree + 1)
    for m in range(order + 1):
        matrices.append(basis(degree - m, tau) @ chain / duration**m)
        if m < order:
            chain = difference(degree - m) @ chain
    return tuple(matrices)


def shift_matrix(degree: int, shift: float) -> Array:
    """Return S [degree + 1, degree + 1]: coefficients of t -> c(t + shift) on the unit interval.

    The shifted curve is the same polynomial (exact re-parameterisation by blossoming); for shift > 0
    its last part extrapolates. `shift` is a fraction of the curve's duration.
    """
    # Row i is the blossom of the curve at i arguments (1 + shift) and degree - i arguments shift.
    rows = []
    for i in range(degree + 1):
        polar = np.eye(degree + 1)
        for argument in [1.0 + shift] * i + [shift] * (degree - i):
            polar = (1.0 - argument) * polar[:-1] + argument * polar[1:]
        rows.append(polar[0])
    return np.array(rows)


def start_coefficients(
    position: float, velocity: float, acceleration: float, degree: int, duration: float
) -> Array:
    """Return the first three coefficients [3], fixed by position, velocity and acceleration at t = 0."""
    c0 = position
    c1 = c0 + velocity * duration / degree
    c2 = 2.0 * c1 - c0 + acceleration * duration**2 / (degree * (degree - 1))
    return np.array([c0, c1, c2])
