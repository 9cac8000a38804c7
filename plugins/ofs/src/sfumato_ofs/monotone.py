"""Tighter residual bounds from a fact that needs no statistics: acceptance falls as the threshold rises.

A group's acceptance rate depends on its own threshold alone and does not rise with it. So what was seen at one
threshold bounds the rate at all others: an upper bound carries to stricter thresholds, a lower bound to
more lenient ones. The bounds stay valid together wherever the plain ones are, because only minima and maxima of them are
taken (an isotonic fit would be tighter still, but not a bound). In a closed loop rates seen under different states are
compared, so the tightening is exact only for a population at rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.constraints import Constraints

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class RateMemory:
    """Group acceptance rates by grid level for B items, arms that share a group's level pooled.

    Arguments:
        levels: each arm's grid index by group [M, G].
    """

    def __init__(self, n_items: int, levels: IntArray) -> None:
        self.levels = levels
        n_groups = levels.shape[1]
        shape = (n_items, n_groups, int(levels.max()) + 1)
        self.seen = np.zeros(shape)
        self.total = np.zeros(shape)
        self._rows = np.arange(n_items)[:, None]
        self._groups = np.arange(n_groups)[None, :]

    def add(self, arm: IntArray, rates: FloatArray, weight: float = 1.0, discount: float = 1.0) -> None:
        """Take in one round's group rates [B, G] under arms [B]; NaN where a group was absent."""
        if discount < 1.0:
            self.seen *= discount
            self.total *= discount
        at = (self._rows, self._groups, self.levels[arm])
        present = ~np.isnan(rates)
        self.seen[at] += weight * present
        self.total[at] += weight * np.where(present, rates, 0.0)

    def bounds(self, radius: float) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper bounds of the rates by level [B, G, K]; `radius` is that of one observation."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, spread = self.total / self.seen, radius / np.sqrt(self.seen)
        lower = np.where(self.seen > 0, mean - spread, 0.0)
        upper = np.where(self.seen > 0, mean + spread, 1.0)
        lower = np.maximum.accumulate(np.clip(lower, 0.0, 1.0)[:, :, ::-1], axis=2)[:, :, ::-1]
        return lower, np.minimum.accumulate(np.clip(upper, 0.0, 1.0), axis=2)

    def tighten(
        self, lower: FloatArray, upper: FloatArray, constraints: Constraints, radius: float, margin: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return residual bounds [B, M, I] intersected with those that the group rates imply.

        The service residuals keep their direct bounds, carried along the grid when one threshold is shared.
        """
        rate_lower, rate_upper = self.bounds(radius)
        groups = np.arange(self.levels.shape[1])
        low, high = rate_lower[:, groups, self.levels], rate_upper[:, groups, self.levels]
        lower, upper = lower.copy(), upper.copy()
        factor = 1.0 - constraints.eps if constraints.gap == "ratio" else 1.0
        slack = 0.0 if constraints.gap == "ratio" else constraints.eps
        if constraints.gap in ("signed", "ratio") and constraints.measure == "parity":
            for i, (a, b) in enumerate(constraints.pairs):
                implied_lower = factor * low[:, :, a] - high[:, :, b] - slack + margin
                implied_upper = factor * high[:, :, a] - low[:, :, b] - slack + margin
                lower[:, :, i] = np.maximum(lower[:, :, i], implied_lower)
                upper[:, :, i] = np.minimum(upper[:, :, i], implied_upper)
        shared = (self.levels == self.levels[:, :1]).all() and (np.diff(self.levels[:, 0]) > 0).all()
        if shared:
            at = constraints.n_parity
            if constraints.rho_min is not None:
                # rho_min - rate rises along the grid.
                lower[:, :, at] = np.maximum.accumulate(lower[:, :, at], axis=1)
                upper[:, :, at] = np.minimum.accumulate(upper[:, ::-1, at], axis=1)[:, ::-1]
                at += 1
            if constraints.rho_max is not None:
                lower[:, :, at] = np.maximum.accumulate(lower[:, ::-1, at], axis=1)[:, ::-1]
                upper[:, :, at] = np.minimum.accumulate(upper[:, :, at], axis=1)
        return lower, upper
