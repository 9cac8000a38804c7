"""Savings and slack induction by string removals for the CVRP (Numba).

Sources: G. Clarke and J. Wright, "Scheduling of vehicles from a central depot to a number of delivery points",
Operations Research 12(4), 1964 (parallel savings). J. Christiaens and G. Vanden Berghe, "Slack induction by string
removals for vehicle routing problems", Transportation Science 54(2), 2020: ruin by strings and split strings, greedy
insertion with blinks, simulated annealing; parameters as there (10 customers a ruin, strings of at most 10, blink
rate 0.01), temperatures in proportion to the size of the map (their 100 to 1 belong to maps of 1000 by 1000).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..distances import Metric, neighbour_lists
from .tsp_local import _d

Routes = list[list[int]]
_MATRIX_UP_TO = 3000


def savings(metric: Metric, demand: NDArray[Any], capacity: float, *, n_neighbours: int = 100) -> Routes:
    """Parallel savings: routes as lists of customers (node 0 is the depot).

    `demand`: [N] with demand[0] = 0. Savings are taken over the `n_neighbours` nearest customers of each customer:
    O(N k log N k).
    """
    n = metric.n
    if n <= 1:
        return []
    near = neighbour_lists(metric, min(n - 1, n_neighbours))
    i = np.repeat(np.arange(n), near.shape[1])
    j = near.ravel()
    keep = (i != 0) & (j != 0)
    i, j = i[keep], j[keep]
    depot = np.asarray(metric(0, np.arange(n)))
    gain = depot[i] + depot[j] - metric(i, j)
    order = np.argsort(-gain, kind="stable")
    route_of, first, last, _load, following = _merge(
        i[order], j[order], gain[order], demand.astype(np.float64), capacity
    )
    routes = []
    for r in range(1, n):
        if route_of[r] == r or first[r] > 0:
            if first[r] == 0:
                continue
            route = [int(first[r])]
            previous = 0
            while route[-1] != last[r]:
                a, b = following[route[-1]]
                step = int(a) if a != previous and a != 0 else int(b)
                previous = route[-1]
                route.append(step)
            routes.append(route)
    return routes


@njit(cache=True)
def _merge(i: Any, j: Any, gain: Any, demand: Any, capacity: float) -> Any:
    """Join route ends in order of savings; `following` [N, 2] holds each customer's two neighbours (0: none)."""
    n = demand.size
    route_of = np.arange(n)
    first = np.arange(n)
    last = np.arange(n)
    load = demand.copy()
    following = np.zeros((n, 2), np.int64)
    for t in range(i.size):
        if gain[t] <= 0.0:
            break
        a, b = i[t], j[t]
        ra, rb = route_of[a], route_of[b]
        if ra == rb or load[ra] + load[rb] > capacity:
            continue
        if (a != first[ra] and a != last[ra]) or (b != first[rb] and b != last[rb]):
            continue
        following[a, 0 if following[a, 0] == 0 else 1] = b
        following[b, 0 if following[b, 0] == 0 else 1] = a
        end_a = last[ra] if a == first[ra] else first[ra]
        end_b = last[rb] if b == first[rb] else first[rb]
        first[ra], last[ra] = end_a, end_b
        load[ra] += load[rb]
        # Only the ends are ever looked up again, so only they are told their new route.
        route_of[end_a] = ra
        route_of[end_b] = ra
        first[rb], last[rb], load[rb] = 0, 0, 0.0
    return route_of, first, last, load, following


@njit(cache=True)
def _uniform(state: Any) -> float:
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return np.float64(x >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _unlink(
    v: int, follow: Any, before: Any, route: Any, load: Any, size: Any, head: Any, demand: Any
) -> None:
    r = route[v]
    a, b = before[v], follow[v]
    if a == 0:
        head[r] = b
    else:
        follow[a] = b
    if b != 0:
        before[b] = a
    load[r] -= demand[v]
    size[r] -= 1
    route[v] = -1


@njit(cache=True)
def _anneal(
    metric: Any, demand: Any, capacity: float, near: Any, follow: Any, before: Any, route: Any, load: Any, size: Any,
    head: Any, best: Any, costs: Any, n_iterations: int, hot: float, cold: float, rng: Any,
) -> None:  # fmt: skip
    """Run `n_iterations` ruins and recreations between temperatures `hot` and `cold`.

    The solution is a linked list (`follow`, `before`, 0 = depot) with `route`, `load`, `size`, `head`; `best` [3, N]
    receives follow, before and route of the best solution; `costs` holds the current and the best cost.
    """
    n = demand.size
    n_slots = head.size
    removed = np.empty(n, np.int64)
    touched = np.zeros(n_slots, np.bool_)
    keys = np.empty(n, np.float64)
    keep_follow, keep_before, keep_route = follow.copy(), before.copy(), route.copy()
    keep_load, keep_size, keep_head = load.copy(), size.copy(), head.copy()
    for iteration in range(n_iterations):
        temperature = hot * (cold / hot) ** (iteration / n_iterations)
        cost = costs[0]
        n_routes = 0
        for r in range(n_slots):
            if size[r] > 0:
                n_routes += 1
        longest = min(10.0, (n - 1) / n_routes)
        most = 4.0 * 10.0 / (1.0 + longest) - 1.0
        n_strings = int(1.0 + _uniform(rng) * most)
        count = 0
        n_touched = 0
        touched[:] = False
        seed = 1 + int(_uniform(rng) * (n - 1))
        for t in range(-1, near.shape[1]):
            if n_touched >= n_strings:
                break
            c = seed if t < 0 else near[seed, t]
            if c == 0 or route[c] < 0 or touched[route[c]]:
                continue
            r = route[c]
            touched[r] = True
            n_touched += 1
            length = int(1.0 + _uniform(rng) * min(float(size[r]), longest))
            if length > size[r]:
                length = size[r]
            spared = 0
            if length > 1 and length < size[r] and _uniform(rng) < 0.5:
                spared = 1
                while length + spared < size[r] and _uniform(rng) < 0.01:
                    spared += 1
            span = length + spared
            # The string of `span` nodes holds c at a random place, as far as the route allows.
            place = 0
            v = before[c]
            while v != 0:
                place += 1
                v = before[v]
            low = max(0, place - span + 1)
            high = min(place, size[r] - span)
            start = low + int(_uniform(rng) * (high - low + 1))
            v = head[r]
            for _ in range(start):
                v = follow[v]
            gap = -1
            if spared > 0:
                gap = 1 + int(_uniform(rng) * (length - 1))
            run_from = before[v]
            for s in range(span):
                following = follow[v]
                if gap >= 0 and s >= gap and s < gap + spared:
                    run_from = v
                    v = following
                    continue
                cost -= _d(metric, run_from, v) + _d(metric, v, following) - _d(metric, run_from, following)
                _unlink(v, follow, before, route, load, size, head, demand)
                removed[count] = v
                count += 1
                v = following
        pick = _uniform(rng) * 11.0
        for t in range(count):
            v = removed[t]
            if pick < 4.0:
                keys[t] = _uniform(rng)
            elif pick < 8.0:
                keys[t] = -demand[v]
            elif pick < 10.0:
                keys[t] = -_d(metric, 0, v)
            else:
                keys[t] = _d(metric, 0, v)
        order = np.argsort(keys[:count])
        for t in range(count):
            v = removed[order[t]]
            found = np.inf
            best_route = -1
            best_after = 0
            empty = -1
            for r in range(n_slots):
                if size[r] == 0:
                    empty = r
                    continue
                if load[r] + demand[v] > capacity + 1e-9:
                    continue
                a = 0
                d_av = _d(metric, 0, v)
                while True:
                    b = head[r] if a == 0 else follow[a]
                    d_vb = _d(metric, v, b)
                    extra = d_av + d_vb - _d(metric, a, b)
                    if extra < found and _uniform(rng) >= 0.01:
                        found = extra
                        best_route = r
                        best_after = a
                    if b == 0:
                        break
                    a = b
                    d_av = d_vb
            if best_route < 0:
                best_route = empty
                best_after = 0
                found = 2.0 * _d(metric, 0, v)
            cost += found
            a = best_after
            b = head[best_route] if a == 0 else follow[a]
            if size[best_route] == 0:
                b = 0
            follow[v] = b
            before[v] = a
            if a == 0:
                head[best_route] = v
            else:
                follow[a] = v
            if b != 0:
                before[b] = v
            route[v] = best_route
            load[best_route] += demand[v]
            size[best_route] += 1
        if cost < costs[0] - temperature * np.log(_uniform(rng) + 1e-300):
            costs[0] = cost
            keep_follow[:], keep_before[:], keep_route[:] = follow, before, route
            keep_load[:], keep_size[:], keep_head[:] = load, size, head
            if cost < costs[1] - 1e-9:
                costs[1] = cost
                best[0], best[1], best[2] = follow, before, route
        else:
            follow[:], before[:], route[:] = keep_follow, keep_before, keep_route
            load[:], size[:], head[:] = keep_load, keep_size, keep_head


def _routes(best: NDArray[np.int64]) -> Routes:
    follow, before, _ = best
    routes = []
    for v in np.flatnonzero(before[1:] == 0) + 1:
        route = [int(v)]
        while follow[route[-1]] != 0:
            route.append(int(follow[route[-1]]))
        routes.append(route)
    return routes


def string_removals(
    metric: Metric,
    demand: NDArray[Any],
    capacity: float,
    rng: np.random.Generator,
    *,
    start: Routes | None = None,
    seconds: float | None = None,
    n_iterations: int | None = None,
    hot: float = 0.1,
    cold: float = 0.001,
    clock: Callable[[], float] = time.perf_counter,
    on_incumbent: Callable[[float, Routes], None] | None = None,
) -> Routes:
    """Improve `start` (savings when absent) until `seconds` have passed or `n_iterations` are done.

    `hot`, `cold`: first and last temperature as shares of the longer side of the map (matrix: of the largest cost).
    With `n_iterations` the result is a function of the generator alone. Never returns worse than it was given.
    """
    began = clock()
    n = metric.n
    routes = savings(metric, demand, capacity) if start is None else [list(r) for r in start if r]
    if n <= 2 or (seconds is not None and seconds <= 0):
        return routes
    if seconds is None and n_iterations is None:
        raise ValueError(
            "string_removals: expected `seconds` or `n_iterations`, got neither; pass one of them"
        )
    if metric.kind == "matrix":
        side = float(metric.matrix.max())
    else:
        side = float(np.ptp(metric.xy, axis=0).max())
        if n <= _MATRIX_UP_TO:
            metric = Metric("matrix", matrix=metric.full())
    side = side or 1.0
    near = neighbour_lists(metric, min(n - 1, 250))
    # Removed customers may at worst each need a route of their own.
    n_slots = len(routes) + min(n, 48)
    follow, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
    route = np.full(n, -1, np.int64)
    load, size, head = np.zeros(n_slots), np.zeros(n_slots, np.int64), np.zeros(n_slots, np.int64)
    demand = np.asarray(demand, dtype=np.float64)
    cost = 0.0
    for r, nodes in enumerate(routes):
        path = np.array([0, *nodes, 0])
        cost += float(np.sum(metric(path[:-1], path[1:])))
        head[r], size[r], load[r] = nodes[0], len(nodes), demand[nodes].sum()
        route[nodes] = r
        follow[path[1:-1]], before[path[1:-1]] = path[2:], path[:-2]
    best = np.stack((follow, before, route))
    costs = np.array([cost, cost])
    state = np.array([rng.integers(1, 2**63)], dtype=np.uint64)
    if on_incumbent:
        on_incumbent(cost, routes)
    kernel = metric.kernel()
    done, known, batch = 0, cost, 50
    while True:
        if n_iterations is not None:
            size_of_batch = min(1000, n_iterations - done)
            if size_of_batch <= 0:
                break
            along, to = done / n_iterations, (done + size_of_batch) / n_iterations
        else:
            assert seconds is not None
            along = (clock() - began) / seconds
            if along >= 1.0:
                break
            size_of_batch, to = batch, min(1.0, along * (done + batch) / max(done, 1)) if done else along
        high, low = (hot * side * (cold / hot) ** s for s in (along, to))
        stamp = clock()
        _anneal(
            kernel, demand, float(capacity), near, follow, before, route, load, size, head, best, costs, size_of_batch,
            high, low, state,
        )  # fmt: skip
        done += size_of_batch
        if seconds is not None:
            # Aim at batches of a fiftieth of the budget: short enough for the clock, long enough for the kernel.
            spent = max(clock() - stamp, 1e-6)
            batch = (
                int(np.clip(size_of_batch / spent * min(seconds / 50, 0.2), 10, 20000)) if done > 50 else 50
            )
        if on_incumbent and costs[1] < known - 1e-9:
            known = costs[1]
            on_incumbent(known, _routes(best))
    return _routes(best)
