"""Empirical Bernstein bounds from people in place of batches: as narrow as what was seen, whatever the batch sizes.

Hoeffding's proxy takes every rate for 1/2. Where nearly all or nearly nobody is accepted the variance is far below that, and
a bound from the observed variance is narrower once some hundred people have been seen. Groups' acceptance rates, the overall
rate and the reward a person are bounded each by itself, and the residuals' bounds follow.

Source: A. Maurer, M. Pontil, "Empirical Bernstein Bounds and Sample Variance Penalization", COLT 2009, Theorem 11
(independent variables, so batches from different rounds may be pooled).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.constraints import Constraints
from sfumato_ofs.monotone import RateMemory, carried

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def radius(
    variance: FloatArray, count: FloatArray, term: float, beta: float, span: float = 1.0
) -> FloatArray:
    """Return beta (sqrt(2 V t / n) + 7 span t / (3 (n - 1))) with the sample variance V; inf below 2 people.

    Arguments: variance: second moment minus squared mean (not yet n / (n - 1)); term: t, the log of the union bound.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        sample = np.maximum(variance, 0.0) * count / (count - 1.0)
        value = np.sqrt(2.0 * sample * term / count) + 7.0 * span * term / (3.0 * (count - 1.0))
    return np.where(count > 1.0, beta * value, np.inf if beta > 0.0 else 0.0)


class PersonMemory:
    """What M arms showed of single people, for B items.

    Attributes: count, accepted [B, M]: people and accepted people; rewarded, reward, square [B, M]: people whose batch's reward
    is known, their summed rewards and squared rewards (1, -loss or 0 a person).
    """

    def __init__(self, n_items: int, n_arms: int, loss: float) -> None:
        shape = (n_items, n_arms)
        self.count, self.accepted = np.zeros(shape), np.zeros(shape)
        self.rewarded, self.reward, self.square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._loss = loss
        self._rows = np.arange(n_items)

    def add(self, arm: IntArray, overall: FloatArray, people: FloatArray) -> None:
        """Take in one round: overall acceptance rate and number of people [B] under arms [B]."""
        self.count[self._rows, arm] += people
        self.accepted[self._rows, arm] += people * overall

    def add_reward(self, arm: IntArray, reward: FloatArray, overall: FloatArray, people: FloatArray) -> None:
        """Take in the mean rewards [B] of rounds, NaN where not known.

        Who was accepted and what that earned tell how many were good, hence the squares.
        """
        known = ~np.isnan(reward) & (arm >= 0)
        rows, at = self._rows[known], arm[known]
        r, n, taken = reward[known], people[known], overall[known]
        good = (r + self._loss * taken) / (1.0 + self._loss)
        self.rewarded[rows, at] += n
        self.reward[rows, at] += n * r
        self.square[rows, at] += n * (good + self._loss**2 * (taken - good))

    def forget(self, rows: IntArray) -> None:
        """Drop all that is known of some items."""
        for total in (self.count, self.accepted, self.rewarded, self.reward, self.square):
            total[rows] = 0.0

    def reward_bounds(self, term: float, beta: float) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper bounds of the reward a person [B, M]; infinite where none is known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.reward / self.rewarded
            spread = radius(
                self.square / self.rewarded - mean**2, self.rewarded, term, beta, 1.0 + self._loss
            )
        seen = self.rewarded > 0
        return np.where(seen, mean - spread, -np.inf), np.where(seen, mean + spread, np.inf)

    def residual_bounds(
        self,
        rates: RateMemory,
        constraints: Constraints,
        term: float,
        beta: float,
        margin: float,
        monotone: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper residual bounds [B, M, I], margin included; infinite where nothing was seen."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = rates.total / rates.seen
            own = radius(mean * (1.0 - mean), rates.seen, term, beta)
            everybody = self.accepted / self.count
            spread = radius(everybody * (1.0 - everybody), self.count, term, beta)
        known = rates.seen > 0
        low = np.clip(np.where(known, mean - own, 0.0), 0.0, 1.0)
        high = np.clip(np.where(known, mean + own, 1.0), 0.0, 1.0)
        if monotone:
            low, high = carried(low, high)
        groups = np.arange(rates.levels.shape[1])
        low, high = low[:, groups, rates.levels], high[:, groups, rates.levels]
        seen = (known | monotone)[:, groups, rates.levels]
        some = self.count > 0
        all_low = np.clip(np.where(some, everybody - spread, 0.0), 0.0, 1.0)
        all_high = np.clip(np.where(some, everybody + spread, 1.0), 0.0, 1.0)
        eps, gap = constraints.eps, constraints.gap
        pairs: list[tuple[FloatArray, FloatArray, NDArray[np.bool_]]] = []
        if gap == "to-overall":
            for a in groups.tolist():
                both = seen[:, :, a] & some
                pairs.append((low[:, :, a] - all_high - eps, high[:, :, a] - all_low - eps, both))
                pairs.append((all_low - high[:, :, a] - eps, all_high - low[:, :, a] - eps, both))
        for a, b in constraints.pairs:
            both = seen[:, :, a] & seen[:, :, b]
            factor = 1.0 - eps if gap == "ratio" else 1.0
            least = factor * low[:, :, a] - high[:, :, b]
            most = factor * high[:, :, a] - low[:, :, b]
            if gap == "abs":
                least, most = np.maximum(np.maximum(least, -most), 0.0), np.maximum(most, -least)
            slack = 0.0 if gap == "ratio" else eps
            pairs.append((least - slack, most - slack, both))
        if constraints.rho_min is not None:
            pairs.append((constraints.rho_min - all_high, constraints.rho_min - all_low, some))
        if constraints.rho_max is not None:
            pairs.append((all_low - constraints.rho_max, all_high - constraints.rho_max, some))
        lower = np.stack([np.where(ok, bound, -np.inf) for bound, _, ok in pairs], axis=2) + margin
        upper = np.stack([np.where(ok, bound, np.inf) for _, bound, ok in pairs], axis=2) + margin
        return lower, upper
