"""The observed-scores rule for one stream of batches, with people counted once and groups by membership.

Unlike the simulated learner, groups here may intersect or be known only as probabilities, so the reward is estimated from
everybody and the rates from each group's own weights.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.batches import Batch
from sfumato_ofs.config import ObservedScoresConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.learners import Reason, pick
from sfumato_ofs.observed import cell_scores

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class ScoredStream:
    """Decayed counts by grid cell, and the best estimated reward among thresholds whose estimated residuals hold."""

    def __init__(
        self,
        grid: FloatArray,
        constraints: Constraints,
        config: ObservedScoresConfig,
        *,
        loss: float,
        allowed: BoolArray,
        incumbent: int,
        min_count: float,
    ) -> None:
        n_cells = len(grid) + 1
        self._grid, self._constraints, self._config = grid, constraints, config
        self._loss, self._allowed, self._incumbent, self._min_count = loss, allowed, incumbent, min_count
        self._claim = cell_scores(grid)
        self._counts = {
            "groups": np.zeros((constraints.n_groups, n_cells)),
            "people": np.zeros(n_cells),
            "labelled": np.zeros(n_cells),
            "good": np.zeros(n_cells),
        }
        self._plays = np.zeros(len(grid))
        # Sums of squared weights, of people by group and of everybody once: decayed counts overstate nothing when used as
        # n_eff = (sum w)^2 / sum w^2.
        self._squares = np.zeros((constraints.n_groups, constraints.n_groups))
        self._people_squares = 0.0

    def count(self, batch: Batch) -> dict[str, FloatArray]:
        """Return one batch's counts by cell: groups [G, K + 1], people, labelled and good [K + 1]; and squares [G, G], the
        sums over people of products of their memberships."""
        assert batch.scores is not None
        n_cells = len(self._grid) + 1
        cell = np.searchsorted(self._grid, batch.scores, side="right")
        known = batch.accepted & ~np.isnan(batch.labels)
        groups: FloatArray = np.stack(
            [np.bincount(cell, weights=w, minlength=n_cells).astype(np.float64) for w in batch.membership.T]
        )
        return {
            "groups": groups,
            "squares": batch.membership.T @ batch.membership,
            "people": np.bincount(cell, minlength=n_cells).astype(np.float64),
            "labelled": np.bincount(cell[known], minlength=n_cells).astype(np.float64),
            "good": np.bincount(cell[known & (batch.labels == 1)], minlength=n_cells).astype(np.float64),
        }

    def add(self, counts: dict[str, FloatArray], arm: int) -> None:
        """Take in one batch's counts under an arm."""
        for name, total in self._counts.items():
            total *= self._config.discount
            total += counts[name]
        decay = self._config.discount**2
        self._squares = self._squares * decay + counts["squares"]
        self._people_squares = self._people_squares * decay + float(counts["people"].sum())
        self._plays[arm] += 1

    def add_labels(self, counts: dict[str, FloatArray]) -> None:
        """Take in labels that arrived late: `labelled` and `good` by cell."""
        for name, new in counts.items():
            self._counts[name] += new

    def estimates(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return estimated reward [M], residuals [M, I] (NaN where a group is too small) and rates [M, G]."""
        counts, config = self._counts, self._config
        n = max(float(counts["people"].sum()), 1e-300)
        quality = (counts["good"] + config.prior * self._claim) / (counts["labelled"] + config.prior)
        gain = counts["people"] / n * ((1.0 + self._loss) * quality - self._loss)
        totals = counts["groups"].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = (_above(counts["groups"]) / totals[:, None]).T
        rates = np.where(totals >= self._min_count, rates, np.nan)
        overall = _above(counts["people"][None])[0] / n
        return _above(gain[None])[0], self._constraints.residuals(rates, overall), rates

    def choose(self) -> tuple[int, Reason, dict[str, Any]]:
        """Return the arm, the reason, and what it rests on."""
        if self._counts["people"].sum() == 0:
            return self._incumbent, Reason.INCUMBENT, {}
        reward, residuals, rates = self.estimates()
        unseen = np.flatnonzero(np.isnan(rates[0]))
        if len(unseen):
            # What another threshold would do to a group of which too few have been seen, nobody knows.
            return self._incumbent, Reason.UNSEEN_GROUP, {"unseen_groups": unseen.tolist()}
        filled = residuals + self._config.margin
        worst = filled.max(axis=1)
        holds = (worst <= 0.0) & self._allowed
        reason = Reason.FEASIBLE_OPTIMISTIC
        score = np.where(holds, reward, -np.inf)
        if not holds.any():
            reason = Reason.LEAST_VIOLATION
            score = np.where(self._allowed, -np.maximum(filled, 0.0).sum(axis=1), -np.inf)
        arm = int(pick(score[None], worst[None], self._plays[None])[0])
        found = [x if math.isfinite(x) else None for x in residuals[arm].tolist()]
        return arm, reason, {"estimated_reward": reward.item(arm), "estimated_residuals": found}

    def upper_residuals(self, delta: float) -> FloatArray:
        """Return upper residual bounds [M, I] at this moment, all thresholds at once; inf where a group is unseen."""
        return self.bounds(delta)[1]

    def bounds(self, delta: float) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper residual bounds [M, I] at this moment; infinite where a group is unseen."""
        _, residuals, _ = self.estimates()
        n = float(self._counts["people"].sum())
        totals = self._counts["groups"].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = self._squares / np.outer(totals, totals)
        spread = np.where(np.isnan(spread), np.inf, spread)
        everybody = self._people_squares / n**2 if n > 0 else math.inf
        slack = self._constraints.slack(spread, everybody, len(self._grid), delta)
        centre = residuals + self._config.margin
        unseen = np.isnan(residuals)
        return np.where(unseen, -np.inf, centre - slack), np.where(unseen, np.inf, centre + slack)

    def state(self) -> dict[str, Any]:
        return {
            "counts": self._counts,
            "plays": self._plays,
            "squares": self._squares,
            "people_squares": self._people_squares,
        }

    def load(self, state: dict[str, Any]) -> None:
        self._counts, self._plays, self._squares, self._people_squares = (
            copy.deepcopy(state[k]) for k in ("counts", "plays", "squares", "people_squares")
        )


def _above(cells: FloatArray) -> FloatArray:
    """Return sums over cells above each grid level: [G, K + 1] to [G, K]."""
    return np.cumsum(cells[:, ::-1], axis=1)[:, ::-1][:, 1:]
