"""Two small matrix products for compiled kernels: at a dozen columns a call of BLAS costs more than the product."""

from __future__ import annotations

import numba

_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def dots(rows, i, maps, out):
    """Write maps [F, K] @ rows[i] [K] to out [F], four products at a time so that the row is read once for them."""
    n_out, size = maps.shape
    f = 0
    while f + 4 <= n_out:
        p, q, r, s = 0.0, 0.0, 0.0, 0.0
        for k in range(size):
            v = rows[i, k]
            p += maps[f, k] * v
            q += maps[f + 1, k] * v
            r += maps[f + 2, k] * v
            s += maps[f + 3, k] * v
        out[f], out[f + 1], out[f + 2], out[f + 3] = p, q, r, s
        f += 4
    while f + 2 <= n_out:
        p, q = 0.0, 0.0
        for k in range(size):
            v = rows[i, k]
            p += maps[f, k] * v
            q += maps[f + 1, k] * v
        out[f], out[f + 1] = p, q
        f += 2
    if f < n_out:
        p = 0.0
        for k in range(size):
            p += maps[f, k] * rows[i, k]
        out[f] = p


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def combine(base, axis, coef, r, first, curves, out, at):
    """Write base[axis] + coef[r, first:] @ curves [F, K] to out[at] [K], four curves at a time."""
    n_coef, size = curves.shape
    for k in range(size):
        out[at, k] = base[axis, k]
    f = 0
    while f + 4 <= n_coef:
        p, q, s, t = (
            coef[r, first + f],
            coef[r, first + f + 1],
            coef[r, first + f + 2],
            coef[r, first + f + 3],
        )
        for k in range(size):
            out[at, k] += (
                p * curves[f, k] + q * curves[f + 1, k] + s * curves[f + 2, k] + t * curves[f + 3, k]
            )
        f += 4
    while f < n_coef:
        p = coef[r, first + f]
        for k in range(size):
            out[at, k] += p * curves[f, k]
        f += 1
