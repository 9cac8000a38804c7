"""Or-3opt for the asymmetric TSP: exchanges of two neighbouring paths, with kicks (Numba).

Exchanging two consecutive paths is the only 3-opt move that keeps every path's direction, so it needs no reversal and
fits asymmetric costs; with one path of bounded length it contains Or-opt. The kick is a random exchange.

Source: P. Kanellakis and C. Papadimitriou, "Local search for the asymmetric traveling salesman problem", Operations
Research 28(5), 1980; here with neighbour lists and bounded windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .tsp_local import _random

Tour = NDArray[np.int64]


@njit(cache=True)
def _swap_paths(tour: Any, pos: Any, i: int, j: int, k: int, buffer: Any) -> None:
    """Turn positions (i, j], (j, k] into (j, k], (i, j]; cyclic, i < j < k as offsets from i."""
    n = tour.size
    first, second = j - i, k - j
    for t in range(first):
        buffer[t] = tour[(i + 1 + t) % n]
    for t in range(second):
        v = tour[(j + 1 + t) % n]
        at = (i + 1 + t) % n
        tour[at] = v
        pos[v] = at
    for t in range(first):
        at = (i + 1 + second + t) % n
        tour[at] = buffer[t]
        pos[buffer[t]] = at


@njit(cache=True)
def _descend_from(
    matrix: Any, tour: Any, pos: Any, near: Any, stack: Any, on: Any, top: int, buffer: Any
) -> float:
    """Path exchanges around the stacked nodes until none improves; returns the gain."""
    n = tour.size
    gain = 0.0
    while top > 0:
        top -= 1
        a = stack[top]
        on[a] = False
        again = True
        while again:
            again = False
            i = pos[a]
            b = tour[(i + 1) % n]
            # New edge a -> c; c opens the second path, d ends the first; the second ends anywhere up to the window.
            for c in near[a]:
                g1 = matrix[a, b] - matrix[a, c]
                if g1 <= 1e-9:
                    break
                j = (pos[c] - 1 - i) % n
                if j < 1 or j > n - 2:
                    continue
                d = tour[(i + j) % n]
                best, best_k = 1e-9, -1
                for k in range(j + 1, min(n, j + 51)):
                    e = tour[(i + k) % n]
                    f = tour[(i + k + 1) % n]
                    delta = g1 + matrix[d, c] + matrix[e, f] - matrix[e, b] - matrix[d, f]
                    if delta > best:
                        best, best_k = delta, k
                if best_k < 0 and j <= 51:
                    for k in range(j + 51, n):
                        e = tour[(i + k) % n]
                        f = tour[(i + k + 1) % n]
                        delta = g1 + matrix[d, c] + matrix[e, f] - matrix[e, b] - matrix[d, f]
                        if delta > best:
                            best, best_k = delta, k
                if best_k >= 0:
                    e = tour[(i + best_k) % n]
                    f = tour[(i + best_k + 1) % n]
                    _swap_paths(tour, pos, i, i + j, i + best_k, buffer)
                    gain += best
                    for v in (b, c, d, e, f):
                        if not on[v] and v != a:
                            on[v] = True
                            stack[top] = v
                            top += 1
                    again = True
                    break
    return gain


@njit(cache=True)
def _run(matrix: Any, tour: Any, near: Any, n_kicks: int, rng: Any) -> float:
    """Kicks, each followed by a descent; a kick that does harm is undone from a copy. Returns the total gain."""
    n = tour.size
    pos = np.empty(n, np.int64)
    pos[tour] = np.arange(n)
    keep = tour.copy()
    stack = np.empty(n + 8, np.int64)
    on = np.zeros(n, np.bool_)
    buffer = np.empty(n, np.int64)
    total = 0.0
    span = max(1, min(30, (n - 2) // 2))
    for _ in range(n_kicks):
        i = _random(rng, n)
        j = 1 + _random(rng, span)
        k = j + 1 + _random(rng, span)
        if k > n - 1:
            continue
        a, b = tour[i], tour[(i + 1) % n]
        d, c = tour[(i + j) % n], tour[(i + j + 1) % n]
        e, f = tour[(i + k) % n], tour[(i + k + 1) % n]
        loss = matrix[a, c] + matrix[e, b] + matrix[d, f] - matrix[a, b] - matrix[d, c] - matrix[e, f]
        _swap_paths(tour, pos, i, i + j, i + k, buffer)
        top = 0
        for v in (a, b, c, d, e, f):
            if not on[v]:
                on[v] = True
                stack[top] = v
                top += 1
        gain = _descend_from(matrix, tour, pos, near, stack, on, top, buffer)
        if gain < loss - 1e-9:
            tour[:] = keep
            pos[tour] = np.arange(n)
        else:
            total += gain - loss
            keep[:] = tour
    return total


def path_exchange(
    matrix: NDArray[np.float64],
    tour: Tour,
    rng: np.random.Generator,
    *,
    seconds: float | None = None,
    n_kicks: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_incumbent: Callable[[float, Tour], None] | None = None,
) -> Tour:
    """Improve a directed tour [N] until `seconds` have passed or `n_kicks` are done (0: one descent)."""
    began = clock()
    matrix = np.ascontiguousarray(matrix, dtype=np.float64)
    tour = np.array(tour, dtype=np.int64)
    n = len(tour)
    if n < 5:
        return tour
    off = matrix + np.diag(np.full(n, np.inf))
    near = np.argsort(off, axis=1, kind="stable")[:, : min(12, n - 1)]
    pos = np.empty(n, np.int64)
    pos[tour] = np.arange(n)
    _descend_from(
        matrix,
        tour,
        pos,
        near,
        np.r_[tour, np.zeros(8, np.int64)],
        np.ones(n, np.bool_),
        n,
        np.empty(n, np.int64),
    )

    def length() -> float:
        return float(matrix[tour, np.roll(tour, -1)].sum())

    if on_incumbent:
        on_incumbent(length(), tour.copy())
    if seconds is None and n_kicks is None:
        return tour
    state = np.array([rng.integers(1, 2**63)], dtype=np.uint64)
    done = 0
    while (n_kicks is None or done < n_kicks) and (seconds is None or clock() - began < seconds):
        size = 100 if n_kicks is None else min(100, n_kicks - done)
        gain = _run(matrix, tour, near, size, state)
        done += size
        if gain > 1e-9 and on_incumbent:
            on_incumbent(length(), tour.copy())
    return tour
