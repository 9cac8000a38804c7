"""Optimistic Feasible Search, with every option.

Arms whose lower residual bounds are all at or below 0 look feasible. Among them the largest upper reward bound is
played; if there is none, the smallest sum of positive lower residual bounds.

Source: W. Du, "Optimistic Feasible Search for Closed-Loop Fair Threshold Decision-Making", arXiv:2512.22313,
abstract. The options (block, re-probe, window, discount, pessimism, monotone bounds, corridor, loss cap, change
detection) are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import GridLearner, Reason, pick
from sfumato_ofs.monotone import RateMemory

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class OptimisticFeasible(GridLearner):
    """Optimistic Feasible Search for B items at once.

    Arguments:
        n_items, n_arms, horizon: B, M and T.
        config: bounds and options.
        reward_scale, residual_scales [I]: sub-Gaussian proxies of one batch.
        lattice: arms along each axis, for neighbours; default (M,).
        constraints, levels [M, G]: needed by `monotone`.
        rngs: one generator an item, needed by `order = random`.
        allowed, incumbent: corridor of playable arms and the arm in use before; see `corridor_of`.
    """

    config: OptimisticFeasibleConfig

    def __init__(
        self,
        n_items: int,
        n_arms: int,
        horizon: int,
        config: OptimisticFeasibleConfig,
        *,
        reward_scale: float,
        residual_scales: FloatArray,
        lattice: tuple[int, ...] | None = None,
        constraints: Constraints | None = None,
        levels: IntArray | None = None,
        rngs: list[np.random.Generator] | None = None,
        allowed: BoolArray | None = None,
        incumbent: int = -1,
    ) -> None:
        if config.pessimistic and config.safe_arm >= n_arms:
            raise OfsError(f"safe_arm must be an arm index below {n_arms}, got {config.safe_arm}")
        if config.monotone and (constraints is None or levels is None):
            raise OfsError(
                "monotone needs constraints and levels, which say how rates depend on arms; got None"
            )
        if config.loss_cap > 0.0 and incumbent < 0:
            raise OfsError("loss_cap needs incumbent, the arm that losses are measured against; got -1")
        super().__init__(
            n_items,
            n_arms,
            horizon,
            config,
            reward_scale=reward_scale,
            residual_scales=residual_scales,
            rngs=rngs,
            allowed=allowed,
            incumbent=incumbent,
        )
        self._lattice = lattice or (n_arms,)
        self._constraints = constraints
        self._rates = RateMemory(n_items, levels) if config.monotone and levels is not None else None
        self._decisions = 0
        self._held: IntArray | None = None
        self._held_for = 0
        self._current = np.zeros(n_items, dtype=np.int64)
        self._swept = config.pessimistic  # a sweep would play arms that nobody called safe
        self._alarms = np.zeros(n_items, dtype=np.int64)
        self._cusum = np.zeros((2, n_items, self.statistics.n_residuals))
        self._neighbour_moves = [(axis, step) for axis in range(len(self._lattice)) for step in (-1, 1)]
        self.shortfall = np.zeros(n_items)

    def select(self) -> IntArray:
        if self._held is not None and self._held_for < self.config.block:
            self.reason = np.full(len(self._held), Reason.HOLD, dtype=np.int8)
            return self._held
        arm = super().select()
        if self.config.loss_cap > 0.0:
            arm = self._cap(arm)
        self._decisions += 1
        if self.config.block > 1:
            self._held, self._held_for = arm, 0
        return arm

    def update(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        rates: FloatArray | None = None,
        weight: FloatArray | float = 1.0,
    ) -> None:
        """Take in one round: arm [B], reward [B], residuals [B, I], group rates [B, G] where seen, weight [B]."""
        if self.config.block > 1:
            self._held_for += 1
            # The first half of a block is played while the state still remembers the arm before.
            if self._held_for <= self.config.block // 2:
                return
        if self.config.detect > 0.0:
            self._watch(arm, residuals)
        if self._rates is not None:
            if rates is None:
                raise OfsError("monotone needs rates, the groups' acceptance rates of the round; got None")
            self._rates.add(arm, rates, discount=self.config.discount)
        self.statistics.add(arm, reward, residuals, weight)
        if self.config.loss_cap > 0.0:
            self._count_losses(arm, reward)

    def update_late(self, arm: IntArray, reward: FloatArray) -> None:
        super().update_late(arm, reward)
        if self.config.loss_cap > 0.0:
            self._count_losses(np.maximum(arm, 0), np.where(arm >= 0, reward, np.nan))

    @property
    def alarms(self) -> IntArray:
        """Alarms raised by the change detector so far, int array [B]."""
        return self._alarms

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper residual bounds [B, M, I], margin included and tightened where `monotone` is set."""
        s = self.statistics
        if self._rates is None or self._constraints is None:
            return s.lower, s.upper
        radius = float(s.residual_scales[0]) * s.width
        return self._rates.tighten(s.lower, s.upper, self._constraints, radius, s.margin)

    def certified(self) -> BoolArray:
        """Return which arms are feasible by their upper residual bounds, bool array [B, M]."""
        ok: BoolArray = np.asarray((self.bounds()[1] <= 0.0).all(axis=2))
        return ok

    def neighbour(self, arm: IntArray, axis: int, step: int) -> IntArray:
        """Return the arm one step along one axis of the lattice; the arm itself at the edge or off the corridor."""
        place = list(np.unravel_index(arm, self._lattice))
        place[axis] = np.clip(place[axis] + step, 0, self._lattice[axis] - 1)
        there = np.ravel_multi_index(tuple(place), self._lattice).astype(np.int64)
        value: IntArray = np.where(self.allowed[there], there, arm)
        return value

    @property
    def _forgets(self) -> bool:
        return super()._forgets or (self.config.detect > 0.0 and not self.config.pessimistic)

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
        worst, violation = s.worst, s.violation
        if self._rates is not None:
            lower, _ = self.bounds()
            worst, violation = lower.max(axis=2), np.maximum(lower, 0.0).sum(axis=2)
        looks_feasible = (worst <= 0.0) & self.allowed
        any_feasible = np.asarray(looks_feasible.any(axis=1))
        score = np.where(looks_feasible, s.upper_reward, -np.inf)
        if not any_feasible.all():
            least = np.where(self.allowed, -violation, -np.inf)
            score = np.where(any_feasible[:, None], score, least)
        reason = np.where(any_feasible, Reason.FEASIBLE_OPTIMISTIC, Reason.LEAST_VIOLATION)
        self.reason = reason.astype(np.int8)
        return pick(score, worst, s.plays)

    def _pessimistic(self) -> IntArray:
        s, safe = self.statistics, self.config.safe_arm
        lower, upper_residual = self.bounds()
        certified = np.asarray((upper_residual <= 0.0).all(axis=2)) & self.allowed
        certified[:, safe] = True
        upper = np.where(np.isfinite(s.upper_reward), s.upper_reward, -np.inf)
        # An unplayed safe arm must still be eligible, below every arm that has been seen.
        upper[:, safe] = np.where(s.rewarded[:, safe] > 0, upper[:, safe], -1e300)
        worst = lower.max(axis=2)
        arm = pick(np.where(certified, upper, -np.inf), worst, s.plays)
        only_safe = certified.sum(axis=1) == 1
        self.reason = np.where(only_safe, Reason.SAFE, Reason.FEASIBLE_OPTIMISTIC).astype(np.int8)
        if self._decisions % self.config.probe_every == self.config.probe_every - 1:
            frontier = self._frontier(certified) & (worst <= 0.0) & self.allowed
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

    def _count_losses(self, arm: IntArray, reward: FloatArray) -> None:
        """Add what a round earned less than the incumbent's mean; signed, so that noise averages out."""
        s = self.statistics
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = s.reward_sum[:, self.incumbent] / s.rewarded[:, self.incumbent]
        loss = np.where(arm == self.incumbent, 0.0, mean - reward)
        self.shortfall += np.nan_to_num(loss)

    def _cap(self, arm: IntArray) -> IntArray:
        """Once the cap is spent, play the incumbent or an arm that is certified and surely no worse."""
        spent = self.shortfall > self.config.loss_cap
        if not spent.any():
            return arm
        s = self.statistics
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = s.mean_reward
            lower_reward = mean - s.reward_scale * s.width / np.sqrt(s.rewarded)
        sure = self.certified() & self.allowed & (lower_reward >= mean[:, [self.incumbent]])
        best = np.where(sure, np.nan_to_num(mean, nan=-np.inf), -np.inf).argmax(axis=1)
        settled = np.where(sure.any(axis=1), best, self.incumbent)
        self.reason = np.where(spent, Reason.LOSS_CAP, self.reason).astype(np.int8)
        return np.where(spent, settled, arm)

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
            if self._rates is not None:
                self._rates.seen[alarm] = 0.0
                self._rates.total[alarm] = 0.0
            self._cusum[:, alarm] = 0.0
            self._alarms[alarm] += 1


def corridor_of(arms: FloatArray, tau: float, width: float | None) -> tuple[int, BoolArray]:
    """Return the incumbent's arm index and which arms lie within `width` of it in every group's threshold."""
    from sfumato_ofs.observed import arm_of

    incumbent = arm_of(arms, tau)
    distance = np.abs(arms - arms[incumbent]).max(axis=1)
    return incumbent, distance <= (np.inf if width is None else width) + 1e-12
