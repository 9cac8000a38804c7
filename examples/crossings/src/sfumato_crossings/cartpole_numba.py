"""Compiled scalar functions of :mod:`sfumato_crossings.cartpole`. ``floats``: position mark, angle mark, discount."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(inline="always")
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.CompiledModel`."""
    speed, angle, spin = S[i, 1], S[i, 2], S[i, 3]
    sine, cosine = math.sin(angle), math.cos(angle)
    drive = ((10.0 if a == 1 else -10.0) + 0.05 * spin * spin * sine) / 1.1
    twist = (9.8 * sine - cosine * drive) / (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / 1.1))
    S[i, 0] += 0.02 * speed
    S[i, 1] += 0.02 * (drive - 0.05 * twist * cosine / 1.1)
    S[i, 2] += 0.02 * spin
    S[i, 3] += 0.02 * twist
    x, angle = S[i, 0], S[i, 2]
    marks = (np.int64(np.rint(x / floats[0])) + 2**15) * 2**16 + np.int64(np.rint(angle / floats[1])) + 2**15
    return marks, 1.0, abs(x) > 2.4 or abs(angle) > 12 * math.pi / 180


@njit(inline="always")
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess the value as `CartPoleModel.value_hint` does."""
    pole = (S[i, 2] + 0.26 * S[i, 3]) / (12 * math.pi / 180)
    cart = (S[i, 0] + 0.5 * S[i, 1]) / 2.4
    return min(1.0, max(0.0, 1.0 - 0.5 * pole * pole - 0.5 * cart * cart)) / (1.0 - floats[2])


@njit(inline="always")
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the log-likelihood of a pair of marks: a box with soft walls."""
    x = max(0.0, abs(S[j, 0] / floats[0] - (o // 2**16 - 2**15)) - 0.5)
    angle = max(0.0, abs(S[j, 2] / floats[1] - (o % 2**16 - 2**15)) - 0.5)
    return -12.5 * (x * x + angle * angle)
