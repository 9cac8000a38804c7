"""Check a solution against its instance and recompute its objective.

Written without NumPy and apart from the environments on purpose: plain Python, one leg at a time, with the file's
own rounding, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from .errors import InfeasibleSolution
from .instances import Instance, Plan


def leg(instance: Instance, i: int, j: int) -> float:
    """Cost of i -> j by the instance's own rule."""
    kind = instance.weight_type
    if kind == "EXPLICIT" or instance.xy is None:
        assert instance.matrix is not None
        return float(instance.matrix[i][j])
    if i == j:
        return 0.0
    x, y = (float(c) for c in instance.xy[i])
    u, v = (float(c) for c in instance.xy[j])
    dx, dy = x - u, y - v
    if kind == "EXACT_2D":
        return math.hypot(dx, dy)
    if kind == "EUC_2D":
        return int(math.sqrt(dx * dx + dy * dy) + 0.5)
    if kind == "CEIL_2D":
        return math.ceil(math.sqrt(dx * dx + dy * dy))
    if kind == "MAN_2D":
        return int(abs(dx) + abs(dy) + 0.5)
    if kind == "MAX_2D":
        return max(int(abs(dx) + 0.5), int(abs(dy) + 0.5))
    if kind == "ATT":
        r = math.sqrt((dx * dx + dy * dy) / 10.0)
        t = int(r + 0.5)
        return t + 1 if t < r else t
    if kind == "GEO":
        pi = 3.141592

        def radians(c: float) -> float:
            degrees = int(c)
            return pi * (degrees + 5.0 * (c - degrees) / 3.0) / 180.0

        q1 = math.cos(radians(y) - radians(v))
        q2 = math.cos(radians(x) - radians(u))
        q3 = math.cos(radians(x) + radians(u))
        return int(6378.388 * math.acos(max(-1.0, min(1.0, 0.5 * ((1 + q1) * q2 - (1 - q1) * q3)))) + 1.0)
    raise InfeasibleSolution(f"{instance.name}: no rule for distances of type {kind}")


def _path_cost(instance: Instance, path: Sequence[int]) -> float:
    return math.fsum(leg(instance, a, b) for a, b in itertools.pairwise(path))


def _whole_nodes(instance: Instance, nodes: Sequence[object], low: int) -> list[int]:
    """Node indices as ints, each from `low` to N - 1 and at most once."""
    seen: set[int] = set()
    out = []
    for place, v in enumerate(nodes):
        try:
            node = int(v)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise InfeasibleSolution(
                f"{instance.name}: expected node indices, got {v!r} at place {place}"
            ) from None
        if node != v or not low <= node < instance.n:
            raise InfeasibleSolution(
                f"{instance.name}: expected nodes from {low} to {instance.n - 1}, got {v} at place {place}"
            )
        if node in seen:
            raise InfeasibleSolution(
                f"{instance.name}: node {node} is visited twice (again at place {place})"
            )
        seen.add(node)
        out.append(node)
    return out


def objective(instance: Instance, solution: Plan) -> float:
    """Validate `solution` and return its objective: length, prize or value.

    Raises InfeasibleSolution saying which constraint is broken.
    """
    problem = instance.problem
    if problem in ("tsp", "atsp"):
        tour = _whole_nodes(instance, solution, 0)
        if len(tour) != instance.n:
            raise InfeasibleSolution(f"{instance.name}: expected all {instance.n} nodes, got {len(tour)}")
        return _path_cost(instance, [*tour, tour[0]]) if instance.n > 1 else 0.0
    if problem == "cvrp":
        assert instance.demand is not None
        _all_served(instance, solution)
        total = []
        for k, route in enumerate(solution, 1):
            load = sum(int(instance.demand[v]) for v in route)
            if load > instance.limit:
                raise InfeasibleSolution(
                    f"{instance.name}: route {k} carries {load}, more than {instance.limit:.0f}"
                )
            total.append(_path_cost(instance, [0, *route, 0]))
        return math.fsum(total)
    if problem == "cvrptw":
        return _time_windows(instance, solution)
    if problem == "op":
        assert instance.prize is not None
        path = _whole_nodes(instance, solution, 1)
        length = _path_cost(instance, [0, *path, 0]) if path else 0.0
        if length > instance.limit + 1e-6:
            raise InfeasibleSolution(
                f"{instance.name}: the path is {length:g} long, budget {instance.limit:g}"
            )
        return math.fsum([float(instance.prize[0]), *(float(instance.prize[v]) for v in path)])
    if problem == "kp":
        assert instance.value is not None and instance.weight is not None
        items = _whole_nodes(instance, solution, 0)
        weight = math.fsum(float(instance.weight[i]) for i in items)
        if weight > instance.limit + 1e-6:
            raise InfeasibleSolution(
                f"{instance.name}: the items weigh {weight:g}, capacity {instance.limit:g}"
            )
        return math.fsum(float(instance.value[i]) for i in items)
    raise InfeasibleSolution(f"{instance.name}: unknown problem {problem!r}")


def _all_served(instance: Instance, routes: Plan) -> None:
    customers = _whole_nodes(instance, [v for route in routes for v in route], 1)
    if len(customers) != instance.n - 1:
        missing = sorted(set(range(1, instance.n)) - set(customers))[0]
        raise InfeasibleSolution(
            f"{instance.name}: expected all {instance.n - 1} customers served, got {len(customers)} "
            f"(customer {missing} is missing)"
        )


def _time_windows(instance: Instance, routes: Plan) -> float:
    """Total distance of a CVRPTW solution; waiting is free, arriving late is not allowed."""
    assert instance.demand is not None and instance.windows is not None and instance.service is not None
    _all_served(instance, routes)
    total = []
    for k, route in enumerate(routes, 1):
        load = sum(int(instance.demand[v]) for v in route)
        if load > instance.limit:
            raise InfeasibleSolution(
                f"{instance.name}: route {k} carries {load}, more than {instance.limit:.0f}"
            )
        clock, at = float(instance.windows[0][0]), 0
        for v in [*route, 0]:
            clock += (float(instance.service[at]) if at else 0.0) + leg(instance, at, v)
            total.append(leg(instance, at, v))
            if clock > float(instance.windows[v][1]) + 1e-6:
                raise InfeasibleSolution(
                    f"{instance.name}: route {k} reaches {v} at {clock:g}, after {float(instance.windows[v][1]):g}"
                )
            clock = max(clock, float(instance.windows[v][0]))
            at = v
    return math.fsum(total)


def feasible(instance: Instance, solution: Plan) -> bool:
    """Whether `objective` accepts the solution."""
    try:
        objective(instance, solution)
    except InfeasibleSolution:
        return False
    return True
