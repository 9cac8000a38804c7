"""One item at a time, fast: the search with scalar updates in place of arrays of one row.

Numpy calls on one-row arrays cost a microsecond each, and an update makes fifty of them. The statistics are the same
object as for many items, so every option works; the common ones take the short way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.arm_statistics import ArmStatistics
from sfumato_ofs.learners import TIE, Reason, pick
from sfumato_ofs.search import OptimisticFeasible

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def add_one(
    s: ArmStatistics, j: int, reward: float, residuals: list[float], weight: float, weights: list[float]
) -> None:
    """Do what `s.add` does for one item: arm j, NaN where not seen, `weights` of the residuals. Not for windows."""
    s.round += 1
    if s.discount < 1.0:
        for total in (s.plays, s.rewarded, s.reward_sum, s.seen, s.residual_sum):
            total *= s.discount
    s.plays[0, j] += weight
    if reward == reward:
        s.rewarded[0, j] += weight
        s.reward_sum[0, j] += weight * reward
    for i, g in enumerate(residuals):
        if g == g:
            s.seen[0, j, i] += weights[i]
            s.residual_sum[0, j, i] += weights[i] * g
    if s._all_change:
        _refresh_row(s)
        return
    width = s.width
    rewarded = s.rewarded.item(0, j)
    if rewarded > 0:
        radius = s.reward_scale * width / math.sqrt(rewarded) + s.bias / rewarded
        s.upper_reward[0, j] = s.reward_sum.item(0, j) / rewarded + radius
    worst, violation = -math.inf, 0.0
    for i, scale in enumerate(s.residual_scales.tolist()):
        seen = s.seen.item(0, j, i)
        if seen > 0:
            radius = scale * width / math.sqrt(seen) + s.bias / seen
            low = s.residual_sum.item(0, j, i) / seen + s.margin - radius
            s.lower[0, j, i] = low
            worst = max(worst, low)
            violation += max(low, 0.0)
    s.worst[0, j] = worst
    s.violation[0, j] = violation


def _refresh_row(s: ArmStatistics) -> None:
    width = s.width
    with np.errstate(divide="ignore", invalid="ignore"):
        root = 1.0 / np.sqrt(s.rewarded[0])
        upper = ((s.reward_sum[0] + s.bias) * root + s.reward_scale * width) * root
        seen = 1.0 / np.sqrt(s.seen[0])
        lower = ((s.residual_sum[0] - s.bias) * seen - s.residual_scales * width) * seen + s.margin
    np.copyto(s.upper_reward[0], np.where(s.rewarded[0] > 0, upper, np.inf))
    np.copyto(s.lower[0], np.where(s.seen[0] > 0, lower, -np.inf))
    np.max(s.lower[0], axis=1, out=s.worst[0])
    np.sum(np.maximum(s.lower[0], 0.0), axis=1, out=s.violation[0])


class StreamSearch(OptimisticFeasible):
    """Optimistic Feasible Search for one stream of batches.

    With bounds that hold at any time every bound moves every round. They are then kept as means and roots of counts and
    worked out when the next choice needs them.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        c, s = self.config, self.statistics
        self._plain = c.block == 1 and c.detect == c.loss_cap == 0.0 and not (c.needs_rates or c.window)
        self._equal = c.gap_weight == "equal"
        self._lazy = self._plain and c.anytime and c.discount == 1.0 and c.bias == 0.0
        # An unseen mean is infinitely hopeful and its radius 0, so that no bound needs a case of its own.
        self._score, self._eligible = np.zeros(s.n_arms), np.zeros(s.n_arms, dtype=bool)
        self._reward_mean, self._reward_root = np.full(s.n_arms, np.inf), np.zeros(s.n_arms)
        self._residual_mean = np.full((s.n_arms, s.n_residuals), -np.inf)
        self._residual_root = np.zeros((s.n_arms, s.n_residuals))

    def update_one(
        self,
        j: int,
        reward: float,
        residuals: list[float],
        rates: FloatArray | None = None,
        weight: float = 1.0,
        weights: list[float] | None = None,
        people: FloatArray | None = None,
        batch: tuple[float, float] | None = None,
    ) -> bool:
        """Take in one batch under arm j, `weights` being those of its residuals, `batch` its overall acceptance rate and number
        of people; return whether it was learned from.

        Its reward, when it comes later, is for `add_late_reward`.
        """
        if weights is None or self._equal:
            weights = [weight] * len(residuals)
        if self._lazy:
            s = self.statistics
            s.round += 1
            s.plays[0, j] += weight
            if reward == reward:
                s.rewarded[0, j] += weight
                s.reward_sum[0, j] += weight * reward
                self._note_reward(j)
            for i, g in enumerate(residuals):
                if g == g and weights[i] > 0.0:
                    s.seen[0, j, i] = n = s.seen.item(0, j, i) + weights[i]
                    s.residual_sum[0, j, i] = total = s.residual_sum.item(0, j, i) + weights[i] * g
                    self._residual_mean[j, i] = total / n + s.margin
                    self._residual_root[j, i] = 1.0 / math.sqrt(n)
        elif self._plain:
            add_one(self.statistics, j, reward, residuals, weight, weights)
        else:
            row, size = (None if x is None else x[None] for x in (rates, people))
            self.update(
                np.array([j]), np.array([reward]), np.array([residuals]), row, weight, np.array([weights]), size,
                None if batch is None else (np.array(batch[:1]), np.array(batch[1:])),
            )  # fmt: skip
            self._late.clear()  # batches here have numbers: whether one was learned from is kept with it
            return self.config.block == 1 or self._held_for > self.config.block // 2
        return True

    def add_late_reward(
        self,
        j: int,
        reward: float,
        weight: float,
        learned: bool = True,
        batch: tuple[float, float] | None = None,
    ) -> None:
        """Take in the reward of an earlier batch under arm j, now that its labels are complete.

        A batch that was not learned from (`update_one`) counts towards the loss cap alone.
        """
        arm, paid = np.array([j]), np.array([reward])
        self._keep_losses(arm, paid, weight)
        if not learned:
            return
        self.statistics.add_reward(arm, paid, weight)
        if self._persons is not None and batch is not None:
            self._persons.add_reward(arm, paid, np.array(batch[:1]), np.array(batch[1:]))
        if self._lazy:
            self._note_reward(j)

    def _note_reward(self, j: int) -> None:
        n = self.statistics.rewarded.item(0, j)
        self._reward_mean[j] = self.statistics.reward_sum.item(0, j) / n
        self._reward_root[j] = 1.0 / math.sqrt(n)

    def settle(self) -> None:
        """Work out the bounds of this round, where they are kept as means and roots."""
        if not self._lazy:
            return
        s = self.statistics
        width = s.width
        upper, lower, worst = s.upper_reward[0], s.lower[0], s.worst[0]
        np.multiply(self._reward_root, s.reward_scale * width, out=upper)
        upper += self._reward_mean
        np.multiply(self._residual_root, s.residual_scales * width, out=lower)
        np.subtract(self._residual_mean, lower, out=lower)
        np.copyto(worst, lower[:, 0])
        for i in range(1, s.n_residuals):
            np.maximum(worst, lower[:, i], out=worst)

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        self.settle()
        return super().bounds()

    def _optimistic(self) -> IntArray:
        if self._rates is not None:
            return super()._optimistic()
        self.settle()
        s = self.statistics
        score, eligible = self._score, self._eligible
        np.less_equal(s.worst[0], 0.0, out=eligible)
        np.logical_and(eligible, self.allowed, out=eligible)
        score.fill(-math.inf)
        np.copyto(score, s.upper_reward[0], where=eligible)
        j = int(score.argmax())
        best = score.item(j)
        reason = Reason.FEASIBLE_OPTIMISTIC
        if best == -math.inf:
            violation = np.maximum(s.lower[0], 0.0).sum(axis=1) if self._lazy else s.violation[0]
            score = np.where(self.allowed, -violation, -np.inf)
            j = int(score.argmax())
            best = score.item(j)
            reason = Reason.LEAST_VIOLATION
        self.reason[0] = reason
        if np.count_nonzero(score >= best - TIE) > 1:
            return pick(score[None], s.worst, s.plays)
        return np.array([j])
