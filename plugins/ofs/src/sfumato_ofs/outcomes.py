"""Group outcome rates: true and false positive rates, and the share of good among accepted.

Equal opportunity compares true positive rates, equalised odds also false positive rates. Both need outcomes of
people who were rejected, which nobody sees unless everybody's outcome is known (a simulation) or a random share
of the rejected is accepted to look: then each of those stands for 1 / explore_rate people. Predictive parity compares the
share of good among accepted and needs accepted outcomes only.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@attrs.frozen
class Outcomes:
    """Group outcome rates, arrays [B, G], NaN where undefined: tpr = P(accept | good), fpr = P(accept | bad),
    ppv = P(good | accept)."""

    tpr: FloatArray
    fpr: FloatArray
    ppv: FloatArray


def outcome_rates(
    accepted_good: FloatArray, accepted_bad: FloatArray, good: FloatArray, bad: FloatArray
) -> Outcomes:
    """Return outcome rates from (expected, counted or estimated) masses, arrays [B, G]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr = np.where(good > 0, accepted_good / good, np.nan)
        fpr = np.where(bad > 0, accepted_bad / bad, np.nan)
        accepted = accepted_good + accepted_bad
        ppv = np.where(accepted > 0, accepted_good / accepted, np.nan)
    return Outcomes(tpr, fpr, ppv)


def expected_outcomes(accept: FloatArray, good: FloatArray, base_good: FloatArray) -> Outcomes:
    """Return outcome rates at a state from P(accept | group), P(accept and good | group) and P(good | group) [B, G]."""
    return outcome_rates(good, accept - good, base_good, 1.0 - base_good)


class OutcomeMemory:
    """Sums of outcome masses by arm for B items, so that an arm's rate is a ratio of sums.

    Averaging one batch's ratios would be biased, badly so when few explored people stand for many. `add` returns residuals
    whose running mean over an arm's plays is the residual of the ratio of sums; learners then need nothing special.
    """

    def __init__(self, n_items: int, n_arms: int, n_groups: int, n_residuals: int) -> None:
        self._mass = np.zeros((4, n_items, n_arms, n_groups))
        self._last = np.zeros((n_items, n_arms, n_residuals))
        self._seen = np.zeros((n_items, n_arms, n_residuals))
        self._rows = np.arange(n_items)

    def add(
        self,
        arm: IntArray,
        accepted_good: FloatArray,
        accepted_bad: FloatArray,
        rejected_good: FloatArray,
        rejected_bad: FloatArray,
    ) -> Outcomes:
        """Take in one round's (estimated) masses [B, G] under arms [B]; return the arms' outcome rates so far."""
        rows = self._rows
        for k, mass in enumerate((accepted_good, accepted_bad, rejected_good, rejected_bad)):
            self._mass[k, rows, arm] += mass
        ag, ab, rg, rb = self._mass[:, rows, arm]
        return outcome_rates(ag, ab, ag + rg, ab + rb)

    def increments(self, arm: IntArray, residuals: FloatArray) -> FloatArray:
        """Return n r_n - (n - 1) r_(n-1), whose mean over the n plays that had a rate telescopes to r_n; NaN stays NaN.

        Plays without a rate do not count: the learners average over what they have seen, residual by residual.
        """
        rows = self._rows
        self._seen[rows, arm] += ~np.isnan(residuals)
        n = self._seen[rows, arm]
        before = self._last[rows, arm]
        value: FloatArray = n * residuals - (n - 1) * before
        self._last[rows, arm] = np.where(np.isnan(residuals), before, residuals)
        return value
