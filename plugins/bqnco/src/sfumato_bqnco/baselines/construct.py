"""Constructions: nearest neighbour, farthest insertion, greedy by density. Deterministic, milliseconds.

Sources: D. Rosenkrantz, R. Stearns, P. Lewis, "An analysis of several heuristics for the traveling salesman
problem", SIAM J. Computing 6(3), 1977 (nearest neighbour, farthest insertion); G. Dantzig, "Discrete-variable
extremum problems", Operations Research 5(2), 1957 (filling by density).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..distances import Metric
from .tsp_local import _d

Ints = NDArray[np.int64]


def nearest_neighbour(metric: Metric, start: int = 0) -> Ints:
    """Tour [N] that always goes to the nearest unvisited node; O(N^2) time, O(N) memory."""
    return np.asarray(_nearest(metric.kernel(), metric.n, start))


@njit(cache=True)
def _nearest(metric: Any, n: int, start: int) -> Any:
    left = np.arange(n)
    left[start] = n - 1
    tour = np.empty(n, np.int64)
    tour[0] = start
    at = start
    for t in range(1, n):
        size = n - t
        found, best = 0, np.inf
        for k in range(size):
            d = _d(metric, at, left[k])
            if d < best:
                best, found = d, k
        at = left[found]
        tour[t] = at
        left[found] = left[size - 1]
    return tour


def farthest_insertion(metric: Metric) -> Ints:
    """Tour [N]: insert the node farthest from the tour at its cheapest place; O(N^2) time, O(N) memory."""
    return np.asarray(_farthest(metric.kernel(), metric.n))


@njit(cache=True)
def _farthest(metric: Any, n: int) -> Any:
    follow = np.zeros(n, np.int64)
    away = np.empty(n)
    inside = np.zeros(n, np.bool_)
    inside[0] = True
    for v in range(n):
        away[v] = _d(metric, 0, v)
    for _ in range(n - 1):
        v, best = -1, -1.0
        for u in range(n):
            if not inside[u] and away[u] > best:
                best, v = away[u], u
        place, extra = 0, np.inf
        a = 0
        while True:
            b = follow[a]
            e = _d(metric, a, v) + _d(metric, v, b) - _d(metric, a, b)
            if e < extra:
                extra, place = e, a
            a = b
            if a == 0:
                break
        follow[v] = follow[place]
        follow[place] = v
        inside[v] = True
        for u in range(n):
            away[u] = min(away[u], _d(metric, v, u))
    tour = np.empty(n, np.int64)
    a = 0
    for t in range(n):
        tour[t] = a
        a = follow[a]
    return tour


def density_greedy(value: NDArray[Any], weight: NDArray[Any], capacity: float) -> list[int]:
    """Pack items in order of value per weight, passing over those that no longer fit."""
    order = np.argsort(-value / np.maximum(weight, 1e-12), kind="stable")
    left, packed = capacity + 1e-9, []
    for i in order:
        if weight[i] <= left:
            left -= weight[i]
            packed.append(int(i))
    return packed
