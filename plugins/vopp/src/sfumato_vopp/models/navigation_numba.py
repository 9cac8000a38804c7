"""Compiled scalar functions of :mod:`sfumato_vopp.models.navigation`. ``floats``: value of a path of each length [200]."""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step"]


@njit(inline="always")
def _row(S, i, x):  # type: ignore[no-untyped-def]
    return (S[i, x >> 2] >> (13 * (x & 3))) & 0x1FFF


@njit
def _neighbours(S, i, x, y):  # type: ignore[no-untyped-def]
    """Return eight bits: north-west, north, north-east, west, east, south-west, south, south-east occupied."""
    bits = 0
    shift = 0
    for dx in range(-1, 2):
        for dy in range(-1, 2):
            if dx == 0 and dy == 0:
                continue
            if 0 <= x + dx < 13 and 0 <= y + dy < 13:
                bits |= ((_row(S, i, x + dx) >> (y + dy)) & 1) << shift
            shift += 1
    return bits


@njit
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    x = S[i, 4] // 13
    y = S[i, 4] - 13 * x
    slipped = uniform(stream) < 0.03
    reward = -0.2
    if a < 8:
        reward = -0.1
        if not slipped:
            k = a if a < 4 else a + 1
            x2, y2 = x + k // 3 - 1, y + k % 3 - 1
            if 0 <= x2 < 13 and 0 <= y2 < 13 and (_row(S, i, x2) >> y2) & 1 == 0:
                x, y = x2, y2
                S[i, 4] = 13 * x + y
            else:
                reward = -1.0
    if x == 12 and y == 6:
        return 0, 20.0, True
    bits = _neighbours(S, i, x, y)
    for j in range(8):
        if uniform(stream) < 0.03:
            bits ^= 1 << j
    return bits, reward, False


@njit
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess the value of the shortest path in this row's own map; -100 when there is none.

    Breadth-first search on rows of bits: one sweep widens the frontier of all 169 cells.
    """
    x = S[i, 4] // 13
    y = S[i, 4] - 13 * x
    # Rows travel in three words of four and one of one, so that a sweep is a handful of shifts.
    f0, f1, f2, f3 = 0, 0, 0, 0
    bit = 1 << (13 * (x & 3) + y)
    if x < 4:
        f0 = bit
    elif x < 8:
        f1 = bit
    elif x < 12:
        f2 = bit
    else:
        f3 = bit
    left = 0x1FFF & ~1
    left = left | left << 13 | left << 26 | left << 39
    right = 0x0FFF
    right = right | right << 13 | right << 26 | right << 39
    all4 = (1 << 52) - 1
    o0, o1, o2, o3 = ~S[i, 0] & all4, ~S[i, 1] & all4, ~S[i, 2] & all4, ~S[i, 3] & 0x1FFF
    for d in range(169):
        if (f3 >> 6) & 1:
            return floats[d]
        w0 = f0 | ((f0 << 1) & left) | ((f0 >> 1) & right)
        w1 = f1 | ((f1 << 1) & left) | ((f1 >> 1) & right)
        w2 = f2 | ((f2 << 1) & left) | ((f2 >> 1) & right)
        w3 = f3 | ((f3 << 1) & left) | ((f3 >> 1) & right)
        n0 = (w0 | (w0 << 13) | (w0 >> 13) | (w1 << 39)) & o0
        n1 = (w1 | (w1 << 13) | (w1 >> 13) | (w0 >> 39) | (w2 << 39)) & o1
        n2 = (w2 | (w2 << 13) | (w2 >> 13) | (w1 >> 39) | (w3 << 39)) & o2
        n3 = (w3 | (w2 >> 39)) & o3
        if n0 == f0 and n1 == f1 and n2 == f2 and n3 == f3:
            break
        f0, f1, f2, f3 = n0, n1, n2, n3
    return -100.0


@njit
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the log-probability of eight bits with 0.03 errors each."""
    x = S[j, 4] // 13
    wrong = o ^ _neighbours(S, j, x, S[j, 4] - 13 * x)
    count = 0
    while wrong > 0:
        count += wrong & 1
        wrong >>= 1
    return count * math.log(0.03) + (8 - count) * math.log(0.97)
