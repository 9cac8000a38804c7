"""The discrete barrier in polar form: distances, and two projections on the barrier set.

An ellipse with semi-axes (a, b) around an obstacle is left free when the scaled distance
d = sqrt(((x - x_o)/a)^2 + ((y - y_o)/b)^2) is at least 1. The barrier asks more, step after step:
d[k+1] - 1 >= (1 - gamma[k]) (d[k] - 1), which by induction keeps d >= 1 when d[0] >= 1, and pulls d
back to 1 at that rate when d[0] < 1.

Source: Zheng et al., arXiv:2409.10310 (barrier with polar reformulation). The form linear in d is ours: it has
the same zero set and the same induction as the form in h = d^2 - 1. The exact projection is weighted
isotonic regression by pooling adjacent violators (Barlow et al., 1972) after a change of variable.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def decay(gamma: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the running products of 1 - gamma since the last restart, and each sample's block.

    Arguments: gamma [N - 1], barrier rates in (0, 1].
    Returns: (product [N], block [N]); a rate of 1 forgets the past and starts a new block.
    """
    n = len(gamma) + 1
    product, block = np.ones(n), np.zeros(n, dtype=np.int64)
    for k in range(1, n):
        restart = gamma[k - 1] >= 1.0
        block[k] = block[k - 1] + restart
        product[k] = 1.0 if restart else product[k - 1] * (1.0 - gamma[k - 1])
    return product, block


def project_forward(d: Array, gamma: Array) -> Array:
    """Return the least d' >= d [..., N] on the barrier set with d'[0] = d[0]: feasible, not the nearest point.

    O(N) and without a loop over time: in e = (d - 1) / product the clamp is a running maximum.
    """
    product, block = decay(gamma)
    e = (d - 1.0) / product
    result = np.empty_like(e)
    for number in range(block[-1] + 1):
        inside = block == number
        part = e[..., inside]
        if number:
            part = np.maximum(part, 0.0)
        result[..., inside] = np.maximum.accumulate(part, axis=-1)
    projected: Array = 1.0 + result * product
    projected[..., 0] = d[..., 0]
    return projected


@numba.njit(cache=True)
def _pool(target: Array, product: Array, block: NDArray[np.int64], out: Array) -> None:
    # Nearest point for one sequence: isotonic regression of e with weights product^2, from below bounded
    # by e[0] in the first block and by 0 after a restart.
    n = target.shape[0]
    level = np.empty(n)
    weight = np.empty(n)
    size = np.empty(n, dtype=np.int64)
    out[0] = target[0]
    start = 1
    floor = target[0] - 1.0
    while start < n:
        stop = start
        while stop < n and block[stop] == block[start]:
            stop += 1
        if block[start] != 0:
            floor = 0.0
        # Late products reach 1e-20: weights relative to the pool avoid underflow of product^2.
        top = 0
        for k in range(start, stop):
            level[top] = (target[k] - 1.0) / product[k]
            weight[top] = product[k] * product[k]
            size[top] = 1
            top += 1
            while top > 1 and level[top - 2] > level[top - 1]:
                total = weight[top - 2] + weight[top - 1]
                level[top - 2] += (level[top - 1] - level[top - 2]) * (weight[top - 1] / total)
                weight[top - 2] = total
                size[top - 2] += size[top - 1]
                top -= 1
        k = start
        for i in range(top):
            value = max(level[i], floor)
            for _ in range(size[i]):
                out[k] = 1.0 + value * product[k]
                k += 1
        start = stop


def project_exact(d: Array, gamma: Array) -> Array:
    """Return the nearest point on the barrier set to d [..., N] in the Euclidean norm, d[0] fixed. O(N) each."""
    product, block = decay(gamma)
    flat = np.ascontiguousarray(d, dtype=np.float64).reshape(-1, d.shape[-1])
    result = np.empty_like(flat)
    for row in range(len(flat)):
        _pool(flat[row], product, block, result[row])
    return result.reshape(d.shape)


def condition(d: Array, gamma: Array) -> Array:
    """Return d[k+1] - 1 - (1 - gamma[k]) (d[k] - 1), shape [..., N - 1]; the barrier holds where it is >= 0."""
    residual: Array = d[..., 1:] - 1.0 - (1.0 - gamma) * (d[..., :-1] - 1.0)
    return residual
