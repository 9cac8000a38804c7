"""What the assignment relaxation says of a path-ATSP: how much dearer it gets when an arc must be taken.

Dropping the demand for one path leaves an assignment problem: every node but the destination gets a successor, every node
but the origin is one. Its value is a lower bound, and for random costs a close one. The regret of an arc is the bound with
that arc forced less the bound without: zero on arcs of an optimal assignment, and unique, whereas dual prices are not.

Sources: the bound: E. Balas, P. Toth, in "The Traveling Salesman Problem", Wiley 1985, chapter 10. Regrets are shortest
paths in the residual graph of the assignment: R. Ahuja, T. Magnanti, J. Orlin, "Network Flows", 1993, chapters 9 and 12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


@njit(cache=True)
def _regret(cost: Any, taken: Any, out: Any) -> None:
    """`cost` [M, M], `taken` [M]: column of each row in an optimal assignment; fills `out` [M, M]."""
    m = taken.size
    # Row i in the place of row k: what i pays more; then k has to go somewhere, until somebody takes what i left.
    far = np.empty((m, m))
    step = np.empty((m, m))
    for i in range(m):
        for k in range(m):
            step[i, k] = cost[i, taken[k]] - cost[i, taken[i]]
            far[i, k] = step[i, k]
        far[i, i] = 0.0
    for via in range(m):
        for i in range(m):
            first = far[i, via]
            if first < 1e17:
                for k in range(m):
                    far[i, k] = min(far[i, k], first + far[via, k])
    for i in range(m):
        for k in range(m):
            out[i, taken[k]] = max(step[i, k] + far[k, i], 0.0) if k != i else 0.0


def regrets(matrix: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float32]:
    """Regret of every arc of path-ATSP states: float32 [B, N, N], in the unit of the costs.

    `matrix` [B, N, N]: origin first, destination second, then the rest and padding; `count` [B]: real tokens. Arcs that no
    path takes (into the origin, out of the destination, to oneself) get a tenfold of the dearest cost. O(N^3) a state.
    """
    n_rows, n = matrix.shape[:2]
    out = np.zeros((n_rows, n, n), np.float32)
    for b in range(n_rows):
        size = int(count[b])
        never = 10.0 * float(np.abs(matrix[b, :size, :size]).max()) + 1e-9
        out[b, :size, :size] = never
        if size <= 2:
            out[b, 0, 1] = 0.0
            continue
        sources, sinks = np.r_[0, 2:size], np.r_[2:size, 1]
        cost = matrix[b][np.ix_(sources, sinks)].astype(np.float64)
        # Slot i + 1 is row i and column i - 1 from the second on; the last column is the destination.
        inner = np.arange(1, size - 1)
        cost[inner, inner - 1] = 1e3 * never
        cost[0, -1] = 1e3 * never
        _, taken = linear_sum_assignment(cost)
        found = np.empty_like(cost)
        _regret(cost, taken, found)
        out[b][np.ix_(sources, sinks)] = np.minimum(found, never)
    return out
