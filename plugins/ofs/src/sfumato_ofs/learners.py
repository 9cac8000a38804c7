"""Grid learners for B seeds at once: what they share, and the two baselines.

Every learner keeps, for each of M arms, the number of plays, the mean reward, and for each of I
residuals a count and a mean of its own (a group absent from a batch leaves no residual). The learners
differ only in the rule that picks an arm from these.

Optimistic Feasible Search itself is in `search`.
"""

from __future__ import annotations

import warnings
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.arm_statistics import ArmStatistics
from sfumato_ofs.config import (
    BanditConfig,
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
    LOSS_CAP = 6
    INCUMBENT = 7
    UNSEEN_GROUP = 8

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {reason: reason.name.lower().replace("_", "-") for reason in Reason}


def first_sweep(
    order: str,
    n_arms: int,
    rngs: list[np.random.Generator],
    n_items: int,
    incumbent: int = -1,
    distance: FloatArray | None = None,
) -> IntArray:
    """Return the order in which unplayed arms are tried, int array [B, M].

    `distance` [M] from the incumbent decides `outward`; by default arms are neighbours by index.
    """
    ascending = np.arange(n_arms)
    if order == "outward":
        if incumbent < 0:
            raise OfsError("order 'outward' needs incumbent, the index of the arm to start from; got -1")
        away = np.abs(ascending - incumbent) if distance is None else np.round(distance, 9)
        return np.tile(np.argsort(away, kind="stable"), (n_items, 1))
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


class GridLearner:
    """What the three learners share: the first sweep, the statistics, the recommendation.

    Arguments:
        allowed: arms that may be played, bool [M]; None for all. A corridor around an incumbent.
        incumbent: index of the arm in use before learning began; -1 for none.
        distance: how far each arm lies from the incumbent [M], for the order `outward`.
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
        rngs: list[np.random.Generator] | None = None,
        allowed: BoolArray | None = None,
        incumbent: int = -1,
        distance: FloatArray | None = None,
    ) -> None:
        self.config = config
        self.incumbent = incumbent
        self.allowed = np.ones(n_arms, dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
        self.statistics = ArmStatistics(
            n_items, n_arms, horizon, config, reward_scale=reward_scale, residual_scales=residual_scales
        )
        if horizon < int(self.allowed.sum()) and not config.anytime:
            warnings.warn(
                f"horizon {horizon} is below the number of arms ({int(self.allowed.sum())}): the first sweep never ends. "
                "Use a coarser grid (n_thresholds) or more rounds.",
                stacklevel=3,
            )
        self._sweep = first_sweep(config.order, n_arms, rngs or [], n_items, incumbent, distance)
        self._swept = False
        self.reason = np.zeros(n_items, dtype=np.int8)

    def select(self) -> IntArray:
        """Return the arm to play for each item, int array [B]."""
        s = self.statistics
        if self._swept:
            return self._choose()
        fresh = np.take_along_axis((s.plays <= 0.0) & self.allowed, self._sweep, axis=1)
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

    def update(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        rates: FloatArray | None = None,
        weight: FloatArray | float = 1.0,
        residual_weight: FloatArray | None = None,
        people: FloatArray | None = None,
    ) -> None:
        """Take in one round: arm [B], reward [B], residuals [B, I] with NaN where not seen, weight [B].

        Arguments:
            rates, people: group rates and group sizes [B, G], for learners that use them.
            residual_weight: weights [B, I] of the residuals (`Constraints.weights`); those of the batch where None.
        """
        self.statistics.add(arm, reward, residuals, weight, self._gap_weights(residual_weight))

    def _gap_weights(self, given: FloatArray | None) -> FloatArray | None:
        return None if self.config.gap_weight == "equal" else given

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
        return pick(np.where(self.allowed, s.upper_reward, -np.inf), s.worst, s.plays)


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
        return pick(np.where(self.allowed, s.upper_reward - penalty, -np.inf), s.worst, s.plays)

    def update(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        rates: FloatArray | None = None,
        weight: FloatArray | float = 1.0,
        residual_weight: FloatArray | None = None,
        people: FloatArray | None = None,
    ) -> None:
        super().update(arm, reward, residuals, rates, weight, residual_weight, people)
        push = np.where(np.isnan(residuals), 0.0, residuals + self.config.margin)
        self.multipliers = np.clip(self.multipliers + self.config.step * push, 0.0, self.config.ceiling)
