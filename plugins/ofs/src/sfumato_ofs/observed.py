"""The observed-scores learner: where every applicant's score is logged, one round informs about all thresholds.

Each group's acceptance rate is known at every threshold, and an accepted person's outcome counts for every
threshold at or below that person's score. The learner keeps decayed counts by grid cell, starts from the incumbent
threshold and then takes the best estimated reward among arms whose estimated residuals hold. Nothing is explored
for its own sake, so it violates far less than a bandit; bandit feedback is for hidden scores only.

Ours, not the source's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.config import ObservedScoresConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import Reason, pick
from sfumato_ofs.scored import Cells

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def cell_scores(grid: FloatArray) -> FloatArray:
    """Return the middle score of each cell, float array [K + 1]; the top cell of a grid ending at 1 is 1."""
    edges = np.concatenate([[0.0], grid, [1.0]])
    middle: FloatArray = (edges[:-1] + edges[1:]) / 2
    return middle


def arm_of(arms: FloatArray, tau: float, name: str = "tau") -> int:
    """Return the arm that holds tau for every group; raise when it is not on the grid, calling it by `name`."""
    at = np.flatnonzero((arms == tau).all(axis=1))
    if not len(at):
        nearest = float(arms.ravel()[np.abs(arms.ravel() - tau).argmin()])
        raise OfsError(f"{name} must lie on the grid, got {tau!r}; the nearest grid threshold is {nearest!r}")
    return int(at[0])


class ObservedScores:
    """Best estimated reward among arms whose estimated residuals hold, for B items.

    Arguments:
        arms: group thresholds [M, G].
        config: incumbent threshold, discount, margin, corridor, prior.
        loss: cost of an accepted bad outcome.

    Notes: a cell without labels takes its score as the probability of a good outcome (scores are estimated
    probabilities), worth `config.prior` labels; labels then correct it. While a group has not been seen the incumbent is
    held: nobody knows what another threshold would do to it. O(B G K) an update, O(B M G) a choice.
    """

    def __init__(
        self,
        n_items: int,
        arms: FloatArray,
        constraints: Constraints,
        config: ObservedScoresConfig,
        *,
        loss: float,
    ) -> None:
        if constraints.measure != "parity":
            raise OfsError(
                f"observed scores estimate acceptance rates; measure = {constraints.measure} needs outcomes of rejected people. "
                "Use ofs/optimistic-feasible with full or explored labels"
            )
        self.arms = np.asarray(arms, dtype=np.float64)
        self.grid: FloatArray = np.unique(self.arms)
        self.levels: IntArray = np.searchsorted(self.grid, self.arms)
        self.constraints = constraints
        self.config = config
        self.loss = loss
        shape = (n_items, self.arms.shape[1], len(self.grid) + 1)
        self.applicants = np.zeros(shape)
        self.labelled = np.zeros(shape)
        self.good = np.zeros(shape)
        self.plays = np.zeros((n_items, len(arms)))
        self.incumbent = arm_of(self.arms, config.tau)
        distance = np.abs(self.arms - self.arms[self.incumbent]).max(axis=1)
        self._allowed = distance <= (np.inf if config.corridor is None else config.corridor) + 1e-12
        self._prior_good = cell_scores(self.grid)
        self.reason = np.full(n_items, Reason.INIT, dtype=np.int8)

    def select(self) -> IntArray:
        """Return the arm to play for each item, int array [B]."""
        reward, residuals = self.estimates()
        totals = self.applicants.sum(axis=2)
        unseen_group = np.asarray((totals <= 0.0).any(axis=1))
        residuals = np.where(np.isnan(residuals), np.inf, residuals + self.config.margin)
        violation = np.maximum(residuals, 0.0).sum(axis=2)
        worst = residuals.max(axis=2)
        holds = (worst <= 0.0) & self._allowed
        some = np.asarray(holds.any(axis=1))
        score = np.where(holds, reward, -np.inf)
        score = np.where(some[:, None], score, np.where(self._allowed, -violation, -np.inf))
        arm = pick(score, worst, self.plays)
        self.reason = np.where(some, Reason.FEASIBLE_OPTIMISTIC, Reason.LEAST_VIOLATION).astype(np.int8)
        self.reason[unseen_group] = Reason.UNSEEN_GROUP
        self.reason[totals.sum(axis=1) == 0] = Reason.INIT
        return np.where(unseen_group, self.incumbent, arm)

    def update(self, arm: IntArray, cells: Cells) -> None:
        """Take in one round: arms [B] and counts by cell; labels may be those of an earlier round."""
        for total, new in (
            (self.applicants, cells.applicants),
            (self.labelled, cells.labelled),
            (self.good, cells.good),
        ):
            total *= self.config.discount
            total += new
        self.plays[np.arange(len(arm)), arm] += 1

    def estimates(self) -> tuple[FloatArray, FloatArray]:
        """Return estimated reward [B, M] and residuals [B, M, I] of every arm, NaN where a group has not been seen."""
        n_items, n_groups, _ = self.applicants.shape
        totals = self.applicants.sum(axis=2)
        share = totals / np.maximum(totals.sum(axis=1, keepdims=True), 1e-300)
        prior = self.config.prior
        quality = (self.good + prior * self._prior_good) / (self.labelled + prior)
        mass = self.applicants / np.maximum(totals.sum(axis=1), 1e-300)[:, None, None]
        gain = mass * ((1.0 + self.loss) * quality - self.loss)
        with np.errstate(divide="ignore", invalid="ignore"):
            tail_rate = np.where(totals[:, :, None] > 0, _tail(self.applicants) / totals[:, :, None], np.nan)
        tail_gain = _tail(gain)
        groups = np.arange(n_groups)
        rates = tail_rate[:, groups, self.levels]
        reward: FloatArray = tail_gain[:, groups, self.levels].sum(axis=2)
        overall = (np.nan_to_num(rates) * share[:, None, :]).sum(axis=2)
        residuals = self.constraints.residuals(rates.reshape(-1, n_groups), overall.ravel())
        return reward, residuals.reshape(n_items, len(self.arms), -1)

    def recommend(self) -> IntArray:
        """Return the arm to deploy, int array [B]: the one that would be chosen now."""
        return self.select()


def _tail(cells: FloatArray) -> FloatArray:
    """Return sums over cells above each grid level: [B, G, K + 1] to [B, G, K]."""
    return np.cumsum(cells[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]
