"""Distances: TSPLIB's edge-weight functions, and the small record that kernels take.

Source of the integer functions: G. Reinelt, "TSPLIB 95", section 2 (EUC_2D, CEIL_2D, MAN_2D, MAX_2D, ATT, GEO).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KINDS = {"matrix": 0, "euclid": 1, "nint": 2, "ceil": 3}


@frozen(eq=False)
class Metric:
    """Distances over N nodes: a matrix [N, N], or coordinates [N, 2] with a rounding.

    `kind` is `matrix`, `euclid` (no rounding), `nint` (nearest integer, halves up) or `ceil`.
    """

    kind: str
    xy: Floats = field(factory=lambda: np.zeros((0, 2)))
    matrix: Floats = field(factory=lambda: np.zeros((0, 0)))

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.matrix) if self.kind == "matrix" else len(self.xy)

    def kernel(self) -> tuple[int, Floats, Floats]:
        """The same three things as a tuple, in the form in which the Numba kernels take them."""
        return _KINDS[self.kind], self.xy, self.matrix

    def __call__(self, i: Any, j: Any) -> Any:
        """Distances of i and j, scalars or integer arrays that broadcast."""
        if self.kind == "matrix":
            return self.matrix[i, j]
        delta = self.xy[i] - self.xy[j]
        d = np.sqrt(delta[..., 0] ** 2 + delta[..., 1] ** 2)
        if self.kind == "nint":
            return np.floor(d + 0.5)
        return np.ceil(d) if self.kind == "ceil" else d

    def full(self) -> Floats:
        """The whole matrix [N, N]; O(N^2) memory."""
        if self.kind == "matrix":
            return self.matrix
        index = np.arange(self.n)
        return np.asarray(self(index[:, None], index[None, :]), dtype=np.float64)


def neighbour_lists(metric: Metric, k: int) -> Ints:
    """The k nearest other nodes of each node, nearest first: int array [N, min(k, N - 1)].

    O(N log N) from coordinates (a k-d tree, exact before rounding), O(N^2) from a matrix.
    """
    n = metric.n
    k = min(k, n - 1)
    if k <= 0:
        return np.zeros((n, 0), np.int64)
    if metric.kind != "matrix":
        from scipy.spatial import cKDTree

        _, near = cKDTree(metric.xy).query(metric.xy, k=k + 1)
        near = np.asarray(near, dtype=np.int64)
        # With duplicate nodes a node need not be its own first neighbour: drop it wherever it stands.
        own = near == np.arange(n)[:, None]
        own[~own.any(1), -1] = True
        return near[~own].reshape(n, k)
    matrix = metric.matrix.copy()
    np.fill_diagonal(matrix, np.inf)
    part = np.argpartition(matrix, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(matrix, part, 1), axis=1, kind="stable")
    return np.take_along_axis(part, order, 1)


def tsplib_matrix(kind: str, xy: Floats) -> Floats:
    """Full integer distance matrix [N, N] (as float64) for a TSPLIB edge-weight type on coordinates [N, 2]."""
    if kind == "GEO":
        return _geo(xy)
    delta = np.abs(xy[:, None] - xy[None])
    square = delta[..., 0] ** 2 + delta[..., 1] ** 2
    if kind == "EUC_2D":
        return np.floor(np.sqrt(square) + 0.5)
    if kind == "CEIL_2D":
        return np.ceil(np.sqrt(square))
    if kind == "MAN_2D":
        return np.floor(delta.sum(-1) + 0.5)
    if kind == "MAX_2D":
        return np.floor(delta + 0.5).max(-1)
    if kind == "ATT":
        r = np.sqrt(square / 10.0)
        t = np.floor(r + 0.5)
        return np.where(t < r, t + 1.0, t)
    raise ValueError(
        f"expected EDGE_WEIGHT_TYPE EUC_2D, CEIL_2D, MAN_2D, MAX_2D, ATT, GEO or EXPLICIT, got {kind}; "
        "convert the file to EXPLICIT (a full matrix)"
    )


def _geo(xy: Floats) -> Floats:
    """Geographical distances: degrees and minutes DDD.MM, Earth radius 6378.388 km, and TSPLIB's own pi."""
    degrees = np.trunc(xy)
    radians = 3.141592 * (degrees + 5.0 * (xy - degrees) / 3.0) / 180.0
    latitude, longitude = radians[:, 0], radians[:, 1]
    q1 = np.cos(longitude[:, None] - longitude[None])
    q2 = np.cos(latitude[:, None] - latitude[None])
    q3 = np.cos(latitude[:, None] + latitude[None])
    cosine = np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0)
    out = np.floor(6378.388 * np.arccos(cosine) + 1.0)
    np.fill_diagonal(out, 0.0)
    return np.asarray(out)


def nint(x: float) -> int:
    """Nearest integer, halves up, as TSPLIB's programs compute it."""
    return math.floor(x + 0.5)
