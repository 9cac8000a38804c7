"""Tighter residual bounds from a fact that needs no statistics: acceptance falls as the threshold rises.

A group's acceptance rate depends on its own threshold alone and does not rise with it. So what was seen at one
threshold bounds the rate at all others: an upper bound carries to stricter thresholds, a lower bound to
more lenient ones. The bounds stay valid together wherever the plain ones are, because only minima and maxima of them are
taken (an isotonic fit would be tighter still, but not a bound). In a closed loop rates seen under different states are
compared, so the tightening is exact only for a population at rest.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.constraints import Constraints

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class RateMemory:
    """Group acceptance rates by grid level for B items, people counted, arms that share a group's level pooled.

    Arguments:
        levels: each arm's grid index by group [M, G].
        window: rounds kept; 0 keeps all.

    Attributes: seen and total [B, G, K], people and accepted people of each group at each of its grid levels.
    """

    def __init__(self, n_items: int, levels: IntArray, window: int = 0) -> None:
        self.levels = levels
        n_groups = levels.shape[1]
        shape = (n_items, n_groups, int(levels.max()) + 1)
        self.seen = np.zeros(shape)
        self.total = np.zeros(shape)
        self._rows = np.arange(n_items)[:, None]
        self._groups = np.arange(n_groups)[None, :]
        self._window = window
        self._round = 0
        self._ring: deque[tuple[int, IntArray, FloatArray, FloatArray]] = deque()

    def add(self, arm: IntArray, rates: FloatArray, people: FloatArray, discount: float = 1.0) -> None:
        """Take in one round's group rates and sizes [B, G] under arms [B]; rate NaN where a group was absent."""
        self._round += 1
        if discount < 1.0:
            self.seen *= discount
            self.total *= discount
        present = ~np.isnan(rates)
        count = people * present
        accepted = people * np.where(present, rates, 0.0)
        self._accumulate(arm, count, accepted)
        if self._window:
            self._ring.append((self._round, arm.copy(), count, accepted))
            while self._ring[0][0] <= self._round - self._window:
                _, old, gone, gone_accepted = self._ring.popleft()
                self._accumulate(old, -gone, -gone_accepted)
            # What is left of a level whose rounds have all expired is rounding error, not evidence.
            empty = self.seen < 1e-6
            self.seen[empty] = 0.0
            self.total[empty] = 0.0

    def _accumulate(self, arm: IntArray, count: FloatArray, accepted: FloatArray) -> None:
        at = (self._rows, self._groups, self.levels[arm])
        self.seen[at] += count
        self.total[at] += accepted

    def forget(self, rows: IntArray) -> None:
        """Drop all that is known of some items."""
        self.seen[rows] = 0.0
        self.total[rows] = 0.0
        for _, _, count, accepted in self._ring:
            count[rows] = 0.0
            accepted[rows] = 0.0

    def bounds(self, radius: float) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper bounds of the rates by level [B, G, K]; `radius` is that of one person."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, spread = self.total / self.seen, radius / np.sqrt(self.seen)
        lower = np.where(self.seen > 0, mean - spread, 0.0)
        upper = np.where(self.seen > 0, mean + spread, 1.0)
        return carried(np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0))

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


def carried(lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return bounds of rates by level [..., K] carried along the grid: rates do not rise with the threshold."""
    lower = np.maximum.accumulate(lower[..., ::-1], axis=-1)[..., ::-1]
    return lower, np.minimum.accumulate(upper, axis=-1)
