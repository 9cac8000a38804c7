"""Binomial counts by inversion: one uniform a count, the same count on every backend.

Inversion (rather than a rejection sampler) is chosen for two reasons. Each item of a batch can own
its stream of uniforms and still be drawn together with all others, and two policies which are
compared on one stream see strongly correlated worlds, so that paired differences are small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SMALLEST = 1e-300


def binomial_quantile(u: FloatArray, n: IntArray, p: FloatArray) -> IntArray:
    """Return the smallest k whose binomial distribution function exceeds u.

    Arguments:
        u: uniforms in [0, 1), any shape.
        n: numbers of trials, int64, same shape; 0 gives 0.
        p: success probabilities in [0, 1], same shape.

    Returns:
        int64 array of counts in 0..n, exact in law up to the accuracy of the incomplete beta
        function (about 1e-14).

    Notes:
        A Cornish-Fisher guess is almost always within one of the answer, so about two evaluations
        of the distribution function are enough. The numba kernel returns the same integers.
    """
    trials = np.maximum(n, 1)
    p = np.clip(p, 0.0, 1.0)
    z = ndtri(np.clip(u, _SMALLEST, 1.0 - 1e-16))
    mean = trials * p
    spread = np.sqrt(mean * (1.0 - p))
    guess = np.floor(mean + spread * z + (1.0 - 2.0 * p) * (z * z - 1.0) / 6.0 + 0.5)
    k = np.clip(guess, 0, trials).astype(np.int64)

    # Go up while F(k) <= u, then down while F(k - 1) > u; k = n always satisfies F(n) = 1 > u.
    rising = bdtr(k.astype(np.float64), trials, p) <= u
    while rising.any():
        rising &= k < trials
        k = np.where(rising, k + 1, k)
        rising = rising & (bdtr(k.astype(np.float64), trials, p) <= u)
    below = np.where(k > 0, bdtr(np.maximum(k - 1, 0).astype(np.float64), trials, p), -1.0)
    falling = below > u
    while falling.any():
        k = np.where(falling, k - 1, k)
        below = np.where(k > 0, bdtr(np.maximum(k - 1, 0).astype(np.float64), trials, p), -1.0)
        falling &= below > u
    return np.where(n > 0, k, 0)


class UniformBlocks:
    """Rows of uniforms for B items, each item from its own generator.

    `next()` gives a float array [B, width]. Item b's row t is a function of its own generator
    alone, whatever other items are in the batch and whatever the block length is.
    """

    def __init__(self, generators: Sequence[np.random.Generator], width: int, block: int = 128) -> None:
        self._generators = list(generators)
        self._width = width
        self._block = block
        self._rows: FloatArray = np.empty((0, len(self._generators), width))
        self._at = 0

    def block(self, n_rounds: int) -> FloatArray:
        """Return the next n_rounds rows at once, float array [n_rounds, B, width]."""
        rows = np.empty((n_rounds, len(self._generators), self._width))
        for b, generator in enumerate(self._generators):
            rows[:, b] = generator.random((n_rounds, self._width))
        return rows

    def next(self) -> FloatArray:
        """Return the next row, float array [B, width]."""
        if self._at == len(self._rows):
            self._rows = self.block(self._block)
            self._at = 0
        row = self._rows[self._at]
        self._at += 1
        return row
