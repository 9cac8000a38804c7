"""Counts, sums and confidence bounds of M arms for B items: what every grid learner knows."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.config import BanditConfig

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def log_term(n_arms: int, n_residuals: int, horizon: float, delta: float) -> float:
    """Return ln(4 M (I + 1) T / delta), the union bound behind every radius."""
    return math.log(4.0 * n_arms * (n_residuals + 1) * horizon / delta)


class ArmStatistics:
    """Counts, sums and confidence bounds of M arms and I residuals for B items.

    Attributes (float arrays): plays, rewarded (plays whose reward is known), reward_sum, upper_reward [B, M];
    seen, residual_sum, lower, upper [B, M, I]; worst, violation [B, M] (max_i lower, sum_i max(lower, 0)); the
    bounds include the margin.

    Notes: an update costs O(B I) while bounds of other arms cannot change, else O(B M I) (discount, window,
    anytime).
    """

    def __init__(
        self,
        n_items: int,
        n_arms: int,
        horizon: int,
        config: BanditConfig,
        *,
        reward_scale: float,
        residual_scales: FloatArray,
    ) -> None:
        n_residuals = len(residual_scales)
        self.n_items, self.n_arms, self.n_residuals = n_items, n_arms, n_residuals
        self.horizon = horizon
        self.config = config
        self.reward_scale = reward_scale
        self.residual_scales = np.asarray(residual_scales, dtype=np.float64)
        self.margin = float(getattr(config, "margin", 0.0))
        self.discount = float(getattr(config, "discount", 1.0))
        self.window = int(getattr(config, "window", 0))
        self.bias = float(getattr(config, "bias", 0.0))
        self.round = 0
        self.plays = np.zeros((n_items, n_arms))
        self.rewarded = np.zeros((n_items, n_arms))
        self.reward_sum = np.zeros((n_items, n_arms))
        self.seen = np.zeros((n_items, n_arms, n_residuals))
        self.residual_sum = np.zeros((n_items, n_arms, n_residuals))
        self.upper_reward = np.full((n_items, n_arms), np.inf)
        self.lower = np.full((n_items, n_arms, n_residuals), -np.inf)
        self.worst = np.full((n_items, n_arms), -np.inf)
        self.violation = np.zeros((n_items, n_arms))
        self._rows = np.arange(n_items)
        self._all_change = self.discount < 1.0 or self.window > 0 or config.anytime
        self._ring: deque[tuple[int, tuple[NDArray[Any], ...]]] = deque()
        self._fixed_width = self._width(horizon)

    def _width(self, horizon: float) -> float:
        """Return beta sqrt(2 ln(4 M (I+1) T / delta)): a radius is this times scale / sqrt(count)."""
        term = log_term(self.n_arms, self.n_residuals, horizon, self.config.delta)
        return self.config.beta * math.sqrt(2.0 * term)

    @property
    def width(self) -> float:
        """The current radius of an arm with one observation of unit scale."""
        return self._width(max(self.round, 2) ** 2) if self.config.anytime else self._fixed_width

    def add(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        weight: FloatArray | float = 1.0,
        residual_weight: FloatArray | None = None,
    ) -> None:
        """Take in one round: arm [B], reward [B], residuals [B, I], weight [B] of the batch and [B, I] of its residuals.

        NaN means not seen: a residual of an absent group, a reward whose labels have yet to arrive (give it to
        `add_reward` later).
        """
        self.round += 1
        rows = self._rows
        if self.discount < 1.0:
            for total in (self.plays, self.rewarded, self.reward_sum, self.seen, self.residual_sum):
                total *= self.discount
        w = np.broadcast_to(np.asarray(weight, dtype=np.float64), (self.n_items,))
        known = w * ~np.isnan(reward)
        present = ~np.isnan(residuals)
        wr = (w[:, None] if residual_weight is None else residual_weight) * present
        value = np.where(present, residuals, 0.0) * wr
        entry = (arm.copy(), w.copy(), known, known * np.nan_to_num(reward), wr, value)
        self._accumulate(entry, 1.0)
        if self.window:
            self._ring.append((self.round, entry))
            self._expire()
        if self._all_change:
            self._refresh()
        else:
            self._refresh_at(rows, arm)

    def add_reward(self, arm: IntArray, reward: FloatArray, weight: FloatArray | float = 1.0) -> None:
        """Take in rewards that arrived late: arm [B] they belong to (-1: none), reward [B], weight [B].

        A late reward counts from its arrival: with a window or a discount it is as old as its arrival.
        """
        w = np.broadcast_to(np.asarray(weight, dtype=np.float64), (self.n_items,))
        rows = np.flatnonzero((arm >= 0) & ~np.isnan(reward))
        at = arm[rows]
        self.rewarded[rows, at] += w[rows]
        self.reward_sum[rows, at] += w[rows] * reward[rows]
        if self.window:
            late, none = np.zeros(self.n_items), np.zeros((self.n_items, self.n_residuals))
            late[rows] = w[rows]
            paid = late * np.nan_to_num(reward)
            self._ring.append(
                (self.round, (np.maximum(arm, 0), np.zeros(self.n_items), late, paid, none, none))
            )
        if self._all_change:
            self._refresh()
        else:
            self._refresh_at(rows, at)

    def _expire(self) -> None:
        """Take back what is older than the window."""
        while self._ring[0][0] <= self.round - self.window:
            self._accumulate(self._ring.popleft()[1], -1.0)
        # What is left of an arm whose rounds have all expired is rounding error, not evidence.
        for count, total in (
            (self.plays, None),
            (self.rewarded, self.reward_sum),
            (self.seen, self.residual_sum),
        ):
            empty = count < 1e-9
            count[empty] = 0.0
            if total is not None:
                total[empty] = 0.0

    def _accumulate(self, entry: tuple[NDArray[Any], ...], sign: float) -> None:
        arm, w, known, reward, seen, value = entry
        rows = self._rows
        self.plays[rows, arm] += sign * w
        self.rewarded[rows, arm] += sign * known
        self.reward_sum[rows, arm] += sign * reward
        self.seen[rows, arm] += sign * seen
        self.residual_sum[rows, arm] += sign * value

    def forget(self, rows: IntArray) -> None:
        """Drop all that is known of some items, as if they were new."""
        for total in (
            self.plays,
            self.rewarded,
            self.reward_sum,
            self.seen,
            self.residual_sum,
            self.violation,
        ):
            total[rows] = 0.0
        self.upper_reward[rows] = np.inf
        self.lower[rows] = -np.inf
        self.worst[rows] = -np.inf
        for _, (_, *columns) in self._ring:
            for column in columns:
                column[rows] = 0.0

    def radii(self, count: FloatArray, scale: FloatArray | float) -> FloatArray:
        """Return scale * width / sqrt(count) and the allowance bias / count; inf or NaN where count is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value: FloatArray = scale * self.width / np.sqrt(count)
            return value + self.bias / count if self.bias else value

    def _refresh_at(self, rows: IntArray, arm: IntArray) -> None:
        rewarded = self.rewarded[rows, arm]
        seen = self.seen[rows, arm]
        with np.errstate(divide="ignore", invalid="ignore"):
            upper = self.reward_sum[rows, arm] / rewarded + self.radii(rewarded, self.reward_scale)
            lower = self.residual_sum[rows, arm] / seen + self.margin - self.radii(seen, self.residual_scales)
        self.upper_reward[rows, arm] = np.where(rewarded > 0, upper, np.inf)
        lower = np.where(seen > 0, lower, -np.inf)
        self.lower[rows, arm] = lower
        self.worst[rows, arm] = lower.max(axis=1)
        self.violation[rows, arm] = np.maximum(lower, 0.0).sum(axis=1)

    def _refresh(self) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            upper = self.reward_sum / self.rewarded + self.radii(self.rewarded, self.reward_scale)
            lower = self.residual_sum / self.seen + self.margin - self.radii(self.seen, self.residual_scales)
        self.upper_reward = np.where(self.rewarded > 0, upper, np.inf)
        self.lower = np.where(self.seen > 0, lower, -np.inf)
        self.worst = self.lower.max(axis=2)
        self.violation = np.maximum(self.lower, 0.0).sum(axis=2)

    @property
    def mean_reward(self) -> FloatArray:
        """Mean reward by arm [B, M]; NaN where no reward is known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value: FloatArray = self.reward_sum / self.rewarded
        return value

    @property
    def mean_residuals(self) -> FloatArray:
        """Mean residuals by arm [B, M, I], margin not included; NaN where never seen."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value: FloatArray = self.residual_sum / self.seen
        return value

    @property
    def upper(self) -> FloatArray:
        """Upper residual bounds [B, M, I], margin included; inf where never seen."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.mean_residuals + self.margin + self.radii(self.seen, self.residual_scales)
        return np.where(self.seen > 0, value, np.inf)

    def certified(self) -> BoolArray:
        """Return which arms are feasible by their upper residual bounds, bool array [B, M]."""
        ok: BoolArray = np.asarray((self.upper <= 0.0).all(axis=2))
        return ok

    def recommend(self) -> IntArray:
        """Return the arm to deploy, int array [B].

        Among arms with mean residuals at or below 0 and at least 1% of the rounds, the best mean reward; if
        there is none, the most played arm.
        """
        total = self.plays.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            held = (np.nan_to_num(self.mean_residuals, nan=np.inf) + self.margin <= 0.0).all(axis=2)
        eligible = held & (self.plays >= 0.01 * total) & (self.plays > 0)
        best = np.where(eligible, np.nan_to_num(self.mean_reward, nan=-np.inf), -np.inf).argmax(axis=1)
        value: IntArray = np.where(eligible.any(axis=1), best, self.plays.argmax(axis=1))
        return value
