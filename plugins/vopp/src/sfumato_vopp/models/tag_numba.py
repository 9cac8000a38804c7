"""Compiled scalar functions of :mod:`sfumato_vopp.models.tag`.

``ints``: C, next cell of the robot [C, 5], next cell of the opponent [C, C, 5]. ``floats``: cumulative probabilities of the
latter, then the hint [C, C].
"""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step"]


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    n = ints[0]
    robot = S[i, 0] // n
    pair = S[i, 0] * 5
    if a == 4 and S[i, 0] - robot * n == robot:
        return n, 10.0, True
    u = uniform(stream)
    j = 0
    while j < 4 and floats[pair + j] <= u:
        j += 1
    opponent = ints[1 + 5 * n + pair + j]
    robot = ints[1 + 5 * robot + a]
    S[i, 0] = robot * n + opponent
    return (n if robot == opponent else robot), (-10.0 if a == 4 else -1.0), False


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess a value from the distance; see :func:`sfumato_vopp.models.tag.chase_hint`."""
    n = ints[0]
    return floats[5 * n * n + S[i, 0]]


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return 0 for the one observation that fits, else -inf."""
    n = ints[0]
    robot = S[j, 0] // n
    seen = n if robot == S[j, 0] - robot * n else robot
    return 0.0 if seen == o else -math.inf
