"""Compiled scalar functions of :class:`sfumato_vopp.tabular.TabularModel`; same draws in the same places.

``ints``: S, O, width of the reward rows, then terminal flags [S]. ``floats``: cumulative transitions [A, S, S], cumulative
observations [A, S, O], rewards [A, S, width], and one upper bound of all values; the number of actions
follows from the length.
"""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step", "upper"]


@njit(inline="always")
def _actions(ints, floats):  # type: ignore[no-untyped-def]
    return floats.size // (ints[0] * (ints[0] + ints[1] + ints[2]))


@njit(inline="always")
def _draw(floats, first, count, u):  # type: ignore[no-untyped-def]
    x = u * floats[first + count - 1]
    low, high = 0, count - 1
    while low < high:
        mid = (low + high) >> 1
        if floats[first + mid] <= x:
            low = mid + 1
        else:
            high = mid
    return low


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    n, n_obs, width = ints[0], ints[1], ints[2]
    n_actions = _actions(ints, floats)
    s = S[i, 0]
    t = _draw(floats, (a * n + s) * n, n, uniform(stream))
    o = _draw(floats, n_actions * n * n + (a * n + t) * n_obs, n_obs, uniform(stream))
    rewards = n_actions * n * (n + n_obs)
    r = floats[rewards + (a * n + s) * width + (t if width > 1 else 0)]
    S[i, 0] = t
    return o, r, ints[3 + t] == 1


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess nothing: zero."""
    return 0.0


@njit(inline="always")
def upper(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Return the value of the best reward for ever."""
    return floats[floats.size - 1]


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return log P(o | a, s')."""
    n, n_obs = ints[0], ints[1]
    first = _actions(ints, floats) * n * n + (a * n + S[j, 0]) * n_obs
    p = floats[first + o] - (floats[first + o - 1] if o > 0 else 0.0)
    return math.log(p) if p > 0.0 else -math.inf
