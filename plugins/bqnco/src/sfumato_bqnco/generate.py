"""Random instances by generator, and the published uniform test sets.

Sources: TSP and CVRP as in Kool et al., ICLR 2019, and the 128-instance sets of Drakulic et al., NeurIPS 2023 (they
regenerate from their seeds with NumPy's legacy generator); ATSP as in MatNet (Kwon et al., NeurIPS 2021): uniform
integers closed under shortest paths; OP with prizes by distance (Fischetti et al., 1998, scaled to 1); KP with values
and weights on a grid of 1/1000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

CVRP_CAPACITY = {10: 20, 20: 30, 50: 40, 100: 50, 200: 80, 500: 100, 1000: 250}
OP_BUDGET = {20: 2.0, 50: 3.0, 100: 4.0}
KP_CAPACITY = {50: 12.5, 100: 25.0, 200: 25.0, 500: 50.0, 1000: 100.0}
KP_GRID = 1000

# seed of the legacy generator and, for the CVRP, the capacity
PUBLISHED = {
    ("tsp", 200): (777, 0),
    ("tsp", 500): (777, 0),
    ("tsp", 1000): (777, 0),
    ("cvrp", 200): (12345, 80),
    ("cvrp", 500): (1234, 100),
    ("cvrp", 1000): (1234, 250),
}
PUBLISHED_SIZE = 128


def _points(rng: np.random.Generator, count: int, n: int, clustered: bool) -> NDArray[np.float64]:
    """Uniform points in the unit square, or a mixture of four Gaussian clusters cut to it."""
    if not clustered:
        return rng.random((count, n, 2))
    centres = rng.random((count, 4, 2))
    which = rng.integers(4, size=(count, n))
    noise = rng.normal(scale=0.05, size=(count, n, 2))
    return np.clip(np.take_along_axis(centres, which[..., None], 1) + noise, 0.0, 1.0)


def tsp(rng: np.random.Generator, count: int, n: int, *, clustered: bool = False) -> Arrays:
    """`xy` [count, n, 2]."""
    return {"xy": _points(rng, count, n, clustered)}


def cvrp(
    rng: np.random.Generator, count: int, n: int, *, capacity: int = 0, clustered: bool = False
) -> Arrays:
    """`xy` [count, n + 1, 2] (depot first), `demand` int [count, n + 1] in 1..9, `capacity` int [count]."""
    capacity = capacity or CVRP_CAPACITY.get(n, 30 + n // 5)
    xy = _points(rng, count, n + 1, clustered)
    demand = np.concatenate((np.zeros((count, 1), np.int64), rng.integers(1, 10, size=(count, n))), 1)
    return {"xy": xy, "demand": demand, "capacity": np.full(count, capacity)}


def cvrptw(
    rng: np.random.Generator, count: int, n: int, *, capacity: int = 0, width: float = 0.3
) -> Arrays:
    """As `cvrp` on a map of 100 by 100, with `windows` [count, n + 1, 2] and `service` [count, n + 1].

    In the manner of Solomon's class R (M. Solomon, Operations Research 35(2), 1987): the depot is open from 0 to 600,
    serving takes 10, and each window of about `width` * 600 has its centre where a vehicle can still get home.
    """
    horizon, duration = 600.0, 10.0
    arrays = cvrp(rng, count, n, capacity=capacity or 40 + n // 2)
    xy = np.round(arrays["xy"] * 100.0)
    depot = np.sqrt(((xy - xy[:, :1]) ** 2).sum(-1))
    earliest, latest = depot, horizon - depot - duration
    centre = earliest + rng.random(depot.shape) * (latest - earliest)
    half = 0.5 * width * horizon * (0.5 + rng.random(depot.shape))
    low = np.floor(np.maximum(centre - half, 0.0))
    high = np.floor(np.minimum(centre + half, latest))
    low[:, 0], high[:, 0] = 0.0, horizon
    service = np.full(depot.shape, duration)
    service[:, 0] = 0.0
    return arrays | {"xy": xy, "windows": np.stack((low, high), -1), "service": service}


def op(rng: np.random.Generator, count: int, n: int, *, budget: float = 0.0) -> Arrays:
    """`xy` [count, n, 2] (depot first), `prize` [count, n] = (1 + floor(99 d / d_max)) / 100, `budget` [count]."""
    budget = budget or OP_BUDGET.get(n, 4.0 if n > 100 else 2.0 + n / 50.0)
    xy = rng.random((count, n, 2))
    distance = np.sqrt(((xy - xy[:, :1]) ** 2).sum(-1))
    prize = (1 + np.floor(99 * distance / distance.max(1, keepdims=True))) / 100.0
    prize[:, 0] = 0.0
    return {"xy": xy, "prize": prize, "budget": np.full(count, budget)}


def kp(rng: np.random.Generator, count: int, n: int, *, capacity: float = 0.0) -> Arrays:
    """`value`, `weight` [count, n] on the grid 1/1000 (weights at least one step), `capacity` [count]."""
    capacity = capacity or KP_CAPACITY.get(n, n / 4.0 if n < 200 else n / 10.0)
    value = rng.integers(0, KP_GRID, size=(count, n)) / KP_GRID
    weight = rng.integers(1, KP_GRID, size=(count, n)) / KP_GRID
    return {"value": value, "weight": weight, "capacity": np.full(count, capacity)}


def atsp(rng: np.random.Generator, count: int, n: int) -> Arrays:
    """`matrix` float64 [count, n, n] holding integers below 10^6 that satisfy the triangle inequality."""
    matrix = rng.integers(1, 10**6, size=(count, n, n)).astype(np.float64)
    index = np.arange(n)
    matrix[:, index, index] = 0.0
    for k in range(n):
        matrix = np.minimum(matrix, matrix[:, :, k : k + 1] + matrix[:, k : k + 1, :])
    return {"matrix": matrix}


def published(problem: str, n: int) -> Arrays:
    """The published set of 128 uniform instances; TSP and CVRP with n = 200, 500, 1000.

    Raises ValueError for other sizes. Bit-exact: the legacy generator is seeded in an object of its own.
    """
    if (problem, n) not in PUBLISHED:
        known = ", ".join(f"{p}{k}" for p, k in PUBLISHED)
        raise ValueError(
            f"expected one of the published sets {known}, got {problem}{n}; use source = 'random'"
        )
    seed, capacity = PUBLISHED[problem, n]
    legacy = np.random.RandomState(seed)
    if problem == "tsp":
        return {"xy": legacy.random_sample([PUBLISHED_SIZE, n, 2])}
    depot = legacy.uniform(size=(PUBLISHED_SIZE, 2))
    customers = legacy.uniform(size=(PUBLISHED_SIZE, n, 2))
    demand = legacy.randint(1, 10, size=(PUBLISHED_SIZE, n))
    return {
        "xy": np.concatenate((depot[:, None], customers), 1),
        "demand": np.concatenate((np.zeros((PUBLISHED_SIZE, 1), np.int64), demand), 1),
        "capacity": np.full(PUBLISHED_SIZE, capacity),
    }


def random_set(problem: str, rng: np.random.Generator, count: int, n: int, **options: Any) -> Arrays:
    """A random set of any of the problems; `options` as its own function takes them."""
    makers: dict[str, Any] = {"tsp": tsp, "atsp": atsp, "cvrp": cvrp, "cvrptw": cvrptw, "op": op, "kp": kp}
    arrays: Arrays = makers[problem](rng, count, n, **options)
    return arrays
