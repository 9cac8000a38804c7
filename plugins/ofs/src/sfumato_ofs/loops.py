"""Closed loops: a population that answers to the acceptance threshold it is given.

A round: n applicants arrive, group a with share w_a; those whose score reaches their group's threshold
are accepted; the batch's acceptance rates then move the state. Two loops are given. `BetaLoop` has
Beta-distributed, calibrated scores whose means drift with acceptance. `PoolLoop` draws individuals with
replacement from a scored data set, and only the composition reacts.

All state is an array [B, S], one row a seed; nothing loops over seeds. The loops are our reference
design: the abstract of the source names the environments, not their equations.

Source: W. Du, "Optimistic Feasible Search for Closed-Loop Fair Threshold Decision-Making",
arXiv:2512.22313 (environments named in the abstract).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import cached_property

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import betainc

from sfumato_ofs.binomial import binomial_quantile
from sfumato_ofs.errors import OfsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_PIECES = 1024
"""Pieces of the splines that stand for the incomplete beta function where every threshold is needed."""


def threshold_grid(n_thresholds: int = 41) -> FloatArray:
    """Return n_thresholds equally spaced thresholds in [0, 1], float array [M].

    Each is the correctly rounded quotient j / (M - 1), so that 0.275 is the literal 0.275.
    """
    if n_thresholds < 2:
        raise OfsError(
            f"n_thresholds must be at least 2, got {n_thresholds}: a grid needs two points to choose from"
        )
    return np.arange(n_thresholds) / (n_thresholds - 1)


def check_grid(grid: object) -> FloatArray:
    """Return the grid as a float array [M], or raise: finite, strictly increasing, in [0, 1], at least 2 points."""
    try:
        given = np.asarray(grid)
    except ValueError as error:  # rows of unlike length
        raise OfsError(f"grid must be numbers, got {type(grid).__name__}: {error}") from error
    if given.dtype.kind not in "iuf" or isinstance(grid, np.ma.MaskedArray):
        raise OfsError(f"grid must be numbers, got {type(grid).__name__} of dtype {given.dtype}")
    values = given.astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise OfsError(f"grid must hold at least 2 thresholds in one dimension, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise OfsError(
            f"grid must be finite, got {values[~np.isfinite(values)][0]} at index "
            f"{int(np.argmax(~np.isfinite(values)))}"
        )
    falls = np.diff(values) <= 0
    if falls.any():
        j = int(np.argmax(falls))
        raise OfsError(
            f"grid must be strictly increasing, got {values[j]!r} then {values[j + 1]!r} at index {j + 1}; "
            "sort it and drop duplicates"
        )
    if values[0] < 0.0 or values[-1] > 1.0:
        raise OfsError(f"grid must lie in [0, 1], as scores do; got {values[0]!r} to {values[-1]!r}")
    return values


def shared_arms(grid: FloatArray, n_groups: int = 2) -> FloatArray:
    """Return one arm a threshold, the same for every group: float array [M, G]."""
    return np.repeat(np.asarray(grid, dtype=np.float64)[:, None], n_groups, axis=1)


def product_arms(grids: list[FloatArray]) -> FloatArray:
    """Return one arm a combination of group thresholds: float array [M_0 * M_1 * ..., G].

    Group 0's index runs slowest. Group-specific thresholds may be unlawful where you use them.
    """
    mesh = np.meshgrid(*grids, indexing="ij")
    return np.stack([m.ravel() for m in mesh], axis=1)


@attrs.frozen
class Counts:
    """What one round's batch held: applicants, accepted and accepted-good by group, int arrays [B, G]."""

    applicants: IntArray
    accepted: IntArray
    good: IntArray

    def rates(self) -> FloatArray:
        """Return acceptance rates by group [B, G]; NaN where a group was absent from the batch."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.accepted / self.applicants


def batch_reward(counts: Counts, loss: float) -> FloatArray:
    """Return (accepted good - loss * accepted bad) / n for each item, float array [B]."""
    good = counts.good.sum(axis=1)
    bad = counts.accepted.sum(axis=1) - good
    reward: FloatArray = (good - loss * bad) / counts.applicants.sum(axis=1)
    return reward


class ClosedLoop(ABC):
    """A population under an acceptance rule.

    Attributes:
        arms: group thresholds of each arm, float array [M, G].
        n: applicants a round.
        loss: cost of an accepted bad outcome, in units of an accepted good one.
        base_shares: group shares at rest, float array [G], sum 1.
        grid: the distinct thresholds of all arms, float array [K].
        levels: each arm's grid index by group, int array [M, G].
    """

    def __init__(
        self,
        arms: FloatArray,
        *,
        n: int,
        loss: float,
        base_shares: FloatArray,
        share_memory: float,
        share_gain: float,
        clip: tuple[float, float] = (0.05, 0.95),
    ) -> None:
        if n < 1:
            raise OfsError(f"n must be at least 1 applicant a round, got {n}")
        self.arms = np.asarray(arms, dtype=np.float64)
        self.grid: FloatArray = np.unique(self.arms)
        self.levels: IntArray = np.searchsorted(self.grid, self.arms)
        self.n = int(n)
        self.loss = float(loss)
        self.base_shares = np.asarray(base_shares, dtype=np.float64)
        self.share_memory = float(share_memory)
        self.share_gain = float(share_gain)
        self.clip = clip

    @property
    def n_arms(self) -> int:
        return len(self.arms)

    @property
    def n_groups(self) -> int:
        return self.arms.shape[1]

    @property
    def n_uniforms(self) -> int:
        """Uniforms that one round of one item consumes: group split, acceptances, good outcomes."""
        return 3 * self.n_groups - 1

    @abstractmethod
    def rest(self, n_items: int) -> FloatArray:
        """Return the state at its base for each item, float array [B, S]."""

    @abstractmethod
    def shares(self, state: FloatArray) -> FloatArray:
        """Return group shares w, float array [B, G], rows summing to 1."""

    @abstractmethod
    def expectations(self, state: FloatArray, arm: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return P(accept | group) and P(accept and good | group) at the state, float arrays [B, G] each."""

    @abstractmethod
    def profile(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what `expectations` gives at every grid threshold, float arrays [B, G, K] each."""

    @abstractmethod
    def base_good(self, state: FloatArray) -> FloatArray:
        """Return P(good | group), accepted or not, float array [B, G]."""

    @abstractmethod
    def advance(
        self, state: FloatArray, rates: FloatArray, base_means: FloatArray | None = None
    ) -> FloatArray:
        """Return the next state [B, S] after acceptance rates [B, G]; a NaN rate (absent group) moves nothing.

        `base_means` [G] stands in for the loop's own under drift, where the loop has base means.
        """

    def expected_reward(self, state: FloatArray, arm: IntArray) -> FloatArray:
        """Return the expected reward of a round at the state, float array [B]."""
        accept, good = self.expectations(state, arm)
        value: FloatArray = (self.shares(state) * ((1.0 + self.loss) * good - self.loss * accept)).sum(axis=1)
        return value

    def draw(self, state: FloatArray, arm: IntArray, uniforms: FloatArray) -> Counts:
        """Draw one round's counts, exact in law: binomials in place of n individuals.

        Arguments:
            state: float array [B, S].
            arm: int array [B].
            uniforms: float array [B, n_uniforms] in [0, 1).
        """
        accept, good = self.expectations(state, arm)
        return self.draw_given(accept, good, self.shares(state), uniforms)

    def draw_given(
        self, accept: FloatArray, good: FloatArray, shares: FloatArray, uniforms: FloatArray
    ) -> Counts:
        """Draw one round's counts from given expectations (arrays [B, G]) and shares [B, G]."""
        n_groups = self.n_groups
        applicants = np.zeros(accept.shape, dtype=np.int64)
        left = np.full(len(accept), self.n, dtype=np.int64)
        rest = np.ones(len(accept))
        # A multinomial as a chain of binomials; the last group takes what is left. Groups run from the
        # last to the second, so that for two groups the one draw is group 1's share itself.
        for position, a in enumerate(range(n_groups - 1, 0, -1)):
            p = np.clip(shares[:, a] / np.maximum(rest, 1e-300), 0.0, 1.0)
            applicants[:, a] = binomial_quantile(uniforms[:, position], left, p)
            left = left - applicants[:, a]
            rest = rest - shares[:, a]
        applicants[:, 0] = left
        at = n_groups - 1
        accepted = binomial_quantile(uniforms[:, at : at + n_groups], applicants, accept)
        with np.errstate(invalid="ignore", divide="ignore"):
            quality = np.where(accept > 0, good / accept, 0.0)
        at += n_groups
        n_good = binomial_quantile(uniforms[:, at : at + n_groups], accepted, quality)
        return Counts(applicants, accepted, n_good)

    def next_shares(self, shares: FloatArray, rates: FloatArray) -> FloatArray:
        """Return the next shares: pulled to rest, pushed by each group's lead in acceptance over the others.

        For two groups this is w <- w* + memory (w - w*) + gain (r1 - r0), clipped.
        """
        present = ~np.isnan(rates)
        filled = np.where(present, rates, 0.0)
        n_groups = self.n_groups
        others = (filled.sum(axis=1, keepdims=True) - filled) / (n_groups - 1)
        lead = np.where(present.all(axis=1, keepdims=True), filled - others, 0.0)
        moved = self.base_shares + self.share_memory * (shares - self.base_shares) + self.share_gain * lead
        low, high = self.clip
        clipped = np.clip(moved, low, high)
        if n_groups == 2:
            clipped[:, 0] = 1.0 - clipped[:, 1]
            return clipped
        return clipped / clipped.sum(axis=1, keepdims=True)


class BetaLoop(ClosedLoop):
    """Synthetic loop: scores in group a are Beta(nu m_a, nu (1 - m_a)); an outcome is good with probability s.

    State: means m then shares w, float array [B, 2G]. After a round with acceptance rates r
    `m_a <- m_a* + kappa (m_a - m_a*) + eta (r_a - 0.5)`, clipped; shares as in `next_shares`.

    Warns when the contraction certificate of the means does not hold (`contraction_factor() >= 1`).
    """

    def __init__(
        self,
        arms: FloatArray,
        *,
        n: int = 200,
        loss: float = 1.0,
        nu: float = 8.0,
        base_means: tuple[float, ...] = (0.60, 0.45),
        base_shares: tuple[float, ...] = (0.60, 0.40),
        kappa: float = 0.8,
        eta: float = 0.02,
        share_memory: float = 0.9,
        share_gain: float = 0.02,
        clip: tuple[float, float] = (0.05, 0.95),
    ) -> None:
        super().__init__(
            arms,
            n=n,
            loss=loss,
            base_shares=np.asarray(base_shares, dtype=np.float64),
            share_memory=share_memory,
            share_gain=share_gain,
            clip=clip,
        )
        self.nu = float(nu)
        self.base_means = np.asarray(base_means, dtype=np.float64)
        self.kappa = float(kappa)
        self.eta = float(eta)
        if len(self.base_means) != self.n_groups or len(self.base_shares) != self.n_groups:
            raise OfsError(
                f"base_means and base_shares must have one entry a group ({self.n_groups}), "
                f"got {len(self.base_means)} and {len(self.base_shares)}"
            )
        factor = self.contraction_factor()
        if factor >= 1.0:
            warnings.warn(
                f"BetaLoop: the contraction certificate fails, factor {factor:.4f} >= 1 (kappa = {self.kappa}, eta = "
                f"{self.eta}). Fixed points may still exist, but convergence to them is not guaranteed; "
                "lower kappa or eta.",
                stacklevel=2,
            )

    def contraction_factor(self) -> float:
        """Return an upper bound of |dm'/dm| over the grid and the clipped range of means.

        The loop of the means contracts when it is below 1. It is kappa + eta * sup |d accept / d m|, the
        supremum taken on a fine grid of means by differentiating an interpolating spline.
        """
        means = np.linspace(self.clip[0], self.clip[1], 3601)
        steepest = 0.0
        for tau in np.unique(self.arms):
            if 0.0 < tau < 1.0:
                slope = CubicSpline(means, _beta_accept(means, self.nu, tau))(means, 1)
                steepest = max(steepest, float(np.abs(slope).max()))
        return self.kappa + self.eta * steepest

    def rest(self, n_items: int) -> FloatArray:
        return np.tile(np.concatenate([self.base_means, self.base_shares]), (n_items, 1))

    def shares(self, state: FloatArray) -> FloatArray:
        return state[:, self.n_groups :]

    def expectations(self, state: FloatArray, arm: IntArray) -> tuple[FloatArray, FloatArray]:
        m = state[:, : self.n_groups]
        tau = self.arms[arm]
        return _beta_accept(m, self.nu, tau), _beta_good(m, self.nu, tau)

    @cached_property
    def splines(self) -> FloatArray:
        """Cubic pieces of P(s >= tau) and E[s; s >= tau] in the mean, float array [2, K, pieces, 4].

        On `N_PIECES` equal pieces of the clipped range; the error is below 1e-9 (tested).
        """
        knots = np.linspace(self.clip[0], self.clip[1], N_PIECES + 1)
        pieces = np.empty((2, len(self.grid), N_PIECES, 4))
        for k, tau in enumerate(self.grid):
            for which, function in enumerate((_beta_accept, _beta_good)):
                pieces[which, k] = CubicSpline(knots, function(knots, self.nu, tau)).c.T
        return pieces

    def profile(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        # The incomplete beta function at every threshold would cost a hundred times the splines.
        place = (state[:, : self.n_groups] - self.clip[0]) * (N_PIECES / (self.clip[1] - self.clip[0]))
        piece = np.clip(place.astype(np.int64), 0, N_PIECES - 1)
        x = (place - piece)[None, None] * ((self.clip[1] - self.clip[0]) / N_PIECES)
        c = self.splines[:, :, piece]
        value = ((c[..., 0] * x + c[..., 1]) * x + c[..., 2]) * x + c[..., 3]
        accept, good = np.moveaxis(value, 1, -1)
        return accept, good

    def base_good(self, state: FloatArray) -> FloatArray:
        return state[:, : self.n_groups]

    def advance(
        self, state: FloatArray, rates: FloatArray, base_means: FloatArray | None = None
    ) -> FloatArray:
        g = self.n_groups
        base = self.base_means if base_means is None else base_means
        means = state[:, :g]
        push = np.where(np.isnan(rates), 0.0, rates - 0.5)
        moved = base + self.kappa * (means - base) + self.eta * push
        return np.concatenate([np.clip(moved, *self.clip), self.next_shares(state[:, g:], rates)], axis=1)

    def scores(
        self, group: int, mean: float, size: int, rng: np.random.Generator
    ) -> tuple[FloatArray, IntArray]:
        """Draw individuals: scores [size] and outcomes [size] of one group at a mean."""
        s = rng.beta(self.nu * mean, self.nu * (1.0 - mean), size)
        return s, (rng.random(size) < s).astype(np.int64)


def _beta_accept(m: FloatArray, nu: float, tau: FloatArray | float) -> FloatArray:
    """Return P(s >= tau) for s ~ Beta(nu m, nu (1 - m))."""
    value: FloatArray = 1.0 - betainc(nu * m, nu * (1.0 - m), tau)
    return value


def _beta_good(m: FloatArray, nu: float, tau: FloatArray | float) -> FloatArray:
    """Return E[s; s >= tau]: m times the upper tail of Beta(nu m + 1, nu (1 - m))."""
    value: FloatArray = m * (1.0 - betainc(nu * m + 1.0, nu * (1.0 - m), tau))
    return value


class PoolLoop(ClosedLoop):
    """Semi-synthetic loop: individuals are drawn with replacement within their group from a scored pool.

    State: shares w, float array [B, G].

    Arguments:
        scores: float array [R] in [0, 1], one a person of the pool.
        good: 0/1 outcomes [R].
        groups: int array [R] with values 0..G-1.
        share_gain: how strongly a group's lead in acceptance moves the composition.
    """

    def __init__(
        self,
        arms: FloatArray,
        scores: FloatArray,
        good: IntArray,
        groups: IntArray,
        *,
        n: int = 200,
        loss: float = 1.0,
        share_memory: float = 0.9,
        share_gain: float = 0.10,
        clip: tuple[float, float] = (0.05, 0.95),
    ) -> None:
        groups = np.asarray(groups)
        n_groups = np.asarray(arms).shape[1]
        sizes = np.bincount(groups, minlength=n_groups)
        if len(sizes) != n_groups or (sizes == 0).any():
            raise OfsError(f"groups must take every value 0..{n_groups - 1}, got counts {sizes.tolist()}")
        super().__init__(
            arms,
            n=n,
            loss=loss,
            base_shares=sizes / sizes.sum(),
            share_memory=share_memory,
            share_gain=share_gain,
            clip=clip,
        )
        self._people = [
            (np.asarray(scores, dtype=np.float64)[groups == a], np.asarray(good, dtype=np.int64)[groups == a])
            for a in range(n_groups)
        ]

    @cached_property
    def table(self) -> tuple[FloatArray, FloatArray]:
        """P(accept | group) and P(accept and good | group) of every arm, float arrays [M, G]."""
        return self._tabulate(self.arms)

    def _tabulate(self, arms: FloatArray) -> tuple[FloatArray, FloatArray]:
        accept = np.empty(arms.shape)
        good = np.empty(arms.shape)
        for a, (s, y) in enumerate(self._people):
            order = np.argsort(s, kind="stable")
            tail = np.concatenate([np.cumsum(y[order][::-1])[::-1], [0]])
            # First index with s >= tau: `>=` decides at grid points, where scores are discrete.
            first = np.searchsorted(s[order], arms[:, a], side="left")
            accept[:, a] = (len(s) - first) / len(s)
            good[:, a] = tail[first] / len(s)
        return accept, good

    def rest(self, n_items: int) -> FloatArray:
        return np.tile(self.base_shares, (n_items, 1))

    def shares(self, state: FloatArray) -> FloatArray:
        return state

    def expectations(self, state: FloatArray, arm: IntArray) -> tuple[FloatArray, FloatArray]:
        accept, good = self.table
        return accept[arm], good[arm]

    @cached_property
    def _profile(self) -> tuple[FloatArray, FloatArray]:
        grid = shared_arms(self.grid, self.n_groups)
        accept, good = self._tabulate(grid)
        return accept.T, good.T

    def profile(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        accept, good = self._profile
        shape = (len(state), *accept.shape)
        return np.broadcast_to(accept, shape), np.broadcast_to(good, shape)

    def base_good(self, state: FloatArray) -> FloatArray:
        return np.broadcast_to(np.array([y.mean() for _, y in self._people]), (len(state), self.n_groups))

    def advance(
        self, state: FloatArray, rates: FloatArray, base_means: FloatArray | None = None
    ) -> FloatArray:
        if base_means is not None:
            raise OfsError("base_means: a pool has no base means to drift; only BetaLoop has")
        return self.next_shares(state, rates)

    def scores(
        self, group: int, mean: float, size: int, rng: np.random.Generator
    ) -> tuple[FloatArray, IntArray]:
        """Draw individuals with replacement: scores [size] and outcomes [size] of one group."""
        s, y = self._people[group]
        who = rng.integers(0, len(s), size)
        return s[who], y[who]
