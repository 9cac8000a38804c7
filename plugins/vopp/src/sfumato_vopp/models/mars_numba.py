"""Compiled scalar functions of :mod:`sfumato_vopp.models.mars`.

``ints``: n, m, rock at each cell (-1: none). ``floats``: hint on a good rock, value of the way out [n·n], accuracy of a
reading [n·n, m], distance [n·n, m], γ to the Manhattan distance [n·n, m].
"""

from __future__ import annotations

import math

from numba import njit

from sfumato_vopp.counter_numba import uniform

__all__ = ["hint", "log_likelihood", "step"]


@njit
def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
    """Advance row i; see :class:`sfumato_vopp.model.CompiledModel`."""
    n, m = ints[0], ints[1]
    first_action = a // (5 + m)
    reward = 0.0
    joint = 0
    for rover in range(2):
        act = first_action if rover == 0 else a - first_action * (5 + m)
        u = uniform(stream)
        reading = 0
        packed = S[i, 1]
        if (packed >> (32 + rover)) & 1 == 1:
            shift = 16 * rover
            x, y = (packed >> shift) & 0xFF, (packed >> (shift + 8)) & 0xFF
            cell = y * n + x
            if act >= 5:
                rock = act - 5
                right = u < floats[1 + n * n + cell * m + rock]
                good = (S[i, 0] >> rock) & 1 == 1
                reading = 2 if good == right else 1
            elif act == 4:
                rock = ints[2 + cell]
                if rock < 0:
                    reward -= 100.0
                elif (S[i, 0] >> rock) & 1 == 1:
                    reward += 10.0
                    S[i, 0] &= ~(1 << rock)
                else:
                    reward -= 10.0
            elif act == 0:
                if x + 1 >= n:
                    reward += 10.0
                    S[i, 1] = packed & ~(1 << (32 + rover))
                else:
                    S[i, 1] = packed + (1 << shift)
            elif act == 1:
                if y + 1 >= n:
                    reward -= 100.0
                else:
                    S[i, 1] = packed + (256 << shift)
            elif act == 2:
                if y == 0:
                    reward -= 100.0
                else:
                    S[i, 1] = packed - (256 << shift)
            elif x == 0:
                reward -= 100.0
            else:
                S[i, 1] = packed - (1 << shift)
        joint = joint * 3 + reading
    return joint, reward, S[i, 1] >> 32 == 0


@njit
def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
    """Guess 12·γ^(distance to the nearest good rock) a rover, less a charge for sensing from afar."""
    n, m = ints[0], ints[1]
    first_action = a // (5 + m)
    packed = S[i, 1]
    total = 0.0
    on = -1
    for rover in range(2):
        if (packed >> (32 + rover)) & 1 == 0:
            continue
        act = first_action if rover == 0 else a - first_action * (5 + m)
        cell = ((packed >> (16 * rover + 8)) & 0xFF) * n + ((packed >> (16 * rover)) & 0xFF)
        reach = 1 + n * n + 2 * n * n * m + cell * m
        nearest = 0.0
        rocks = S[i, 0]
        rock = 0
        while rocks > 0:
            if rocks & 1:
                nearest = max(nearest, floats[reach + rock])
            rocks >>= 1
            rock += 1
        if nearest <= 0.0:
            total += floats[1 + cell]
        elif nearest >= 1.0:
            if on == cell:
                total += 12.0 - floats[0]
            else:
                total += floats[0]
                on = cell
        else:
            total += 12.0 * nearest
        if act >= 5:
            total -= max(0.0, floats[1 + n * n + n * n * m + cell * m + act - 5] - 2.0)
    return total


@njit
def log_likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
    """Return the sum of the two rovers' log-probabilities."""
    n, m = ints[0], ints[1]
    first_action = a // (5 + m)
    rocks = P[i, 0]
    total = 0.0
    for rover in range(2):
        act = first_action if rover == 0 else a - first_action * (5 + m)
        reading = o // 3 if rover == 0 else o % 3
        packed = P[i, 1]
        if act < 5 or (packed >> (32 + rover)) & 1 == 0:
            if reading != 0:
                return -math.inf
            if act == 4 and rover == 0 and (packed >> 32) & 1 == 1:
                # Rover 0 samples before rover 1 senses.
                here = ints[2 + ((packed >> 8) & 0xFF) * n + (packed & 0xFF)]
                if here >= 0:
                    rocks &= ~(1 << here)
            continue
        if reading == 0:
            return -math.inf
        cell = ((packed >> (16 * rover + 8)) & 0xFF) * n + ((packed >> (16 * rover)) & 0xFF)
        right = floats[1 + n * n + cell * m + act - 5]
        good = (rocks >> (act - 5)) & 1 == 1
        p = right if good == (reading == 2) else 1.0 - right
        if p <= 0.0:
            return -math.inf
        total += math.log(p)
    return total
