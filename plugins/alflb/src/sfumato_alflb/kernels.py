"""Compiled routing (numba): one whole routing, and an exact incremental one for fixed scores.

Needs the extra `compiled`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, MissingExtraError
from .problem import AlfProblem, Bools, Floats, Ints, Routing, checked_k, refuse_non_finite, route

try:
    from numba import njit
except ImportError as error:
    raise MissingExtraError("the compiled engine", "compiled") from error

_EPOCHS = 256
_LANES, _EXPERTS = 32, 64  # 16 KiB of scores
_MOST_K = 32  # sinking costs K comparisons a score: beyond, numpy's partition is faster


@njit(cache=True, nogil=True)
def _top(row, bias, k, values, picks):  # type: ignore[no-untyped-def]
    """Fill values/picks [k+1] with the k+1 best of row + bias, best first; ties keep the lowest index."""
    for j in range(k + 1):
        values[j] = -np.inf
    last = -np.inf
    for e in range(row.shape[0]):
        v = row[e] + bias[e]
        if v > last:
            j = k
            while j > 0 and values[j - 1] < v:
                values[j] = values[j - 1]
                picks[j] = picks[j - 1]
                j -= 1
            values[j] = v
            picks[j] = e
            last = values[k]


@njit(cache=True, nogil=True)
def _level(a, t, u, v, w):  # type: ignore[no-untyped-def]
    """Return the largest of five values, and the other four."""
    b = a if a > t else t
    t = t if a > t else a
    a = b if b > u else u
    u = u if b > u else b
    b = a if a > v else v
    v = v if a > v else a
    a = b if b > w else w
    w = w if b > w else b
    return a, t, u, v, w


@njit(cache=True, nogil=True)
def _sink4(best, sinking):  # type: ignore[no-untyped-def]
    """Let four experts' values of every lane sink through four levels of the lanes' sorted best values.

    best, sinking: four rows of _LANES, one after the other. Every value is loaded once for sixteen comparisons: one
    level and one expert at a time spends most of its time on moving values between memory and registers. Flat
    arrays with constant offsets tell the compiler what may overlap; two axes made it check at every call.
    """
    for lane in range(_LANES):
        l1, l2, l3 = lane + _LANES, lane + 2 * _LANES, lane + 3 * _LANES
        t, u, v, w = sinking[lane], sinking[l1], sinking[l2], sinking[l3]
        best[lane], t, u, v, w = _level(best[lane], t, u, v, w)
        best[l1], t, u, v, w = _level(best[l1], t, u, v, w)
        best[l2], t, u, v, w = _level(best[l2], t, u, v, w)
        best[l3], t, u, v, w = _level(best[l3], t, u, v, w)
        sinking[lane], sinking[l1], sinking[l2], sinking[l3] = t, u, v, w


@njit(cache=True, nogil=True)
def _sink1(best, sinking):  # type: ignore[no-untyped-def]
    """As `_sink4`, through one level: one row of best, four of sinking."""
    for lane in range(_LANES):
        l1, l2, l3 = lane + _LANES, lane + 2 * _LANES, lane + 3 * _LANES
        t, u, v, w = sinking[lane], sinking[l1], sinking[l2], sinking[l3]
        best[lane], t, u, v, w = _level(best[lane], t, u, v, w)
        sinking[lane], sinking[l1], sinking[l2], sinking[l3] = t, u, v, w


@njit(cache=True, nogil=True)
def _mark(scores, bias, threshold, chosen, loads):  # type: ignore[no-untyped-def]
    """Mark in chosen [n, E] the entries that reach their row's threshold [n], add them to loads; count NaN."""
    n_nan = 0
    for t in range(scores.shape[0]):
        least = threshold[t]
        for e in range(scores.shape[1]):
            v = scores[t, e] + bias[e]
            hit = v >= least
            chosen[t, e] = hit
            loads[e] += hit
            n_nan += v != v
    return n_nan


@njit(cache=True, nogil=True)
def _route(scores, bias, k, chosen, loads):  # type: ignore[no-untyped-def]
    """Route every token: fill chosen [T, E] and loads [E]; return the sum of the biased chosen scores.

    Tokens go through in blocks of _LANES and experts in blocks of _EXPERTS, turned so that the lanes lie side by
    side and the block stays in the first cache. Each lane keeps its k best values sorted, and new values sink
    through them by max and min: no branch depends on the data, so the compiler makes vector instructions of all
    inner loops.
    """
    n_tokens, n_experts = scores.shape
    turned = np.empty(_EXPERTS * _LANES)
    best = np.empty(k * _LANES)
    loads[:] = 0
    value = 0.0
    n_nan = 0
    for start in range(0, n_tokens, _LANES):
        lanes = min(_LANES, n_tokens - start)
        best[:] = -np.inf
        for e0 in range(0, n_experts, _EXPERTS):
            n = min(_EXPERTS, n_experts - e0)
            if lanes < _LANES or n % 4:
                turned[:] = -np.inf
            for lane in range(lanes):
                for e in range(n):
                    turned[e * _LANES + lane] = scores[start + lane, e0 + e] + bias[e0 + e]
            for e in range(0, n, 4):
                four = turned[e * _LANES : (e + 4) * _LANES]
                j = 0
                while j + 4 <= k:
                    _sink4(best[j * _LANES : (j + 4) * _LANES], four)
                    j += 4
                while j < k:
                    _sink1(best[j * _LANES : (j + 1) * _LANES], four)
                    j += 1
        block = slice(start, start + lanes)
        n_nan += _mark(scores[block], bias, best[(k - 1) * _LANES :], chosen[block], loads)
        for lane in range(lanes):
            for j in range(k):
                value += best[j * _LANES + lane]
    return value if n_nan == 0 else np.nan  # max and min pass over NaN, so it is counted


@njit(cache=True, nogil=True)
def _untie(scores, bias, k, chosen, loads):  # type: ignore[no-untyped-def]
    """In rows with more than k marks, keep the tied experts with the lowest indices."""
    for t in range(scores.shape[0]):
        n = 0
        for e in range(scores.shape[1]):
            n += chosen[t, e]
        if n == k:
            continue
        least = np.inf
        for e in range(scores.shape[1]):
            if chosen[t, e]:
                least = min(least, scores[t, e] + bias[e])
        for e in range(scores.shape[1] - 1, -1, -1):
            if n > k and chosen[t, e] and scores[t, e] + bias[e] == least:
                chosen[t, e] = False
                loads[e] -= 1
                n -= 1


@njit(cache=True, nogil=True)
def _refresh(scores, bias, k, now, spread, guard, experts, margin, epoch, own, loads):  # type: ignore[no-untyped-def]
    """Route again the tokens whose choice can have changed; update everything in place; return how many.

    spread [_EPOCHS]: max minus min of (bias now - bias at that epoch). A token routed at that epoch with
    margin m between its k-th and (k+1)-th choice keeps its set while spread < m.
    """
    values = np.empty(k + 1)
    picks = np.empty(k + 1, dtype=np.int32)
    n_routed = 0
    for t in range(scores.shape[0]):
        if now - epoch[t] < _EPOCHS and spread[epoch[t] % _EPOCHS] + guard < margin[t]:
            continue
        n_routed += 1
        if epoch[t] >= 0:
            for j in range(k):
                loads[experts[t, j]] -= 1
        _top(scores[t], bias, k, values, picks)
        total = 0.0
        for j in range(k):
            experts[t, j] = picks[j]
            loads[picks[j]] += 1
            total += scores[t, picks[j]]
        own[t] = total
        margin[t] = values[k - 1] - values[k]
        epoch[t] = now
    return n_routed


def route_compiled(scores: Floats, bias: Floats, k: int) -> Routing:
    """Return what `problem.route` returns, bit for bit in choice and loads.

    Cost O(T*E*K), vectorised; for k > 32 the numpy path, O(T*E), is the faster and is taken.
    """
    if k > _MOST_K:
        return route(scores, bias, k)
    chosen: Bools = np.empty(scores.shape, dtype=np.bool_)
    loads: Ints = np.empty(scores.shape[1], dtype=np.int64)
    if bias.shape != (scores.shape[1],):
        raise ArgumentError("bias", f"a vector [E] with E = {scores.shape[1]}", f"shape {bias.shape}")
    checked_k(k, scores.shape[1])
    value = _route(scores, bias, k, chosen, loads)
    if int(loads.sum()) != scores.shape[0] * k:
        _untie(scores, bias, k, chosen, loads)
    refuse_non_finite(value, scores, bias)
    return Routing(chosen, loads, float(value))


def _mask(experts: NDArray[np.int32], n_experts: int) -> Bools:
    chosen = np.zeros((experts.shape[0], n_experts), dtype=np.bool_)
    np.put_along_axis(chosen, experts.astype(np.int64), True, axis=1)
    return chosen


class IncrementalRouter:
    """Route one fixed batch at a sequence of biases, touching only tokens that can have moved.

    Exact, by the argument of the preference rule: a token changes its set only if the bias of one expert
    has gained more on another's, since the token was last routed, than the margin between its K-th and
    (K+1)-th choice. Near convergence that is a handful of tokens in a thousand. Memory: T*(K + 3) words
    and the last 256 biases.
    """

    def __init__(self, problem: AlfProblem) -> None:
        n_tokens, n_experts, k = problem.n_tokens, problem.n_experts, problem.k
        self._scores, self._k = problem.scores, k
        self._experts = np.zeros((n_tokens, k), dtype=np.int32)
        self._margin = np.zeros(n_tokens)
        # An epoch before all others: every token is routed the first time.
        self._epoch: Ints = np.full(n_tokens, -_EPOCHS, dtype=np.int64)
        self._own = np.zeros(n_tokens)
        self._loads: Ints = np.zeros(n_experts, dtype=np.int64)
        self._ring = np.zeros((_EPOCHS, n_experts))
        self._now = 0
        self._scale = float(np.abs(problem.scores).max(initial=0.0))
        self.n_routed = 0

    def loads_and_objective(self, bias: Floats) -> tuple[Ints, float]:
        """Return the loads [E] at this bias and the sum of the unbiased chosen scores."""
        moved = bias - self._ring
        spread = moved.max(axis=1) - moved.min(axis=1)
        self._ring[self._now % _EPOCHS] = bias
        # Sums of scores and biases are rounded; within a few ulps of a tie a token is routed again.
        guard = 16 * np.finfo(np.float64).eps * (self._scale + float(np.abs(bias).max()) + 1.0)
        self.n_routed += _refresh(
            self._scores, bias, self._k, self._now, spread, guard,
            self._experts, self._margin, self._epoch, self._own, self._loads,
        )  # fmt: skip
        self._now += 1
        return self._loads.copy(), float(self._own.sum())

    def chosen(self) -> Bools:
        """Return the choice [T, E] of the last routing."""
        return _mask(self._experts, self._loads.shape[0])
