"""The assignment problem behind balanced routing, and its partial dual.

Each of T tokens takes K of E experts; the sum of the chosen scores is to be large, and no expert may
serve more than its share. Relaxing only the load constraint leaves one price per expert, and a top-K
choice per token once the prices are known: exactly what a router with a bias computes.

Source: X.Y. Han and Y. Zhong, arXiv:2512.03915 (the primal-dual view); L. Wang et al.,
arXiv:2408.15664 (the method). The formulas below were derived here.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ArgumentError, InfeasibleError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BLOCK = 32_768  # scores a block of `route`: 256 KiB of float64


def as_floats(value: ArrayLike, argument: str, expected: str) -> Floats:
    """Return a C-ordered float64 array, or raise ArgumentError for what is no array of real numbers."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        return np.ascontiguousarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(argument, expected, f"{type(value).__name__} ({error})") from error


def checked_count(value: Any, argument: str, least: int = 1) -> int:
    """Return an integer >= least, or raise ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(argument, f"an integer >= {least}", repr(value))
    return int(value)


def checked_scores(value: ArrayLike, argument: str = "scores") -> Floats:
    """Return `value` as a C-ordered float64 array [T, E], or say what is wrong with it.

    Raises ArgumentError for a wrong rank, no experts, NaN or infinite entries, and InfeasibleError for
    a dead expert (a whole column of -inf), because every routing that must use it would loop forever.
    """
    scores = as_floats(value, argument, "an array [T, E] of numbers")
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ArgumentError(argument, "an array [T, E] with E >= 2", f"shape {scores.shape}")
    if scores.shape[0] and not np.isfinite(scores).all():
        dead = np.flatnonzero((scores == -np.inf).all(axis=0))
        if dead.size:
            raise InfeasibleError(
                f"{argument}: expert {dead.tolist()} scores -inf for every token, so no balanced "
                "assignment exists. Remove the expert or give it finite scores."
            )
        row, col = np.argwhere(~np.isfinite(scores))[0]
        raise ArgumentError(
            argument,
            "finite scores",
            f"{scores[row, col]} at token {row}, expert {col}",
            "Look for an overflow in the router's logits.",
        )
    return scores


def checked_k(k: int, n_experts: int, argument: str = "k") -> int:
    """Return k when 1 <= k < E, or raise ArgumentError."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < n_experts:
        raise ArgumentError(argument, f"an integer with 1 <= {argument} < E = {n_experts}", repr(k))
    return int(k)


def checked_bias(value: ArrayLike | None, n_experts: int, argument: str = "bias") -> Floats:
    """Return the bias as float64 [E]; None means zeros."""
    if value is None:
        return np.zeros(n_experts)
    bias = as_floats(value, argument, f"a vector [E] with E = {n_experts}").copy()
    if bias.shape != (n_experts,):
        raise ArgumentError(argument, f"a vector [E] with E = {n_experts}", f"shape {bias.shape}")
    if not np.isfinite(bias).all():
        raise ArgumentError(argument, "finite values", repr(bias.tolist()))
    return bias


@attrs.frozen(eq=False)
class Routing:
    """A top-K choice for every token.

    chosen: bool [T, E], K true entries a row. loads: int64 [E], tokens on each expert.
    value: float, the sum of the chosen entries of `scores + bias`.
    """

    chosen: Bools
    loads: Ints
    value: float


@attrs.frozen(eq=False)
class AlfProblem:
    """Scores of one batch and the number of experts that each token takes.

    scores: float [T, E], finite. k: slots per token, 1 <= k < E.
    When T*K is not divisible by E no assignment gives every expert the same load, and the limit on each
    load becomes the ceiling of T*K/E (`capacity`), an inequality; the update rules still aim at T*K/E.
    """

    scores: Floats = attrs.field(converter=checked_scores)
    k: int = attrs.field()

    @k.validator
    def _check_k(self, _: Any, value: int) -> None:
        checked_k(value, self.scores.shape[1])

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.scores.shape[0]

    @property
    def n_experts(self) -> int:
        """E."""
        return self.scores.shape[1]

    @property
    def mean_load(self) -> float:
        """L = T*K/E, in tokens."""
        return self.n_tokens * self.k / self.n_experts

    @property
    def is_divisible(self) -> bool:
        """Whether every expert can carry exactly the mean load."""
        return (self.n_tokens * self.k) % self.n_experts == 0

    @property
    def capacity(self) -> int:
        """The most tokens an expert may serve in the reference problem: ceil(T*K/E)."""
        return -(-self.n_tokens * self.k // self.n_experts)

    def route(self, bias: ArrayLike | None = None) -> Routing:
        """Route every token to the K largest entries of `scores + bias`."""
        return route(self.scores, checked_bias(bias, self.n_experts), self.k)


def top_k_stable(scores: Floats, k: int) -> Ints:
    """Return the indices [T, K] of the K largest entries of each row, best first.

    Ties go to the lowest expert index. This is the reference that every faster path is tested against.
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ArgumentError("k", f"an integer with 1 <= k <= {scores.shape[-1]}", repr(k))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def route(scores: Floats, bias: Floats, k: int) -> Routing:
    """Route by `scores + bias` [T, E]; ties go to the lowest expert index.

    Finds only each row's K-th largest value (a partial sort of values, which vectorises, where a partial
    sort of indices does not) and compares against it. Cost O(T*E).
    Raises ArgumentError for k outside 1..E-1, a bias of another length, and NaN or +inf anywhere; -inf bars
    an expert from a token.
    """
    n_tokens, n_experts = scores.shape
    checked_k(k, n_experts)
    if np.shape(bias) != (n_experts,):
        raise ArgumentError("bias", f"a vector [E] with E = {n_experts}", f"shape {np.shape(bias)}")
    chosen = np.empty(scores.shape, dtype=np.bool_)
    loads = np.zeros(n_experts, dtype=np.int64)
    value = 0.0
    # Blocks that stay in the cache, in buffers that are used again: fresh megabytes cost more than sorting.
    rows = max(1, _BLOCK // n_experts)
    total, part = np.empty((2, min(rows, n_tokens), n_experts))
    for first in range(0, n_tokens, rows):
        block = scores[first : first + rows]
        n = block.shape[0]
        np.add(block, bias, out=total[:n])
        part[:n] = total[:n]
        part[:n].partition(n_experts - k, axis=1)
        threshold = part[:n, n_experts - k, None]
        picked = chosen[first : first + n]
        np.greater_equal(total[:n], threshold, out=picked)
        counts = _column_counts(picked)
        if int(counts.sum()) != n * k:
            _break_ties(picked, total[:n], threshold, k)
            counts = _column_counts(picked)
        loads += counts
        value += float(part[:n, n_experts - k :].sum())
    refuse_non_finite(value, scores, bias)
    return Routing(chosen, loads, value)


def refuse_non_finite(value: float, scores: Floats, bias: Floats) -> None:
    """Raise ArgumentError when a routing's value shows that a NaN or infinity was chosen: sorting puts them first."""
    if np.isfinite(value):
        return
    for argument, array in (("bias", bias), ("scores", scores)):
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise ArgumentError(argument, "finite values", f"{bad} that are NaN or infinite")
    raise ArgumentError("scores", "scores and biases whose sums are finite", "an overflow")


def _column_counts(chosen: Bools) -> Ints:
    """Return how many true entries each column of a block has.

    A product with ones runs in BLAS, several times faster than a sum of booleans; float32 holds every
    integer up to 2**24, and blocks are shorter than that.
    """
    ones = np.ones(chosen.shape[0], dtype=np.float32)
    return (ones @ chosen.astype(np.float32)).astype(np.int64)


def _break_ties(chosen: Bools, total: Floats, threshold: Floats, k: int) -> None:
    """In rows that chose more than K, keep the tied experts with the lowest indices."""
    rows = np.flatnonzero(chosen.sum(axis=1) > k)
    above = total[rows] > threshold[rows]
    tied = total[rows] == threshold[rows]
    room = k - above.sum(axis=1, keepdims=True)
    chosen[rows] = above | (tied & (np.cumsum(tied, axis=1) <= room))


def anchored(problem: AlfProblem, bias: Floats) -> Floats:
    """Return the bias shifted so that it is a feasible dual point.

    With equal loads the dual does not change under a shift. With the ceiling, prices are multipliers of
    `load <= capacity`, hence -bias >= 0; among the shifts that meet this, max(bias) = 0 is the best.
    """
    return bias if problem.is_divisible else bias - bias.max()


def dual_value(problem: AlfProblem, bias: ArrayLike, routing: Routing | None = None) -> float:
    """Return D(p) = sum_i TopKSum(g_i + p) - capacity * sum(p): an upper bound on every feasible objective.

    Convex and piecewise linear in p. When T*K is divisible by E, D is unchanged by p -> p + c;
    otherwise p is first shifted to max(p) = 0 (see `anchored`). `routing`, when given, must be
    `problem.route(bias)` and saves computing it again.
    """
    p = checked_bias(bias, problem.n_experts)
    routing = routing or problem.route(p)
    shift = anchored(problem, p) - p
    return (
        routing.value
        + float(shift[0]) * problem.n_tokens * problem.k
        - problem.capacity * float((p + shift).sum())
    )


def affinity(problem: AlfProblem, chosen: ArrayLike) -> float:
    """Return the objective: the sum of the unbiased scores of the chosen pairs."""
    mask = np.asarray(chosen, dtype=np.float64)
    if mask.shape != problem.scores.shape:
        raise ArgumentError("chosen", f"an array {problem.scores.shape}", f"shape {mask.shape}")
    return float(np.einsum("te,te->", problem.scores, mask))


def switching_benefit(problem: AlfProblem, bias: ArrayLike, new_bias: ArrayLike) -> float:
    """Return S >= 0: what the tokens gain by choosing afresh at the new bias instead of staying put."""
    old = problem.route(bias)
    p_new = checked_bias(new_bias, problem.n_experts, "new_bias")
    new = problem.route(p_new)
    kept = affinity(problem, old.chosen) + float(old.loads @ p_new)
    return new.value - kept


def max_vio(loads: ArrayLike, mean_load: float | None = None) -> float:
    """Return (max load - L)/L, dimensionless; 0 is perfect balance. Loads that are all zero give 0.

    Raises ArgumentError for loads that are no counts: NaN must not read as perfect balance.
    Source: arXiv:2408.15664 (MaxVio_batch for one batch, MaxVio_global for summed counts).
    """
    loads, mean = checked_loads(loads, mean_load)
    return float(loads.max() / mean - 1.0) if mean > 0 else 0.0


def min_vio(loads: ArrayLike, mean_load: float | None = None) -> float:
    """Return (L - min load)/L, dimensionless; 1 means that an expert got nothing. Raises as `max_vio`."""
    loads, mean = checked_loads(loads, mean_load)
    return float(1.0 - loads.min() / mean) if mean > 0 else 0.0


def checked_loads(value: ArrayLike, mean_load: float | None = None) -> tuple[Floats, float]:
    """Return loads [E] as float64 and their mean L, or raise ArgumentError."""
    loads = as_floats(value, "loads", "a vector [E] of counts >= 0")
    if loads.ndim != 1 or not loads.size or not np.isfinite(loads).all() or (loads < 0).any():
        raise ArgumentError("loads", "a vector [E] of counts >= 0", repr(loads.tolist()))
    mean = float(loads.mean()) if mean_load is None else float(mean_load)
    if not 0 <= mean < np.inf:
        raise ArgumentError("mean_load", "a finite number >= 0", repr(mean_load))
    return loads, mean
