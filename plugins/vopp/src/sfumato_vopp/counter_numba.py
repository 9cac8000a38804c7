"""The counter-based generator of :mod:`sfumato_vopp.counter` for compiled code.

A stream is a uint64 array of length 1 holding ``key + position·g``; each draw advances it by one place.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["GAMMA", "episode_key", "mix64", "normal", "uniform"]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / (1 << 53)
_TWO_PI = 2.0 * np.pi


@njit(inline="always")
def mix64(z):  # type: ignore[no-untyped-def]
    """Return the SplitMix64 finaliser of one uint64."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@njit(inline="always")
def episode_key(seed, episode):  # type: ignore[no-untyped-def]
    """Return the stream key of one episode (uint64), equal to ``episode_keys(seed, episode, 1)[0]``."""
    return mix64(seed + (np.uint64(episode) + np.uint64(1)) * GAMMA)


@njit(inline="always")
def uniform(stream):  # type: ignore[no-untyped-def]
    """Draw one uniform number on [0, 1) and advance the stream."""
    z = stream[0] + GAMMA
    stream[0] = z
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    z = z ^ (z >> _S31)
    return np.float64(z >> _S11) * _TO_UNIT


@njit(inline="always")
def normal(stream):  # type: ignore[no-untyped-def]
    """Draw one standard normal number (Box and Muller, two places) and advance the stream."""
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(stream)))
    return radius * np.cos(_TWO_PI * uniform(stream))
