"""Compiled scalar functions of :mod:`sfumato_vopp.models.crowdnav`. ``floats``: value of a walk of each length [60]."""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import normal, uniform

__all__ = ["hint", "log_likelihood", "step"]


@njit
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    x, y = S[i, 0], S[i, 1]
    x2, y2 = x, y
    if a == 0:
        x2 = min(50.0, x + 1.0)
    elif a == 1:
        x2 = max(0.0, x - 1.0)
    elif a == 2:
        y2 = min(20.0, y + 1.0)
    elif a == 3:
        y2 = max(-20.0, y - 1.0)
    bits = 0
    nearest = math.inf
    for k in range(6):
        j = 2 + 3 * k
        dx, dy = S[i, j] - x, S[i, j + 1] - y
        distance = math.sqrt(dx * dx + dy * dy)
        u = uniform(stream)
        shift = 0.0
        if distance <= 4.0:
            if a == 4:
                shift = 2.0
            elif u < 0.9:
                shift = -0.3 if S[i, j + 2] > 0.5 else 0.8
        scale = shift / max(distance, 1e-9)
        px = S[i, j] + scale * dx + 0.05 * normal(stream)
        py = S[i, j + 1] + scale * dy + 0.05 * normal(stream)
        S[i, j] = px = max(0.0, min(50.0, px))
        S[i, j + 1] = py = max(-20.0, min(20.0, py))
        if (px - x) * (px - x) + (py - y) * (py - y) < distance * distance:
            bits |= 1 << k
        nearest = min(nearest, (px - x2) * (px - x2) + (py - y2) * (py - y2))
    S[i, 0], S[i, 1] = x2, y2
    reward = -200.0 if nearest <= 1.0 else -1.0
    if a == 4:
        reward -= 25.0
    if x2 > 49.99:
        return bits, reward + 1000.0, True
    return bits, reward, False


@njit
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess the value of walking straight on: -(1-γ^T)/(1-γ) + 1000γ^T, T = ⌈50 - x - 2⌉ steps."""
    return floats[int(math.ceil(max(0.0, 48.0 - S[i, 0])))]  # noqa: RUF046


@njit
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return six times log 0.8 or log 0.2, as each bit fits the step from row i to row j or not."""
    x, y = P[i, 0], P[i, 1]
    total = 0.0
    for k in range(6):
        c = 2 + 3 * k
        before = (P[i, c] - x) ** 2 + (P[i, c + 1] - y) ** 2
        after = (S[j, c] - x) ** 2 + (S[j, c + 1] - y) ** 2
        fits = (after < before) == ((o >> k) & 1 == 1)
        total += math.log(0.8 if fits else 0.2)
    return total
