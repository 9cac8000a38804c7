"""Constructions: nearest neighbour, farthest insertion, greedy by density. Deterministic, milliseconds.

Sources: D. Rosenkrantz, R. Stearns, P. Lewis, "An analysis of several heuristics for the traveling salesman
problem", SIAM J. Computing 6(3), 1977 (nearest neighbour, farthest insertion); G. Dantzig, "Discrete-variable
extremum problems", Operations Research 5(2), 1957 (filling by density); M. Solomon, "Algorithms for the vehicle routing
and scheduling problems with time window constraints", Operations Research 35(2), 1987 (sequential insertion).
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


def time_insertion(metric: Metric, demand: Any, capacity: float, windows: Any, service: Any) -> list[list[int]] | None:
    """Routes of a CVRPTW by Solomon's sequential insertion I1 (mu = 1, alpha = 1/2, lambda = 1); O(N^3) at worst.

    Each route opens with the customer farthest from the depot; then the customer is inserted that gains most over a
    route of its own, at the place where detour and delay are least. None when some customer cannot be served even by a
    vehicle of its own.
    """
    out = np.full((metric.n, metric.n), -1, np.int64)
    count = _time_insertion(
        metric.kernel(), np.asarray(demand, float), float(capacity), np.asarray(windows, float),
        np.asarray(service, float), out,
    )  # fmt: skip
    return None if count < 0 else [[int(v) for v in row if v >= 0] for row in out[:count]]


@njit(cache=True)
def _time_insertion(metric: Any, demand: Any, capacity: float, windows: Any, service: Any, out: Any) -> int:
    n = demand.size
    served = np.zeros(n, np.bool_)
    served[0] = True
    left = n - 1
    n_routes = 0
    route = np.empty(n + 1, np.int64)
    start = np.empty(n + 1, np.float64)
    while left > 0:
        seed, far = -1, -1.0
        for v in range(1, n):
            if not served[v] and _d(metric, 0, v) > far:
                far, seed = _d(metric, 0, v), v
        route[0], route[1], route[2] = 0, seed, 0
        size = 3
        load = 0.0
        node, place = seed, 0
        while node >= 0:
            if node != seed or size > 3:
                for t in range(size, place + 1, -1):
                    route[t] = route[t - 1]
                route[place + 1] = node
                size += 1
            served[node] = True
            load += demand[node]
            left -= 1
            # Starts of service along the route; it must be on time everywhere.
            start[0] = windows[0, 0]
            for t in range(1, size):
                a, b = route[t - 1], route[t]
                start[t] = max(start[t - 1] + service[a] + _d(metric, a, b), windows[b, 0])
                if start[t] > windows[b, 1] + 1e-9:
                    return -1
            best = -np.inf
            node = -1
            for v in range(1, n):
                if served[v] or load + demand[v] > capacity:
                    continue
                cheapest, at = np.inf, -1
                for t in range(size - 1):
                    a, b = route[t], route[t + 1]
                    here = max(start[t] + service[a] + _d(metric, a, v), windows[v, 0])
                    if here > windows[v, 1]:
                        break
                    after = max(here + service[v] + _d(metric, v, b), windows[b, 0])
                    cost = 0.5 * (_d(metric, a, v) + _d(metric, v, b) - _d(metric, a, b)) + 0.5 * (after - start[t + 1])
                    if cost >= cheapest:
                        continue
                    fits = after <= windows[b, 1]
                    late = after
                    k = t + 1
                    while fits and k < size - 1 and late > start[k]:
                        late = max(late + service[route[k]] + _d(metric, route[k], route[k + 1]), windows[route[k + 1], 0])
                        fits = late <= windows[route[k + 1], 1]
                        k += 1
                    if fits:
                        cheapest, at = cost, t
                if at >= 0 and _d(metric, 0, v) - cheapest > best:
                    best, node, place = _d(metric, 0, v) - cheapest, v, at
        for t in range(size - 2):
            out[n_routes, t] = route[t + 1]
        n_routes += 1
    return n_routes


def time_nearest(metric: Metric, demand: Any, capacity: float, windows: Any, service: Any) -> list[list[int]] | None:
    """Routes of a CVRPTW that always go to the customer who can be served soonest; O(N^2) time, O(N) memory.

    Solomon's time-oriented nearest neighbour with the start of service alone as the measure. None as above.
    """
    order, first = np.empty(metric.n - 1, np.int64), np.zeros(metric.n - 1, np.bool_)
    fine = _time_nearest(
        metric.kernel(), np.asarray(demand, float), float(capacity), np.asarray(windows, float),
        np.asarray(service, float), order, first,
    )  # fmt: skip
    return [[int(v) for v in r] for r in np.split(order, np.flatnonzero(first)[1:])] if fine else None


@njit(cache=True)
def _time_nearest(
    metric: Any, demand: Any, capacity: float, windows: Any, service: Any, order: Any, first: Any
) -> bool:
    n = demand.size
    left = np.arange(1, n)
    size = n - 1
    at, load, clock = 0, 0.0, windows[0, 0]
    for t in range(n - 1):
        while True:
            found, soonest = -1, np.inf
            for k in range(size):
                v = left[k]
                if load + demand[v] > capacity:
                    continue
                here = max(clock + service[at] + _d(metric, at, v), windows[v, 0])
                home = here + service[v] + _d(metric, v, 0)
                if here < soonest and here <= windows[v, 1] + 1e-9 and home <= windows[0, 1] + 1e-9:
                    soonest, found = here, k
            if found >= 0:
                break
            if at == 0:
                return False
            at, load, clock = 0, 0.0, windows[0, 0]
        order[t] = left[found]
        first[t] = at == 0
        at, clock = left[found], soonest
        load += demand[at]
        left[found] = left[size - 1]
        size -= 1
    return True
