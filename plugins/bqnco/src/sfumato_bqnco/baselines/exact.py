"""Exact solvers: the knapsack by dynamic programming over capacities, tiny tours by Held and Karp.

Sources: R. Bellman, Dynamic Programming, 1957 (knapsack); M. Held and R. Karp, "A dynamic programming approach to
sequencing problems", J. SIAM 10(1), 1962.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..distances import Floats

_CELLS = 400_000_000


def knapsack(
    value: NDArray[Any], weight: NDArray[Any], capacity: float, grid: int = 1000
) -> list[int] | None:
    """Optimal items when all weights are multiples of 1/grid; None when they are not or the table would not fit.

    O(N * capacity * grid) time and as many bytes. Values may be any floats.
    """
    scaled = np.rint(np.asarray(weight, dtype=np.float64) * grid)
    if np.abs(scaled - np.asarray(weight) * grid).max(initial=0.0) > 1e-6:
        return None
    room = int(np.floor(capacity * grid + 1e-6))
    room = int(min(room, scaled.sum()))
    if len(scaled) * (room + 1) > _CELLS:
        return None
    taken = _fill(np.asarray(value, dtype=np.float64), scaled.astype(np.int64), room)
    return [int(i) for i in np.flatnonzero(taken)]


@njit(cache=True)
def _fill(value: Any, weight: Any, room: int) -> Any:
    n = value.size
    best = np.zeros(room + 1)
    keep = np.zeros((n, room + 1), np.bool_)
    for i in range(n):
        w = weight[i]
        for c in range(room, w - 1, -1):
            with_item = best[c - w] + value[i]
            if with_item > best[c]:
                best[c] = with_item
                keep[i, c] = True
    taken = np.zeros(n, np.bool_)
    c = room
    for i in range(n - 1, -1, -1):
        if keep[i, c]:
            taken[i] = True
            c -= weight[i]
    return taken


def held_karp(matrix: Floats) -> tuple[float, list[int]]:
    """Shortest closed tour over a cost matrix [N, N], N at most 13: its length and the tour from node 0."""
    n = len(matrix)
    if n > 13:
        raise ValueError(f"held_karp: expected at most 13 nodes, got {n}")
    if n == 1:
        return 0.0, [0]
    full = 1 << (n - 1)
    best = np.full((full, n - 1), np.inf)
    parent = np.full((full, n - 1), -1)
    for j in range(n - 1):
        best[1 << j, j] = matrix[0, j + 1]
    for mask in range(full):
        for j in range(n - 1):
            if not np.isfinite(best[mask, j]):
                continue
            for k in range(n - 1):
                if mask & (1 << k):
                    continue
                cost = best[mask, j] + matrix[j + 1, k + 1]
                after = mask | (1 << k)
                if cost < best[after, k]:
                    best[after, k], parent[after, k] = cost, j
    total = best[-1] + matrix[1:, 0]
    j = int(total.argmin())
    length, mask, tour = float(total[j]), full - 1, []
    while j >= 0:
        tour.append(j + 1)
        mask, j = mask ^ (1 << j), int(parent[mask, j])
    return length, [0, *tour[::-1]]
