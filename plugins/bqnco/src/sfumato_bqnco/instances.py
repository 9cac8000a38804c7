"""Instances as records, and what a solution of each problem is.

A solution is a plain list: TSP, ATSP: the tour as node indices from 0; CVRP, CVRPTW: a list of routes, each a list of
customers (the depot, node 0, is left out); OP: the visited nodes in order without the depot; KP: the packed items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from .distances import Floats, Metric, tsplib_matrix
from .errors import InstanceError

Plan = list[Any]
MATRIX_LIMIT = 12_000


@frozen(eq=False)
class Instance:
    """One instance of a routing problem or of the knapsack.

    `weight_type`: TSPLIB's name of the distance, `EXACT_2D` for Euclidean without rounding, `EXPLICIT` for a matrix.
    `xy` [N, 2] or None; `matrix` [N, N] or None; node 0 is the depot (files count from 1). `demand` int [N],
    `prize` [N], `windows` [N, 2] (earliest and latest start of service), `service` [N] (duration). Knapsack: `value`,
    `weight` [N]. `limit`: vehicle capacity, OP budget or knapsack capacity. `reference`: best known objective, or None.
    """

    problem: str
    name: str
    weight_type: str = "EXACT_2D"
    xy: Floats | None = None
    matrix: Floats | None = None
    limit: float = 0.0
    demand: NDArray[np.int64] | None = None
    prize: Floats | None = None
    windows: Floats | None = None
    service: Floats | None = None
    value: Floats | None = None
    weight: Floats | None = None
    reference: float | None = None
    reference_kind: str = ""
    maximise: bool = field(init=False)

    @maximise.default
    def _maximise(self) -> bool:
        return self.problem in ("op", "kp")

    @property
    def n(self) -> int:
        """Number of nodes, the depot included, or of items."""
        for array in (self.xy, self.matrix, self.value):
            if array is not None:
                return len(array)
        return 0

    def metric(self) -> Metric:
        """Distances with the file's own rounding. GEO, ATT and other functions become a matrix, O(N^2)."""
        if self.weight_type == "EXPLICIT" or self.xy is None:
            assert self.matrix is not None
            return Metric("matrix", matrix=self.matrix)
        kinds = {"EXACT_2D": "euclid", "EUC_2D": "nint", "CEIL_2D": "ceil"}
        if self.weight_type in kinds:
            return Metric(kinds[self.weight_type], self.xy)
        if self.n > MATRIX_LIMIT:
            raise InstanceError(
                f"{self.name}: expected at most {MATRIX_LIMIT} nodes for distances of type {self.weight_type} (they "
                f"need a full matrix), got {self.n}; only EUC_2D and CEIL_2D are computed on the fly"
            )
        return Metric("matrix", self.xy, tsplib_matrix(self.weight_type, self.xy))

    def arrays(self) -> dict[str, Any]:
        """The batch of one for `env.environment`.

        Raises InstanceError when the network could not see this instance: no coordinates.
        """
        if self.problem == "kp":
            assert self.value is not None and self.weight is not None
            return {
                "value": self.value[None],
                "weight": self.weight[None],
                "capacity": np.array([self.limit]),
            }
        if self.problem == "atsp":
            return {"matrix": self.metric().full()[None]}
        if self.xy is None:
            raise InstanceError(
                f"{self.name}: the network for {self.problem} needs coordinates, but this file has only a matrix; "
                "use another method (solve's default does not need them)"
            )
        metric = self.metric()
        arrays: dict[str, Any] = {"xy": self.xy[None]}
        if metric.kind == "matrix":
            arrays["matrix"] = metric.matrix[None]
        else:
            arrays["rounding"] = metric.kind
        if self.problem in ("cvrp", "cvrptw"):
            assert self.demand is not None
            arrays |= {"demand": self.demand[None], "capacity": np.array([self.limit])}
        if self.problem == "cvrptw":
            assert self.windows is not None and self.service is not None
            arrays |= {"windows": self.windows[None], "service": self.service[None]}
        if self.problem == "op":
            assert self.prize is not None
            arrays |= {"prize": self.prize[None], "budget": np.array([self.limit])}
        return arrays


def from_arrays(problem: str, arrays: dict[str, Any], index: int, name: str = "") -> Instance:
    """Item `index` of a batch of arrays (see `generate`) as an Instance without rounding."""
    name = name or f"{problem}-{index}"

    def item(key: str) -> Any:
        return np.asarray(arrays[key][index])

    if problem == "kp":
        return Instance(
            problem, name, value=item("value"), weight=item("weight"), limit=float(item("capacity"))
        )
    if problem == "atsp":
        return Instance(problem, name, "EXPLICIT", matrix=item("matrix"))
    if problem == "cvrp":
        return Instance(
            problem,
            name,
            xy=item("xy"),
            demand=item("demand").astype(np.int64),
            limit=float(item("capacity")),
        )
    if problem == "cvrptw":
        return Instance(
            problem, name, xy=item("xy"), demand=item("demand").astype(np.int64), limit=float(item("capacity")),
            windows=item("windows").astype(float), service=item("service").astype(float),
        )  # fmt: skip
    if problem == "op":
        return Instance(problem, name, xy=item("xy"), prize=item("prize"), limit=float(item("budget")))
    return Instance(problem, name, xy=item("xy"))
