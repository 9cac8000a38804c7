"""Compiled scalar functions of :mod:`sfumato_vopp.models.rocksample`; same draws in the same places.

``ints``: n, k, the rock at each cell (-1: none) [n·n], what a move adds to the cell [4, n·n] (0: off the grid). ``floats``: the hint on a good rock, then [n·n] the value of the way
out, [k, n·n] the accuracy of a check, [n·n, k] γ to the distance.
"""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step", "upper"]


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    packed = S[i, 0]
    cell = packed & 0xFFFF
    n = ints[0]
    if a >= 5:
        rock = a - 5
        right = uniform(stream) < floats[1 + n * n + rock * n * n + cell]
        good = (packed >> (16 + rock)) & 1 == 1
        return (2 if good == right else 1), 0.0, False
    if a == 4:
        here = ints[2 + cell]
        if here < 0:
            return 0, -100.0, False
        if (packed >> (16 + here)) & 1 == 1:
            S[i, 0] = packed & ~(1 << (16 + here))
            return 0, 10.0, False
        return 0, -10.0, False
    moved = ints[2 + n * n + a * n * n + cell]
    if moved == 0:
        if a == 1:
            return 0, 10.0, True
        return 0, -100.0, False
    S[i, 0] = packed + moved
    return 0, 0.0, False


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess 12·γ^(distance to the nearest good rock), or the way out."""
    packed = S[i, 0]
    cell = packed & 0xFFFF
    n, k = ints[0], ints[1]
    base = 1 + n * n + k * n * n + cell * k
    # No branch on a rock's worth: it is a coin toss, and a branch guessed wrong costs more than the whole sum.
    nearest = 0.0
    for rock in range(k):
        reach = floats[base + rock] * float((packed >> (16 + rock)) & 1)
        nearest = reach if reach > nearest else nearest
    if nearest <= 0.0:
        return floats[1 + cell]
    return floats[0] if nearest >= 1.0 else 12.0 * nearest


@njit(inline="always")
def upper(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Return Σ 10·γ^distance over good rocks plus the way out: no plan collects more, or any of it sooner."""
    packed = S[i, 0]
    cell = packed & 0xFFFF
    n, k = ints[0], ints[1]
    base = 1 + n * n + k * n * n + cell * k
    total = floats[1 + cell]
    rocks = packed >> 16
    rock = 0
    while rocks > 0:
        if rocks & 1:
            total += 10.0 * floats[base + rock]
        rocks >>= 1
        rock += 1
    return total


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the log-likelihood of a reading."""
    if a < 5:
        return 0.0 if o == 0 else -math.inf
    if o == 0:
        return -math.inf
    n = ints[0]
    rock = a - 5
    cell = S[j, 0] & 0xFFFF
    right = floats[1 + n * n + rock * n * n + cell]
    good = (S[j, 0] >> (16 + rock)) & 1 == 1
    p = right if good == (o == 2) else 1.0 - right
    return math.log(p) if p > 0.0 else -math.inf
