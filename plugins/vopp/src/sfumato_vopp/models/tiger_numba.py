"""Compiled scalar functions of :mod:`sfumato_vopp.models.tiger`; same draws in the same places."""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step", "upper"]


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    tiger = S[i, 0]
    first = uniform(stream)
    second = uniform(stream)
    if a == 0:
        return (tiger if first < floats[0] else 1 - tiger), -1.0, False
    reward = -100.0 if a - 1 == tiger else 10.0
    S[i, 0] = 1 if second >= 0.5 else 0
    return (1 if first >= 0.5 else 0), reward, False


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess nothing: zero."""
    return 0.0


@njit(inline="always")
def upper(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Return the value of opening the right door for ever."""
    return floats[1]


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the log-likelihood of a sound."""
    if a != 0:
        return math.log(0.5)
    return math.log(floats[0] if S[j, 0] == o else 1.0 - floats[0])
