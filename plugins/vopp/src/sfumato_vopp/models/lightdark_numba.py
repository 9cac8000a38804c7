"""Compiled scalar functions of :mod:`sfumato_vopp.models.lightdark`. ``ints``: steps [5]. ``floats``: hint [121]."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sfumato_vopp.counter_numba import normal

__all__ = ["hint", "log_likelihood", "step"]


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    s = S[i, 0]
    if a == 2:
        return 0, (100.0 if s == 0 else -100.0), True
    s = max(-60, min(60, s + ints[a]))
    S[i, 0] = s
    return np.int64(np.floor(s + (abs(s - 10) + 1e-4) * normal(stream) + 0.5)), -1.0, False


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess the value of walking to 0 and stopping there."""
    return floats[S[i, 0] + 60]


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the log-probability of the bin."""
    s = S[j, 0]
    scale = (abs(s - 10) + 1e-4) * 1.4142135623730951
    low, high = (o - 0.5 - s) / scale, (o + 0.5 - s) / scale
    # On the side where both are in the tail the complement keeps the digits.
    if low > 0.0:
        p = 0.5 * (math.erfc(low) - math.erfc(high))
    elif high < 0.0:
        p = 0.5 * (math.erfc(-high) - math.erfc(-low))
    else:
        p = 0.5 * (math.erf(high) - math.erf(low))
    return math.log(p) if p > 0.0 else -math.inf
