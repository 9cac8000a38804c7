"""Ruin and recreate for the orienteering problem (Numba).

A step takes a stretch out of the path, straightens what is left by 2-opt, and fills the budget again with the nodes of
best prize per detour (some passed over at random, and their prizes weighed by a random power). Worse results are
accepted as in simulated annealing.

The form is ours; greedy filling by prize over detour goes back to B. Golden, L. Levy, R. Vohra, "The orienteering
problem", Naval Research Logistics 34(3), 1987, ruin and recreate to G. Schrimpf et al., J. Computational Physics
159(2), 2000.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..distances import Metric
from .cvrp_local import _uniform
from .tsp_local import _d

_MATRIX_MOST = 2000
Floats = NDArray[np.float64]


@njit(cache=True)
def _two_opt(metric: Any, path: Any, size: int) -> float:
    """2-opt on path[0..size), ends fixed; returns the gain."""
    gain = 0.0
    better = True
    while better:
        better = False
        for i in range(size - 3):
            a, b = path[i], path[i + 1]
            for j in range(i + 2, size - 1):
                c, d = path[j], path[j + 1]
                delta = _d(metric, a, b) + _d(metric, c, d) - _d(metric, a, c) - _d(metric, b, d)
                if delta > 1e-9:
                    lo, hi = i + 1, j
                    while lo < hi:
                        path[lo], path[hi] = path[hi], path[lo]
                        lo += 1
                        hi -= 1
                    gain += delta
                    better = True
                    b = path[i + 1]
    return gain


@njit(cache=True)
def _fill(metric: Any, prize: Any, path: Any, size: int, length: float, budget: float, inside: Any, power: float,
          blink: float, rng: Any) -> Any:  # fmt: skip
    """Insert nodes by prize^power / detour while the budget lasts; returns size and length.

    Each node keeps its cheapest place (the node before it); an insertion changes that only through the one edge it breaks
    and the two it makes, so all but the first scan cost O(N), and O(N * size) for those that had wanted the broken edge.
    """
    n = prize.size
    cheap = np.full(n, np.inf)
    after = np.zeros(n, np.int64)
    for v in range(1, n):
        if not inside[v] and prize[v] > 0.0:
            for i in range(size - 1):
                e = _d(metric, path[i], v) + _d(metric, v, path[i + 1]) - _d(metric, path[i], path[i + 1])
                if e < cheap[v]:
                    cheap[v], after[v] = e, path[i]
    while True:
        best, node = 0.0, -1
        for v in range(1, n):
            if inside[v] or prize[v] <= 0.0 or (blink > 0.0 and _uniform(rng) < blink):
                continue
            if length + cheap[v] > budget + 1e-9:
                continue
            score = prize[v] ** power / max(cheap[v], 1e-9)
            if score > best:
                best, node = score, v
        if node < 0:
            return size, length
        place = 0
        while path[place] != after[node]:
            place += 1
        for i in range(size, place + 1, -1):
            path[i] = path[i - 1]
        path[place + 1] = node
        inside[node] = True
        size += 1
        length += cheap[node]
        a, b = path[place], path[place + 2]
        for v in range(1, n):
            if inside[v] or prize[v] <= 0.0:
                continue
            if after[v] == a:
                cheap[v] = np.inf
                for i in range(size - 1):
                    e = _d(metric, path[i], v) + _d(metric, v, path[i + 1]) - _d(metric, path[i], path[i + 1])
                    if e < cheap[v]:
                        cheap[v], after[v] = e, path[i]
                continue
            e = _d(metric, a, v) + _d(metric, v, node) - _d(metric, a, node)
            if e < cheap[v]:
                cheap[v], after[v] = e, a
            e = _d(metric, node, v) + _d(metric, v, b) - _d(metric, node, b)
            if e < cheap[v]:
                cheap[v], after[v] = e, node


@njit(cache=True)
def _anneal(metric: Any, prize: Any, budget: float, path: Any, state: Any, best: Any, n_steps: int, temperature: float,
            rng: Any) -> None:  # fmt: skip
    """`state`: size, length, prize of the current path; `best`: [0] its prize, [1] its size, then the path."""
    n = prize.size
    keep = path.copy()
    inside = np.zeros(n, np.bool_)
    for _ in range(n_steps):
        size, length, total = int(state[0]), state[1], state[2]
        keep[:] = path
        if size > 2:
            most = min(size - 2, max(1, min(12, size // 2)))
            count = 1 + int(_uniform(rng) * most)
            first = 1 + int(_uniform(rng) * (size - 1 - count))
            for i in range(first, size - count):
                path[i] = path[i + count]
            size -= count
        inside[:] = False
        for i in range(size):
            inside[path[i]] = True
        length = 0.0
        for i in range(size - 1):
            length += _d(metric, path[i], path[i + 1])
        length -= _two_opt(metric, path, size)
        power = 0.5 + 1.5 * _uniform(rng)
        size, length = _fill(metric, prize, path, size, length, budget, inside, power, 0.2, rng)
        shorter = _two_opt(metric, path, size)
        if shorter > 1e-9:
            size, length = _fill(metric, prize, path, size, length - shorter, budget, inside, power, 0.0, rng)
        new = 0.0
        for i in range(1, size - 1):
            new += prize[path[i]]
        if new > total + temperature * np.log(_uniform(rng) + 1e-300):
            state[0], state[1], state[2] = size, length, new
            if new > best[0] + 1e-9:
                best[0], best[1] = new, size
                for i in range(size):
                    best[2 + i] = path[i]
        else:
            path[:] = keep


def ruin_recreate(
    metric: Metric,
    prize: Floats,
    budget: float,
    rng: np.random.Generator,
    *,
    start: list[int] | None = None,
    seconds: float | None = None,
    n_steps: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_incumbent: Callable[[float, list[int]], None] | None = None,
) -> list[int]:
    """Visited nodes in order, depot left out. Improves `start` (greedy filling when absent); never returns worse.

    Stops after `seconds` or `n_steps`; with neither, greedy filling alone. O(N) memory beyond 2,000 nodes.
    """
    began = clock()
    # A matrix is quicker to read, as long as it is not larger than the caches and the memory are.
    if metric.kind != "matrix" and metric.n <= _MATRIX_MOST:
        metric = Metric("matrix", metric.xy, metric.full())
    kernel = metric.kernel()
    prize = np.asarray(prize, dtype=np.float64)
    n = len(prize)
    if n == 1:
        return []
    path = np.zeros(n + 2, np.int64)
    size = 2
    if start:
        path[1 : len(start) + 1] = start
        size = len(start) + 2
    length = float(np.sum(metric(path[: size - 1], path[1:size])))
    inside = np.zeros(n, np.bool_)
    inside[path[:size]] = True
    state64 = np.array([rng.integers(1, 2**63)], dtype=np.uint64)
    size, length = _fill(kernel, prize, path, size, length, float(budget), inside, 1.0, 0.0, state64)
    total = float(prize[path[1 : size - 1]].sum())
    best = np.zeros(n + 4)
    best[0], best[1] = total, size
    best[2 : 2 + size] = path[:size]
    state = np.array([size, length, total])

    def answer() -> list[int]:
        return [int(v) for v in best[3 : 1 + int(best[1])]]

    if on_incumbent:
        on_incumbent(total, answer())
    if seconds is None and n_steps is None:
        return answer()
    hot = 0.02 * max(total, 1e-9)
    done, known, batch = 0, total, 1
    while True:
        along = done / n_steps if n_steps else (clock() - began) / seconds if seconds else 1.0
        if along >= 1.0:
            break
        # One step may take a second where there are thousands of nodes: look at the clock often, until steps prove quick.
        size_of_batch = batch if n_steps is None else min(20, n_steps - done)
        at = clock()
        _anneal(kernel, prize, float(budget), path, state, best, size_of_batch, hot * 0.01**along, state64)
        done += size_of_batch
        batch = min(20, 2 * batch) if clock() - at < 0.01 else max(1, batch // 2)
        if on_incumbent and best[0] > known + 1e-9:
            known = float(best[0])
            on_incumbent(known, answer())
    return answer()
