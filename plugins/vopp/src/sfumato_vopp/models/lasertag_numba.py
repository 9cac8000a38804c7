"""Compiled scalar functions of :mod:`sfumato_vopp.models.lasertag`.

``ints``: C, next cell of the robot [C, 5], of the opponent [C, C, 5], free run of each beam [C, 8], 16·beam + steps to the
opponent [C, C] or -1. ``floats``: cumulative probabilities [C, C, 5], hint [C, C], log-probabilities of readings [2, 13, 16].
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sfumato_vopp.counter_numba import normal, uniform

__all__ = ["hint", "log_likelihood", "step"]


@njit
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    n = ints[0]
    robot = S[i, 0] // n
    pair = S[i, 0] * 5
    if a == 4 and S[i, 0] - robot * n == robot:
        return 1 << 32, 10.0, True
    u = uniform(stream)
    j = 0
    while j < 4 and floats[pair + j] <= u:
        j += 1
    opponent = ints[1 + 5 * n + pair + j]
    robot = ints[1 + 5 * robot + a]
    S[i, 0] = robot * n + opponent
    reward = -10.0 if a == 4 else -1.0
    if robot == opponent:
        return 1 << 32, reward, False
    runs = 1 + 5 * n + 5 * n * n
    ray = ints[runs + 8 * n + robot * n + opponent]
    o = 0
    for beam in range(8):
        m = ints[runs + 8 * robot + beam]
        if ray >= 0 and ray >> 4 == beam:
            m = min(m, ray & 15)
        d = m * (1.4142135623730951 if beam & 1 else 1.0)
        k = np.int64(np.floor(d - 2.5 * abs(normal(stream))))
        o |= max(0, min(k, np.int64(np.ceil(d)) - 1)) << (4 * beam)
    return o, reward, False


@njit
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess the value of walking straight to the opponent's cell: -(1-γ^d)/(1-γ) + 10γ^d."""
    n = ints[0]
    return floats[5 * n * n + S[i, 0]]


@njit
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the sum of the beams' log-probabilities."""
    n = ints[0]
    robot = S[j, 0] // n
    opponent = S[j, 0] - robot * n
    if robot == opponent or o == 1 << 32:
        return 0.0 if robot == opponent and o == 1 << 32 else -math.inf
    runs = 1 + 5 * n + 5 * n * n
    ray = ints[runs + 8 * n + robot * n + opponent]
    total = 0.0
    for beam in range(8):
        m = ints[runs + 8 * robot + beam]
        if ray >= 0 and ray >> 4 == beam:
            m = min(m, ray & 15)
        total += floats[6 * n * n + ((beam & 1) * 13 + m) * 16 + ((o >> (4 * beam)) & 15)]
    return total
