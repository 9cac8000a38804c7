"""Residuals of fairness and service constraints; a residual at or below 0 means satisfied.

The demographic-parity gap is *signed*: averaging |r0 - r1| over rounds is biased upwards by its own noise
(about 0.057 at 200 applicants split 40/60), which would make feasible thresholds look infeasible for ever.
"""

from __future__ import annotations

import numbers
from functools import cached_property
from itertools import permutations
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.errors import OfsError
from sfumato_ofs.outcomes import Outcomes

FloatArray = NDArray[np.float64]


MEASURES = {
    "parity": ("rates",),
    "opportunity": ("tpr",),
    "odds": ("tpr", "fpr"),
    "predictive-parity": ("ppv",),
}
OUTCOME_SHARE = 0.4
"""Share of a batch assumed to have the outcome that a rate is taken over; smaller is more cautious."""


def _within_one(x: object) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and 0.0 <= float(x) <= 1.0


@attrs.frozen
class Constraints:
    """Demographic parity with an optional service corridor.

    Attributes:
        eps: largest allowed difference of group acceptance rates, in [0, 1].
        rho_min: smallest allowed overall acceptance rate; None for no floor. Parity holds trivially where nobody
            is accepted, so keep a floor.
        rho_max: largest allowed overall acceptance rate; None for no ceiling.
        gap: `signed` gives G(G-1) ordered pairwise residuals, `abs` one residual a pair (biased, for
            comparison), `to-overall` two residuals a group against the overall rate, `ratio` G(G-1) residuals
            `(1 - eps) * r_b - r_a` (four-fifths rule: eps = 0.2).
        n_groups: number of groups G.
        measure: what is compared between groups: `parity` acceptance rates, `opportunity` true positive rates, `odds` true
            and false positive rates, `predictive-parity` the share of good among accepted.
        explore_rate: share of the rejected that is accepted at random to learn outcomes; 1 where all outcomes are known.
            Widens the scale of outcome gaps.
    """

    eps: float = 0.10
    rho_min: float | None = 0.30
    rho_max: float | None = None
    gap: str = "signed"
    n_groups: int = 2
    measure: str = "parity"
    explore_rate: float = 1.0

    def __attrs_post_init__(self) -> None:
        if not _within_one(self.eps):
            raise OfsError(f"eps must lie in [0, 1], got {self.eps!r}")
        for name, value in (("rho_min", self.rho_min), ("rho_max", self.rho_max)):
            if value is not None and not _within_one(value):
                raise OfsError(f"{name} must lie in [0, 1], got {value!r}")
        if self.rho_min is not None and self.rho_max is not None and self.rho_min > self.rho_max:
            raise OfsError(f"rho_min must not exceed rho_max, got {self.rho_min!r} > {self.rho_max!r}")
        if self.gap not in ("signed", "abs", "to-overall", "ratio"):
            raise OfsError(f"gap must be signed, abs, to-overall or ratio, got {self.gap!r}")
        if not isinstance(self.measure, str) or self.measure not in MEASURES:
            raise OfsError(f"measure must be one of {', '.join(MEASURES)}, got {self.measure!r}")
        if self.measure != "parity" and self.gap == "to-overall":
            raise OfsError(
                "gap = to-overall compares acceptance rates only; use signed or ratio for outcome rates"
            )
        if not _within_one(self.explore_rate) or self.explore_rate == 0.0:
            raise OfsError(f"explore_rate must lie in (0, 1], got {self.explore_rate!r}")
        if not isinstance(self.n_groups, numbers.Integral) or isinstance(self.n_groups, bool):
            raise OfsError(f"n_groups must be an integer of at least 2, got {self.n_groups!r}")
        if self.n_groups < 2:
            raise OfsError(
                f"demographic parity is undefined for {self.n_groups} group; at least 2 are needed (n_groups)"
            )

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Ordered group pairs (a, b) of the parity residuals r_a - r_b - eps."""
        if self.gap == "to-overall":
            return ()
        ordered = permutations(range(self.n_groups), 2)
        if self.gap == "abs":
            return tuple((a, b) for a, b in ordered if a < b)
        return tuple(sorted(ordered, key=lambda p: (min(p), max(p), p)))

    @cached_property
    def n_parity(self) -> int:
        if self.gap == "to-overall":
            return 2 * self.n_groups
        return len(self.pairs) * len(MEASURES[self.measure])

    @cached_property
    def size(self) -> int:
        """Number of residuals I."""
        return self.n_parity + (self.rho_min is not None) + (self.rho_max is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """A name a residual, in their order."""
        if self.gap == "to-overall":
            parity = [
                f"{side}{a}" for a in range(self.n_groups) for side in ("above-overall-", "below-overall-")
            ]
        else:
            kinds = [""] if self.measure == "parity" else [f"{kind}-" for kind in MEASURES[self.measure]]
            parity = [f"{kind}{self.gap}-gap-{a}-{b}" for kind in kinds for a, b in self.pairs]
        service = ["service-floor"] * (self.rho_min is not None) + ["service-ceiling"] * (
            self.rho_max is not None
        )
        return (*parity, *service)

    def residuals(
        self, rates: FloatArray, overall: FloatArray, outcomes: Outcomes | None = None
    ) -> FloatArray:
        """Return residuals [B, I] from group rates [B, G], overall rates [B] and, but for parity, outcome rates.

        A NaN rate (absent group) gives a NaN residual: no observation, not a zero.
        """
        columns: list[FloatArray] = []
        if self.gap == "to-overall":
            for a in range(self.n_groups):
                columns += [rates[:, a] - overall - self.eps, overall - rates[:, a] - self.eps]
        for value in self._compared(rates, outcomes):
            for a, b in self.pairs:
                if self.gap == "abs":
                    columns.append(np.abs(value[:, a] - value[:, b]) - self.eps)
                elif self.gap == "ratio":
                    columns.append((1.0 - self.eps) * value[:, a] - value[:, b])
                else:
                    columns.append(value[:, a] - value[:, b] - self.eps)
        if self.rho_min is not None:
            columns.append(self.rho_min - overall)
        if self.rho_max is not None:
            columns.append(overall - self.rho_max)
        return np.stack(columns, axis=1)

    def residuals_of_one(self, rates: list[float], overall: float) -> list[float]:
        """Return `residuals` of one batch's acceptance rates as a list [I]; the same numbers, without arrays."""
        if self.measure != "parity" or self.gap in ("to-overall", "abs"):
            row: list[float] = self.residuals(np.array([rates]), np.array([overall]))[0].tolist()
            return row
        if self.gap == "ratio":
            out = [(1.0 - self.eps) * rates[a] - rates[b] for a, b in self.pairs]
        else:
            out = [rates[a] - rates[b] - self.eps for a, b in self.pairs]
        if self.rho_min is not None:
            out.append(self.rho_min - overall)
        if self.rho_max is not None:
            out.append(overall - self.rho_max)
        return out

    def _compared(self, rates: FloatArray, outcomes: Outcomes | None) -> list[FloatArray]:
        if self.measure == "parity":
            return [rates]
        if outcomes is None:
            raise OfsError(
                f"measure = {self.measure} needs outcomes: whether rejected people would have been good cannot be read off "
                "accepted labels. Use full labels (simulation), accept a random share of the rejected, or measure = parity"
            )
        return [getattr(outcomes, kind) for kind in MEASURES[self.measure]]

    def violation(
        self, rates: FloatArray, overall: FloatArray, outcomes: Outcomes | None = None
    ) -> FloatArray:
        """Return the sum of positive residuals, each constraint counted once, float array [B].

        Of the two residuals of a signed gap at most one is positive, so nothing is counted twice.
        """
        positive: FloatArray = np.maximum(self.residuals(rates, overall, outcomes), 0.0)
        total: FloatArray = np.nansum(positive, axis=1)
        return total

    @cached_property
    def _ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and second group of each pair."""
        ends = np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        return ends[:, 0], ends[:, 1]

    def weights(
        self, counts: NDArray[Any], people: NDArray[Any], reference: float, shared: FloatArray | None = None
    ) -> FloatArray:
        """Return how many batches of `scales(reference)` each residual of a batch is worth, float array [B, I].

        A gap r_a - r_b of n_a and n_b people has the proxy (1/n_a + 1/n_b) / 4, so it is worth
        4 n_a n_b / ((n_a + n_b) reference): 1 for two equal halves of a batch of the reference size, 0.62 at 19/81. Means
        with these weights have the proxy scale / sqrt(sum of weights), whatever the groups' sizes.

        Arguments:
            counts: people of each group [B, G]; with memberships (sum m)^2 / sum m^2.
            people: everybody in the batch [B].
            reference: batch size that `scales` was asked for.
            shared: where groups intersect, sum_i m_ia m_ib / (M_a M_b) over people i, [B, G, G]; None for disjoint groups.

        Notes: `to-overall` holds the noise of the batch's own mix too, which makes 4 n_a / reference. Gaps of outcome rates get
        weight 1: how many people with the outcome stand behind a rate is not known from group sizes.
        """
        everybody = np.asarray(people, dtype=np.float64)[:, None] / reference
        if self.measure != "parity":
            gaps = np.ones((len(everybody), self.n_parity))
        elif self.gap == "to-overall":
            gaps = np.repeat(4.0 * np.asarray(counts, dtype=np.float64) / reference, 2, axis=1)
        else:
            a, b = self._ends
            factor = 1.0 - self.eps if self.gap == "ratio" else 1.0
            with np.errstate(divide="ignore", invalid="ignore"):
                inverse = 1.0 / np.asarray(counts, dtype=np.float64)
                proxy = factor**2 * inverse[:, a] + inverse[:, b]
                if shared is not None:
                    both = np.where(np.isfinite(shared), shared, 0.0)[:, a, b]
                    proxy = proxy - 2.0 * factor * both
                # Groups of the same people have no gap to be unsure of; a finite weight is safe and keeps sums finite.
                gaps = np.minimum(4.0 / (reference * np.maximum(proxy, 0.0)), 4.0 * everybody)
        service = [everybody] * (self.size - self.n_parity)
        return np.concatenate([gaps, *service], axis=1)

    def weights_of_one(self, counts: list[float], people: float, reference: float) -> list[float]:
        """Return `weights` of one batch of disjoint groups as a list [I]; the same numbers, without arrays."""
        if self.measure != "parity" or self.gap == "to-overall":
            row: list[float] = self.weights(np.array([counts]), np.array([people]), reference)[0].tolist()
            return row
        factor = (1.0 - self.eps) ** 2 if self.gap == "ratio" else 1.0
        most = 4.0 * (people / reference)
        gaps = []
        for a, b in self.pairs:
            n_a, n_b = counts[a], counts[b]
            gaps.append(
                min(4.0 / (reference * (factor * (1.0 / n_a) + 1.0 / n_b)), most)
                if n_a > 0 and n_b > 0
                else 0.0
            )
        return gaps + [people / reference] * (self.size - self.n_parity)

    def slack(self, spread: FloatArray, everybody: float, n_thresholds: int, delta: float) -> FloatArray:
        """Return half-widths [I] of residuals estimated from people, for all thresholds at once with probability 1 - delta.

        Hoeffding for the sum that each residual is, at one moment (whoever looks again and again needs more). People of two
        groups who are the same cancel in a gap and count once in the overall rate.

        Arguments:
            spread: sum_i w_i^2 m_ia m_ib / (M_a M_b) over people i of weight w_i, M_a = sum_i w_i m_ia, [G, G]; inf for an
                unseen group.
            everybody: sum_i w_i^2 / (sum_i w_i)^2.
        """
        if self.gap == "to-overall":
            # A group's rate and the overall rate share people and the mix, so their errors are added.
            term = np.log(2.0 * n_thresholds * (self.n_groups + 1) / delta)
            own = np.sqrt(term / 2.0 * np.diag(spread)) + np.sqrt(term / 2.0 * everybody)
            gaps = np.repeat(own, 2)
        else:
            n_events = self.n_parity // (2 if self.gap == "signed" else 1) + 1
            term = np.log(2.0 * n_thresholds * n_events / delta)
            a, b = self._ends
            factor = 1.0 - self.eps if self.gap == "ratio" else 1.0
            own = np.diag(spread)
            with np.errstate(invalid="ignore"):
                squares = factor**2 * own[a] + own[b] - 2.0 * factor * spread[a, b]
            gaps = np.sqrt(term / 2.0 * np.where(np.isnan(squares), np.inf, np.maximum(squares, 0.0)))
        service = np.full(self.size - self.n_parity, np.sqrt(term / 2.0 * everybody))
        return np.concatenate([gaps, service])

    def scales(self, n: float) -> FloatArray:
        """Return sub-Gaussian proxies of one batch's residuals, float array [I].

        Gap 1 / sqrt(n), which is that of two equal halves (others: `weights`), service 0.5 / sqrt(n). An outcome rate rests on
        the share of people with that outcome, taken as `OUTCOME_SHARE` of them, and on explored people who stand for
        1 / explore_rate each.
        """
        root = np.sqrt(n)
        gap_root = root if self.measure == "parity" else np.sqrt(n * OUTCOME_SHARE * self.explore_rate)
        return np.array([1.0 / gap_root] * self.n_parity + [0.5 / root] * (self.size - self.n_parity))


def reward_scale(loss: float, n: float) -> float:
    """Return the sub-Gaussian proxy of one batch's mean reward, 0.5 (1 + loss) / sqrt(n)."""
    return 0.5 * (1.0 + loss) / float(np.sqrt(n))
