"""2-opt and Or-opt for the symmetric TSP, with neighbour lists, a work queue and double-bridge kicks (Numba).

Every change of the tour is a sequence of reversals, and a reversal undoes itself; so a rejected kick is rolled
back from a log at the price of the work it did, not of a copy of the tour.

Sources: Or-opt, I. Or, PhD thesis, Northwestern 1976; neighbour lists and don't-look bits, J. Bentley, "Fast
algorithms for geometric traveling salesman problems", ORSA J. Computing 4(4), 1992; segment-local double bridge,
D. Johnson and L. McGeoch, "The traveling salesman problem: a case study in local optimization", 1997.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..distances import Metric, neighbour_lists

Tour = NDArray[np.int64]
_MAX_LOG = 1 << 16


@njit(cache=True)
def _d(metric: Any, i: int, j: int) -> float:
    """Distance of i and j: from the matrix when there is one, else from coordinates and rounding."""
    kind, xy, matrix = metric
    if kind == 0:
        return matrix[i, j]
    dx = xy[i, 0] - xy[j, 0]
    dy = xy[i, 1] - xy[j, 1]
    d = np.sqrt(dx * dx + dy * dy)
    if kind == 2:
        return np.floor(d + 0.5)
    if kind == 3:
        return np.ceil(d)
    return d


@njit(cache=True)
def tour_length(metric: Any, tour: Tour) -> float:
    """Length of the closed tour."""
    n = tour.size
    total = _d(metric, tour[n - 1], tour[0])
    for i in range(n - 1):
        total += _d(metric, tour[i], tour[i + 1])
    return total


@njit(cache=True)
def _random(state: Any, bound: int) -> int:
    """Integer in [0, bound) by xorshift64; `state` is uint64 [1], seeded from a generator handed in."""
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return int(np.int64((x >> np.uint64(11)) % np.uint64(bound)))


@njit(cache=True)
def _reverse(tour: Tour, pos: Tour, i: int, j: int) -> None:
    """Reverse the cyclic positions i..j, or their complement when that is shorter (the same cycle)."""
    n = tour.size
    inner = j - i + 1
    if inner <= 0:
        inner += n
    if 2 * inner > n:
        i, j = j + 1, i - 1
        if i == n:
            i = 0
        if j < 0:
            j = n - 1
        inner = n - inner
    for _ in range(inner // 2):
        a, b = tour[i], tour[j]
        tour[i] = b
        pos[b] = i
        tour[j] = a
        pos[a] = j
        i += 1
        if i == n:
            i = 0
        j -= 1
        if j < 0:
            j = n - 1


@njit(cache=True)
def _exchange(tour: Tour, pos: Tour, log: Tour, used: int, x: int, y: int, z: int, w: int) -> int:
    """Replace edges (x, y), (z, w) by (x, z), (y, w), whichever way the array runs now; returns the log's length."""
    n = tour.size
    after = pos[x] + 1
    if after == n:
        after = 0
    i, j = (pos[y], pos[z]) if tour[after] == y else (pos[x], pos[w])
    if used >= 0 and used < log.shape[0]:
        log[used, 0] = i
        log[used, 1] = j
        used += 1
    _reverse(tour, pos, i, j)
    return used


@njit(cache=True)
def _move_segment(
    tour: Tour, pos: Tour, log: Tour, used: int,
    p: int, s1: int, s2: int, nx: int, c: int, e: int, c_comes_first: bool,
) -> int:  # fmt: skip
    """Move path s1..s2 from between p and nx to between c and e, so that s1 meets c and s2 meets e."""
    if c_comes_first:
        used = _exchange(tour, pos, log, used, p, s1, s2, nx)
        s1, s2, c, e = s2, s1, e, c
    used = _exchange(tour, pos, log, used, p, s1, e, c)
    return _exchange(tour, pos, log, used, p, e, nx, s2)


@njit(cache=True)
def _step(tour: Tour, pos: Tour, v: int, direction: int) -> int:
    i = pos[v] + direction
    if i == tour.size:
        i = 0
    elif i < 0:
        i = tour.size - 1
    return tour[i]


@njit(cache=True)
def _descend(
    metric: Any,
    tour: Tour,
    pos: Tour,
    near: Any,
    queue: Tour,
    queued: Any,
    n_queued: int,
    log: Tour,
    used: int,
) -> tuple[float, int]:
    """Apply improving 2-opt and Or-opt moves until the queue is empty; returns the gain and the log's length."""
    n = tour.size
    gain = 0.0
    head = 0
    eps = 1e-9
    while n_queued > 0:
        a = queue[head]
        head += 1
        if head == n:
            head = 0
        n_queued -= 1
        queued[a] = False
        improved = True
        while improved:
            if used > log.shape[0] - 8:
                return gain, used
            improved = False
            touched = (a, a, a, a, a, a)
            for direction in (1, -1):
                b = _step(tour, pos, a, direction)
                d_ab = _d(metric, a, b)
                for c in near[a]:
                    g = d_ab - _d(metric, a, c)
                    if g <= eps:
                        break
                    d = _step(tour, pos, c, direction)
                    if c == b or d == a:
                        continue
                    delta = g + _d(metric, c, d) - _d(metric, b, d)
                    if delta > eps:
                        used = _exchange(tour, pos, log, used, a, b, c, d)
                        gain += delta
                        touched = (a, b, c, d, a, b)
                        improved = True
                        break
                if improved:
                    break
            if not improved:
                # Or-opt: a is one end of a path of one to three nodes; p lies beyond a, nx beyond the other end.
                for direction in (1, -1):
                    s2 = a
                    for length in range(1, 4):
                        if length > 1:
                            s2 = _step(tour, pos, s2, direction)
                        if length > n - 3:
                            break
                        p = _step(tour, pos, a, -direction)
                        nx = _step(tour, pos, s2, direction)
                        removed = _d(metric, p, a) + _d(metric, s2, nx) - _d(metric, p, nx)
                        if removed <= eps:
                            continue
                        for c in near[a]:
                            d_ac = _d(metric, a, c)
                            if d_ac >= removed - eps:
                                break
                            offset = (pos[c] - pos[a]) * direction
                            if offset < 0:
                                offset += n
                            if offset < length:
                                continue
                            for side in (1, -1):
                                e = _step(tour, pos, c, direction * side)
                                if (c == p and side == 1) or (c == nx and side == -1):
                                    continue
                                delta = removed - d_ac - _d(metric, s2, e) + _d(metric, c, e)
                                if delta > eps:
                                    used = _move_segment(tour, pos, log, used, p, a, s2, nx, c, e, side == 1)
                                    gain += delta
                                    touched = (p, a, s2, nx, c, e)
                                    improved = True
                                    break
                            if improved:
                                break
                        if improved:
                            break
                    if improved:
                        break
            if improved:
                for v in touched:
                    if not queued[v] and v != a:
                        queued[v] = True
                        slot = head + n_queued
                        if slot >= n:
                            slot -= n
                        queue[slot] = v
                        n_queued += 1
    return gain, used


@njit(cache=True)
def _kick_and_descend(
    metric: Any, tour: Tour, pos: Tour, near: Any, n_kicks: int, window: int, rng: Any, log: Tour
) -> float:
    """Run `n_kicks` double-bridge kicks, each followed by a descent; keep those that do no harm. Returns the gain."""
    n = tour.size
    queue = np.empty(n, np.int64)
    queued = np.zeros(n, np.bool_)
    total = 0.0
    span = min(window, (n - 2) // 2)
    for _ in range(n_kicks):
        first = _random(rng, n)
        a_len = 1 + _random(rng, span)
        b_len = 1 + _random(rng, span)
        p = tour[first]
        s1 = tour[(first + 1) % n]
        s2 = tour[(first + a_len) % n]
        nx = tour[(first + a_len + 1) % n]
        c = tour[(first + a_len + b_len) % n]
        e = tour[(first + a_len + b_len + 1) % n]
        loss = (
            _d(metric, p, nx) + _d(metric, c, s1) + _d(metric, s2, e)
            - _d(metric, p, s1) - _d(metric, s2, nx) - _d(metric, c, e)
        )  # fmt: skip
        used = _move_segment(tour, pos, log, 0, p, s1, s2, nx, c, e, True)
        count = 0
        for v in (p, s1, s2, nx, c, e):
            if not queued[v]:
                queued[v] = True
                queue[count] = v
                count += 1
        gain, used = _descend(metric, tour, pos, near, queue, queued, count, log, used)
        if gain < loss - 1e-9:
            for k in range(used - 1, -1, -1):
                _reverse(tour, pos, log[k, 0], log[k, 1])
            queued[:] = False
        else:
            total += gain - loss
    return total


def two_opt_or_opt(metric: Metric, tour: Tour, near: NDArray[np.int64] | None = None) -> Tour:
    """Descend from `tour` to a local optimum of 2-opt and Or-opt within neighbour lists.

    `tour`: int array [N], a permutation; `near`: int array [N, k], nearest first (built when absent).
    """
    tour = np.array(tour, dtype=np.int64)
    n = tour.size
    if n < 5:
        return tour
    near = neighbour_lists(metric, 10) if near is None else near
    pos = np.empty(n, np.int64)
    pos[tour] = np.arange(n)
    # A negative log length switches logging off: nothing is ever rolled back here.
    _descend(
        metric.kernel(), tour, pos, near, tour.copy(), np.ones(n, np.bool_), n, np.empty((8, 2), np.int64), -1
    )
    return tour


def iterated_local_search(
    metric: Metric,
    tour: Tour,
    rng: np.random.Generator,
    *,
    seconds: float | None = None,
    n_kicks: int | None = None,
    window: int = 30,
    clock: Callable[[], float] = time.perf_counter,
    on_incumbent: Callable[[float, Tour], None] | None = None,
) -> Tour:
    """Improve `tour` by kicks and descents until `seconds` have passed or `n_kicks` are done.

    With `n_kicks` the result is a function of the generator alone; with `seconds` it depends on the machine.
    `on_incumbent(length, tour)` is called after a batch of kicks which improved the tour. `window`: most nodes in
    each of the two paths that a kick swaps (30 was best or equal among 3 to 50 at n = 200, 1000 and 5000).
    """
    started = clock()
    near = neighbour_lists(metric, 10)
    tour = two_opt_or_opt(metric, tour, near)
    n = tour.size
    kernel = metric.kernel()
    if on_incumbent:
        on_incumbent(tour_length(kernel, tour), tour.copy())
    if n < 8:
        return tour
    if seconds is None and n_kicks is None:
        raise ValueError(
            "iterated_local_search: expected `seconds` or `n_kicks`, got neither; pass one of them"
        )
    pos = np.empty(n, np.int64)
    pos[tour] = np.arange(n)
    state = np.array([rng.integers(1, 2**63)], dtype=np.uint64)
    log = np.empty((_MAX_LOG, 2), np.int64)
    batch = 200
    done = 0
    while (n_kicks is None or done < n_kicks) and (seconds is None or clock() - started < seconds):
        size = batch if n_kicks is None else min(batch, n_kicks - done)
        gain = _kick_and_descend(kernel, tour, pos, near, size, window, state, log)
        done += size
        if gain > 1e-9 and on_incumbent:
            on_incumbent(tour_length(kernel, tour), tour.copy())
    return tour
