"""Grid learners for B seeds at once: Optimistic Feasible Search and its two baselines.

Every learner keeps, for each of M arms, the number of plays, the mean reward, and for each of I
residuals a count and a mean of its own (a group absent from a batch leaves no residual). The learners
differ only in the rule that picks an arm from these.

Source: W. Du, "Optimistic Feasible Search for Closed-Loop Fair Threshold Decision-Making",
arXiv:2512.22313, abstract: "a grid of thresholds with confidence bounds on reward and residuals"; the largest
optimistic reward among thresholds that look feasible, else the smallest optimistic violation. Radii,
scales and tie rules are our own.
"""

from __future__ import annotations

import math
from collections import deque
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.config import (
    BanditConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.errors import OfsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

TIE = 1e-12
"""Scores closer than this are a tie: they differ by less than the rounding of the sums behind them."""


class Reason(IntEnum):
    """Why an arm was played."""

    INIT = 0
    FEASIBLE_OPTIMISTIC = 1
    LEAST_VIOLATION = 2
    REPROBE = 3
    SAFE = 4
    HOLD = 5

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


def log_term(n_arms: int, n_residuals: int, horizon: float, delta: float) -> float:
    """Return ln(4 M (I + 1) T / delta), the union bound behind every radius."""
    return math.log(4.0 * n_arms * (n_residuals + 1) * horizon / delta)


def first_sweep(order: str, n_arms: int, rngs: list[np.random.Generator], n_items: int) -> IntArray:
    """Return the order in which unplayed arms are tried, int array [B, M]."""
    ascending = np.arange(n_arms)
    if order == "random":
        if len(rngs) != n_items:
            raise OfsError(f"order 'random' needs one generator an item ({n_items}), got {len(rngs)}")
        return np.stack([rng.permutation(n_arms) for rng in rngs])
    return np.tile(ascending[::-1] if order == "strictest-first" else ascending, (n_items, 1))


def pick(score: FloatArray, worst: FloatArray, plays: FloatArray) -> IntArray:
    """Return each row's best arm, int array [B]: ties by smaller worst bound, fewer plays, lower index.

    Arguments: score [B, M], larger is better, -inf where not eligible; worst: max_i lower residual bound
    [B, M]; plays [B, M].
    """
    best = score.max(axis=1, keepdims=True)
    tied = score >= best - TIE
    chosen: IntArray = tied.argmax(axis=1)
    many = np.flatnonzero(tied.sum(axis=1) > 1)
    if len(many):
        candidates = tied[many]
        key = np.where(candidates, worst[many], np.inf)
        candidates &= key <= key.min(axis=1, keepdims=True) + TIE
        key = np.where(candidates, plays[many], np.inf)
        candidates &= key <= key.min(axis=1, keepdims=True)
        chosen[many] = candidates.argmax(axis=1)
    return chosen


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
        self, arm: IntArray, reward: FloatArray, residuals: FloatArray, weight: FloatArray | float = 1.0
    ) -> None:
        """Take in one round: arm [B], reward [B], residuals [B, I], weight [B] of the batch.

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
        wr = w[:, None] * present
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

    def _refresh_at(self, rows: IntArray, arm: IntArray) -> None:
        rewarded = self.rewarded[rows, arm]
        seen = self.seen[rows, arm]
        width = self.width
        with np.errstate(divide="ignore", invalid="ignore"):
            upper = self.reward_sum[rows, arm] / rewarded + self.reward_scale * width / np.sqrt(rewarded)
            lower = (
                self.residual_sum[rows, arm] / seen
                + self.margin
                - self.residual_scales * width / np.sqrt(seen)
            )
        self.upper_reward[rows, arm] = np.where(rewarded > 0, upper, np.inf)
        lower = np.where(seen > 0, lower, -np.inf)
        self.lower[rows, arm] = lower
        self.worst[rows, arm] = lower.max(axis=1)
        self.violation[rows, arm] = np.maximum(lower, 0.0).sum(axis=1)

    def _refresh(self) -> None:
        width = self.width
        with np.errstate(divide="ignore", invalid="ignore"):
            upper = self.reward_sum / self.rewarded + self.reward_scale * width / np.sqrt(self.rewarded)
            lower = (
                self.residual_sum / self.seen
                + self.margin
                - self.residual_scales * width / np.sqrt(self.seen)
            )
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
            value = self.mean_residuals + self.margin + self.residual_scales * self.width / np.sqrt(self.seen)
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


class GridLearner:
    """What the three learners share: the first sweep, the statistics, the recommendation."""

    def __init__(
        self,
        n_items: int,
        n_arms: int,
        horizon: int,
        config: BanditConfig,
        *,
        reward_scale: float,
        residual_scales: FloatArray,
        rngs: list[np.random.Generator] | None = None,
    ) -> None:
        self.config = config
        self.statistics = ArmStatistics(
            n_items, n_arms, horizon, config, reward_scale=reward_scale, residual_scales=residual_scales
        )
        self._sweep = first_sweep(config.order, n_arms, rngs or [], n_items)
        self._swept = False
        self.reason = np.zeros(n_items, dtype=np.int8)

    def select(self) -> IntArray:
        """Return the arm to play for each item, int array [B]."""
        s = self.statistics
        if self._swept:
            return self._choose()
        fresh = np.take_along_axis(s.plays <= 0.0, self._sweep, axis=1)
        untried = np.asarray(fresh.any(axis=1))
        next_arm: IntArray = np.take_along_axis(self._sweep, fresh.argmax(axis=1)[:, None], axis=1)[:, 0]
        if untried.all():
            self.reason = np.full(s.n_items, Reason.INIT, dtype=np.int8)
            return next_arm
        # With a window or a detector arms can fall back to unplayed, so the question is asked every round.
        self._swept = not (untried.any() or self._forgets)
        arm = self._choose()
        self.reason = np.where(untried, Reason.INIT, self.reason).astype(np.int8)
        return np.where(untried, next_arm, arm)

    @property
    def _forgets(self) -> bool:
        """Whether an arm that was played can become unplayed again."""
        return self.statistics.window > 0

    def update(self, arm: IntArray, reward: FloatArray, residuals: FloatArray) -> None:
        """Take in one round: arm [B], reward [B], residuals [B, I] with NaN where not seen."""
        self.statistics.add(arm, reward, residuals)

    def update_late(self, arm: IntArray, reward: FloatArray) -> None:
        """Take in rewards whose labels arrived late: arm [B] they belong to (-1: none), reward [B]."""
        self.statistics.add_reward(arm, reward)

    def recommend(self) -> IntArray:
        """Return the arm to deploy, int array [B]."""
        return self.statistics.recommend()

    def _choose(self) -> IntArray:
        raise NotImplementedError


class Unconstrained(GridLearner):
    """Upper confidence bound on reward, constraints ignored."""

    config: UnconstrainedConfig

    def _choose(self) -> IntArray:
        s = self.statistics
        self.reason = np.full(s.n_items, Reason.FEASIBLE_OPTIMISTIC, dtype=np.int8)
        return pick(s.upper_reward, s.worst, s.plays)


class PrimalDual(GridLearner):
    """Optimistic reward minus multipliers times residual bounds (or means); multipliers follow the residuals."""

    config: PrimalDualConfig

    def __init__(
        self, n_items: int, n_arms: int, horizon: int, config: PrimalDualConfig, **scales: object
    ) -> None:
        super().__init__(n_items, n_arms, horizon, config, **scales)  # type: ignore[arg-type]
        self.multipliers = np.zeros((n_items, self.statistics.n_residuals))

    def _choose(self) -> IntArray:
        s = self.statistics
        residual = s.lower if self.config.residual == "optimistic" else s.mean_residuals + s.margin
        penalty = (self.multipliers[:, None, :] * np.where(np.isfinite(residual), residual, 0.0)).sum(axis=2)
        self.reason = np.full(s.n_items, Reason.FEASIBLE_OPTIMISTIC, dtype=np.int8)
        return pick(s.upper_reward - penalty, s.worst, s.plays)

    def update(self, arm: IntArray, reward: FloatArray, residuals: FloatArray) -> None:
        super().update(arm, reward, residuals)
        push = np.where(np.isnan(residuals), 0.0, residuals + self.config.margin)
        self.multipliers = np.clip(self.multipliers + self.config.step * push, 0.0, self.config.ceiling)


class OptimisticFeasible(GridLearner):
    """Optimistic Feasible Search.

    Arms whose lower residual bounds are all at or below 0 look feasible. Among them, the largest upper reward bound;
    if there is none, the smallest sum of positive lower residual bounds.
    """

    config: OptimisticFeasibleConfig

    def __init__(
        self,
        n_items: int,
        n_arms: int,
        horizon: int,
        config: OptimisticFeasibleConfig,
        *,
        lattice: tuple[int, ...] | None = None,
        **scales: object,
    ) -> None:
        if config.pessimistic and config.safe_arm >= n_arms:
            raise OfsError(f"safe_arm must be an arm index below {n_arms}, got {config.safe_arm}")
        super().__init__(n_items, n_arms, horizon, config, **scales)  # type: ignore[arg-type]
        self._lattice = lattice or (n_arms,)
        self._decisions = 0
        self._held: IntArray | None = None
        self._held_for = 0
        self._current = np.zeros(n_items, dtype=np.int64)
        self._swept = config.pessimistic  # a sweep would play arms that nobody called safe
        self._alarms = np.zeros(n_items, dtype=np.int64)
        self._cusum = np.zeros((2, n_items, self.statistics.n_residuals))
        self._neighbour_moves = [(axis, step) for axis in range(len(self._lattice)) for step in (-1, 1)]

    def select(self) -> IntArray:
        if self._held is not None and self._held_for < self.config.block:
            self.reason = np.full(len(self._held), Reason.HOLD, dtype=np.int8)
            return self._held
        arm = super().select()
        self._decisions += 1
        if self.config.block > 1:
            self._held, self._held_for = arm, 0
        return arm

    def update(self, arm: IntArray, reward: FloatArray, residuals: FloatArray) -> None:
        if self.config.block > 1:
            self._held_for += 1
            # The first half of a block is played while the state still remembers the arm before.
            if self._held_for <= self.config.block // 2:
                return
        if self.config.detect > 0.0:
            self._watch(arm, residuals)
        super().update(arm, reward, residuals)

    @property
    def alarms(self) -> IntArray:
        """Alarms raised by the change detector so far, int array [B]."""
        return self._alarms

    @property
    def _forgets(self) -> bool:
        return super()._forgets or (self.config.detect > 0.0 and not self.config.pessimistic)

    def _watch(self, arm: IntArray, residuals: FloatArray) -> None:
        """Two-sided CUSUM of the played arm's residuals around their mean so far; forget the item on an alarm."""
        s = self.statistics
        rows = np.arange(s.n_items)
        seen = s.seen[rows, arm]
        with np.errstate(invalid="ignore", divide="ignore"):
            surprise = (residuals - s.residual_sum[rows, arm] / seen) / s.residual_scales
        # A young mean is itself noise; ten observations leave its error below a third of one batch's.
        surprise = np.where((seen >= 10) & ~np.isnan(surprise), surprise, 0.0)
        drift = np.stack([surprise, -surprise]) - self.config.detect_slack
        self._cusum = np.maximum(self._cusum + drift, 0.0)
        alarm = np.flatnonzero((self._cusum > self.config.detect).any(axis=(0, 2)))
        if len(alarm):
            s.forget(alarm)
            self._cusum[:, alarm] = 0.0
            self._alarms[alarm] += 1

    def neighbour(self, arm: IntArray, axis: int, step: int) -> IntArray:
        """Return the arm one step along one axis of the lattice, the arm itself at the edge."""
        place = list(np.unravel_index(arm, self._lattice))
        place[axis] = np.clip(place[axis] + step, 0, self._lattice[axis] - 1)
        value: IntArray = np.ravel_multi_index(tuple(place), self._lattice).astype(np.int64)
        return value

    def _choose(self) -> IntArray:
        arm = self._pessimistic() if self.config.pessimistic else self._optimistic()
        every = self.config.reprobe_every
        if every:
            phase = self._decisions % every
            if phase == 0:
                self._current = arm.copy()
            elif phase <= len(self._neighbour_moves):
                probe = self.neighbour(self._current, *self._neighbour_moves[phase - 1])
                self.reason = np.where(probe != self._current, Reason.REPROBE, self.reason).astype(np.int8)
                arm = np.where(probe != self._current, probe, arm)
        return arm

    def _optimistic(self) -> IntArray:
        s = self.statistics
        looks_feasible = s.worst <= 0.0
        any_feasible = np.asarray(looks_feasible.any(axis=1))
        score = np.where(looks_feasible, s.upper_reward, -np.inf)
        if not any_feasible.all():
            score = np.where(any_feasible[:, None], score, -s.violation)
        self.reason = np.where(any_feasible, Reason.FEASIBLE_OPTIMISTIC, Reason.LEAST_VIOLATION).astype(
            np.int8
        )
        return pick(score, s.worst, s.plays)

    def _pessimistic(self) -> IntArray:
        s = self.statistics
        certified = s.certified()
        certified[:, self.config.safe_arm] = True
        upper = np.where(np.isfinite(s.upper_reward), s.upper_reward, -np.inf)
        upper[:, self.config.safe_arm] = np.where(
            s.plays[:, self.config.safe_arm] > 0, upper[:, self.config.safe_arm], 0.0
        )
        arm = pick(np.where(certified, upper, -np.inf), s.worst, s.plays)
        only_safe = certified.sum(axis=1) == 1
        self.reason = np.where(only_safe, Reason.SAFE, Reason.FEASIBLE_OPTIMISTIC).astype(np.int8)
        if self._decisions % self.config.probe_every == self.config.probe_every - 1:
            frontier = self._frontier(certified) & (s.worst <= 0.0)
            rows = np.flatnonzero(frontier.any(axis=1))
            if len(rows):
                arm[rows] = np.where(frontier[rows], s.plays[rows], np.inf).argmin(axis=1)
                self.reason[rows] = Reason.REPROBE
        return arm

    def _frontier(self, certified: BoolArray) -> BoolArray:
        """Return the uncertified lattice neighbours of certified arms, bool array [B, M]."""
        cells = certified.reshape(len(certified), *self._lattice)
        grown = cells.copy()
        for axis in range(1, cells.ndim):
            ahead = [slice(None)] * cells.ndim
            behind = [slice(None)] * cells.ndim
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            grown[tuple(ahead)] |= cells[tuple(behind)]
            grown[tuple(behind)] |= cells[tuple(ahead)]
        frontier: BoolArray = grown.reshape(certified.shape) & ~certified
        return frontier
