"""Compiled routing (numba): one whole routing, and an exact incremental one for fixed scores.

Needs the extra `compiled`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, MissingExtraError
from .problem import AlfProblem, Bools, Floats, Ints, Routing, checked_k, refuse_non_finite

try:
    from numba import njit
except ImportError as error:
    raise MissingExtraError("the compiled engine", "compiled") from error

_EPOCHS = 256
_LANES = 32


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
def _route(scores, bias, k, chosen, loads):  # type: ignore[no-untyped-def]
    """Route every token: fill chosen [T, E] and loads [E]; return the sum of the biased chosen scores.

    Tokens go through in blocks of _LANES, turned so that the lanes lie side by side. Each lane keeps its
    k best values sorted, and a new value sinks through them by max and min: no branch depends on the
    data, so the compiler makes vector instructions of all inner loops.
    """
    n_tokens, n_experts = scores.shape
    turned = np.empty((n_experts, _LANES))
    best = np.empty((k, _LANES))
    sinking = np.empty(_LANES)
    hits = np.empty(_LANES, dtype=np.int64)
    loads[:] = 0
    value = 0.0
    n_nan = 0
    for first in range(0, n_tokens, _LANES):
        lanes = min(_LANES, n_tokens - first)
        for lane in range(lanes):
            for e in range(n_experts):
                turned[e, lane] = scores[first + lane, e] + bias[e]
        for lane in range(lanes, _LANES):
            for e in range(n_experts):
                turned[e, lane] = -np.inf
        best[:, :] = -np.inf
        for e in range(n_experts):
            for lane in range(_LANES):
                sinking[lane] = turned[e, lane]
            for j in range(k):
                for lane in range(_LANES):
                    a, b = best[j, lane], sinking[lane]
                    best[j, lane] = a if a > b else b
                    sinking[lane] = b if a > b else a
        hits[:] = 0
        for e in range(n_experts):
            on_expert = 0
            for lane in range(lanes):
                hit = turned[e, lane] >= best[k - 1, lane]
                chosen[first + lane, e] = hit
                hits[lane] += hit
                on_expert += hit
                n_nan += turned[e, lane] != turned[e, lane]
            loads[e] += on_expert
        for lane in range(lanes):
            for j in range(k):
                value += best[j, lane]
            if hits[lane] > k:
                # Several experts tie for the last places: keep the lowest indices.
                room = k
                for e in range(n_experts):
                    room -= turned[e, lane] > best[k - 1, lane]
                for e in range(n_experts):
                    if turned[e, lane] == best[k - 1, lane]:
                        if room > 0:
                            room -= 1
                        else:
                            chosen[first + lane, e] = False
                            loads[e] -= 1
    # Max and min pass over NaN, so it is counted.
    return value if n_nan == 0 else np.nan


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
    """Return what `problem.route` returns, bit for bit in choice and loads. Cost O(T*E*K), vectorised."""
    chosen: Bools = np.empty(scores.shape, dtype=np.bool_)
    loads: Ints = np.empty(scores.shape[1], dtype=np.int64)
    if bias.shape != (scores.shape[1],):
        raise ArgumentError("bias", f"a vector [E] with E = {scores.shape[1]}", f"shape {bias.shape}")
    checked_k(k, scores.shape[1])
    value = _route(scores, bias, k, chosen, loads)
    refuse_non_finite(value, scores)
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
