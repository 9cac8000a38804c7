"""Solvers from other packages, each imported when it is called: fast-tsp, PyVRP, HGS-CVRP, OR-Tools, LKH.

All take an Instance, a time limit in seconds and a generator from which one seed is drawn, and return a solution.
PyVRP takes any clock; HGS counts process CPU time; fast-tsp and OR-Tools count wall time. PyVRP and OR-Tools routing
report their incumbents, the others have no way to. Settings are the packages' own defaults unless a comment says
otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import BqncoError
from ..instances import Instance, Plan

Report = Callable[[Plan], None]
_UNROUNDED = 100_000.0


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 2**31 - 1))


def _integers(instance: Instance, ceiling: float = 0.0) -> tuple[np.ndarray[Any, Any], float]:
    """Whole-number costs and the factor they were multiplied by (1 when the file rounds already)."""
    matrix = instance.metric().full()
    scale = 1.0
    if instance.weight_type == "EXACT_2D" or (matrix != np.floor(matrix)).any():
        scale = _UNROUNDED / max(float(matrix.max()), 1e-12)
    if ceiling and matrix.max() * scale > ceiling:
        scale = ceiling / float(matrix.max())
    return np.rint(matrix * scale).astype(np.int64), scale


def fast_tsp(instance: Instance, seconds: float, rng: np.random.Generator, report: Report) -> Plan:
    """fast-tsp (MIT): Or-opt local search in C++. Costs above 65,535 are scaled down first, as it demands.

    It draws its own randomness and takes no seed.
    """
    import fast_tsp as package

    matrix, _ = _integers(instance, 65_535.0)
    return [int(v) for v in package.find_tour(matrix, duration_seconds=max(seconds, 0.01))]


class _Deadline:
    """PyVRP's stopping rule by any clock; its own `MaxRuntime` knows wall time alone.

    Grants `least` iterations in any case.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], least: int) -> None:
        self.clock, self.end, self.least, self.n_calls = clock, clock() + seconds, least, 0

    def __call__(self, best_cost: float) -> bool:
        self.n_calls += 1
        return self.n_calls > self.least and self.clock() >= self.end


def pyvrp(
    instance: Instance,
    seconds: float,
    rng: np.random.Generator,
    report: Report,
    start: Plan | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """PyVRP (MIT): iterated local search. TSP with one vehicle, CVRP, CVRPTW, OP by prizes and a distance limit.

    `start`: a solution handed over as its initial one. Building its model counts towards `seconds`.
    """
    from pyvrp import (
        IteratedLocalSearchCallbacks,
        IteratedLocalSearchParams,
        Model,
        Solution,
        SolveParams,
    )
    from pyvrp import solve as run

    # Before a hundred iterations (milliseconds) its solution is often infeasible, unless it was handed one.
    stop = _Deadline(max(seconds, 0.01), clock, 100 if start is None else 0)

    problem, n = instance.problem, instance.n
    if problem == "cvrptw":
        # Thousandths, durations rounded up and windows inward: what is on time here is on time exactly.
        scale = 1000.0
        matrix = np.rint(instance.metric().full() * scale).astype(np.int64)
    else:
        matrix, scale = _integers(instance)
    model = Model()
    xy = instance.xy if instance.xy is not None else np.zeros((n, 2))
    places = [model.add_location(float(x), float(y)) for x, y in xy]
    windows = instance.windows if problem == "cvrptw" else None

    def window(v: int) -> dict[str, Any]:
        if windows is None:
            return {}
        return {"tw_early": math.ceil(windows[v, 0] * scale), "tw_late": math.floor(windows[v, 1] * scale)}

    model.add_depot(places[0], **window(0))
    top = 0 if instance.prize is None else float(instance.prize.max())
    for v in range(1, n):
        extra: dict[str, Any] = window(v)
        if problem in ("cvrp", "cvrptw"):
            assert instance.demand is not None
            extra["delivery"] = int(instance.demand[v])
        if problem == "cvrptw":
            assert instance.service is not None
            extra["service_duration"] = math.ceil(instance.service[v] * scale)
        if problem == "op":
            assert instance.prize is not None
            # The best prize is worth twenty budgets of distance: prizes decide, yet the penalty for passing the
            # budget (which starts small) still bites. Far larger prizes kept its answers infeasible.
            worth = instance.prize[v] / max(top, 1e-12) * 20.0 * max(instance.limit * scale, 1.0)
            extra |= {"required": False, "prize": round(worth)}
        model.add_client(places[v], **extra)
    late = np.ceil(instance.metric().full() * scale).astype(np.int64) if windows is not None else 0 * matrix
    for i in range(n):
        for j in range(n):
            if i != j:
                model.add_edge(places[i], places[j], int(matrix[i, j]), int(late[i, j]))
    if problem == "tsp":
        model.add_vehicle_type(1)
    elif problem == "op":
        model.add_vehicle_type(1, max_distance=math.floor(instance.limit * scale))
    else:
        model.add_vehicle_type(n - 1, capacity=int(instance.limit))
    data = model.data()
    initial = None
    if start is not None:
        routes = (
            [start]
            if problem == "op"
            else [start[start.index(0) + 1 :] + start[: start.index(0)]]
            if (problem == "tsp")
            else start
        )
        initial = Solution(data, [[v - 1 for v in r] for r in routes])

    def plan_of(found: Any) -> Plan:
        routes = [[int(a.idx) + 1 for a in r.schedule() if a.is_client()] for r in found.routes()]
        if problem == "tsp":
            return [0, *routes[0]]
        return (routes[0] if routes else []) if problem == "op" else routes

    class Heard(IteratedLocalSearchCallbacks):
        def on_best(self, best: Any) -> None:
            if best.is_feasible():
                report(plan_of(best))

    params = SolveParams(ils=IteratedLocalSearchParams(callbacks=Heard()))
    result = run(data, stop, seed=_seed(rng), collect_stats=False, params=params, initial_solution=initial)
    if not result.best.is_feasible():
        raise BqncoError(
            f"PyVRP found no feasible solution of {instance.name} in {seconds:g} s; give it more time"
        )
    return plan_of(result.best)


def hgs(instance: Instance, seconds: float, rng: np.random.Generator, report: Report) -> Plan:
    """HGS-CVRP (MIT) by Vidal, through the wrapper hygese (MIT)."""
    import hygese

    matrix, _ = _integers(instance)
    assert instance.demand is not None
    xy = instance.xy if instance.xy is not None else np.zeros((instance.n, 2))
    data = {
        "x_coordinates": xy[:, 0].astype(float),
        "y_coordinates": xy[:, 1].astype(float),
        "distance_matrix": matrix.astype(float),
        "demands": instance.demand.astype(float),
        "vehicle_capacity": float(instance.limit),
        "num_vehicles": instance.n,
        "depot": 0,
        "service_times": np.zeros(instance.n),
    }
    parameters = hygese.AlgorithmParameters(timeLimit=max(seconds, 0.05), seed=_seed(rng), nbIter=2**30)
    result = hygese.Solver(parameters=parameters, verbose=False).solve_cvrp(data, rounding=True)
    return [[int(v) for v in route] for route in result.routes]


def ortools_routing(instance: Instance, seconds: float, rng: np.random.Generator, report: Report) -> Plan:
    """OR-Tools routing (Apache-2.0): cheapest arc or savings, then guided local search, as its guide advises."""
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2

    matrix, _ = _integers(instance)
    n = instance.n
    cvrp = instance.problem == "cvrp"
    vehicles = 1
    if cvrp:
        assert instance.demand is not None
        vehicles = min(n - 1, math.ceil(instance.demand.sum() / instance.limit * 1.2) + 4)
    manager = pywrapcp.RoutingIndexManager(n, vehicles, 0)
    routing = pywrapcp.RoutingModel(manager)
    costs = matrix.tolist()
    transit = routing.RegisterTransitMatrix(costs)
    routing.SetArcCostEvaluatorOfAllVehicles(transit)
    if cvrp:
        assert instance.demand is not None
        load = routing.RegisterUnaryTransitVector([int(q) for q in instance.demand])
        routing.AddDimension(load, 0, int(instance.limit), True, "load")
    parameters = pywrapcp.DefaultRoutingSearchParameters()
    first = routing_enums_pb2.FirstSolutionStrategy
    parameters.first_solution_strategy = first.SAVINGS if cvrp else first.PATH_CHEAPEST_ARC
    parameters.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
    parameters.time_limit.FromMilliseconds(max(int(seconds * 1000), 10))

    def plan_of(follow: Callable[[int], int]) -> Plan:
        routes = []
        for k in range(vehicles):
            at, route = follow(routing.Start(k)), []
            while not routing.IsEnd(at):
                route.append(int(manager.IndexToNode(at)))
                at = follow(at)
            if route:
                routes.append(route)
        return routes if cvrp else [0, *(routes[0] if routes else [])]

    lowest = math.inf

    def heard() -> None:
        nonlocal lowest
        # Guided local search walks through worse solutions too.
        if routing.CostVar().Value() < lowest:
            lowest = routing.CostVar().Value()
            report(plan_of(lambda at: routing.NextVar(at).Value()))

    routing.AddAtSolutionCallback(heard)
    found = routing.SolveWithParameters(parameters)
    if found is None:
        raise RuntimeError(
            f"OR-Tools found no solution of {instance.name} in {seconds:g} s; give it more time"
        )
    return plan_of(lambda at: found.Value(routing.NextVar(at)))


def cp_sat(instance: Instance, seconds: float, rng: np.random.Generator, report: Report) -> Plan:
    """OR-Tools CP-SAT (Apache-2.0), one worker: circuits for TSP, ATSP, OP; a 0/1 model for the knapsack."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    n = instance.n
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = max(seconds, 0.01)
    solver.parameters.random_seed = _seed(rng)
    if instance.problem == "kp":
        assert instance.value is not None and instance.weight is not None
        take = [model.new_bool_var(f"x{i}") for i in range(n)]
        # Weights rounded up and capacity down: what is feasible here is feasible there.
        weights = [math.ceil(w * 1e6 - 1e-3) for w in instance.weight]
        model.add(
            sum(w * x for w, x in zip(weights, take, strict=True)) <= math.floor(instance.limit * 1e6 + 1e-3)
        )
        model.maximize(sum(round(p * 1e6) * x for p, x in zip(instance.value, take, strict=True)))
        status = solver.solve(model)
        answer = (
            [i for i in range(n) if solver.value(take[i])]
            if status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
            else None
        )
    else:
        matrix, scale = _integers(instance)
        arcs = [(i, j, model.new_bool_var("")) for i in range(n) for j in range(n) if i != j]
        if instance.problem == "op":
            assert instance.prize is not None
            skip = [(v, v, model.new_bool_var("")) for v in range(1, n)]
            alone = model.new_bool_var("")
            model.add_circuit([*arcs, *skip, (0, 0, alone)])
            for _, _, lit in skip:
                model.add_implication(alone, lit)
            upper = np.ceil(instance.metric().full() * scale).astype(np.int64)
            model.add(sum(int(upper[i, j]) * x for i, j, x in arcs) <= math.floor(instance.limit * scale))
            model.maximize(sum(round(instance.prize[v] * 1e4) * (1 - lit) for v, _, lit in skip))
        else:
            model.add_circuit(arcs)
            model.minimize(sum(int(matrix[i, j]) * x for i, j, x in arcs))
        status = solver.solve(model)
        answer = None
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            follow = {i: j for i, j, x in arcs if solver.value(x)}
            answer, at = [], follow.get(0, 0)
            while at != 0:
                answer.append(at)
                at = follow[at]
            if instance.problem != "op":
                answer = [0, *answer]
    if answer is None:
        raise RuntimeError(f"CP-SAT found no solution of {instance.name} in {seconds:g} s; give it more time")
    return answer


def lkh(instance: Instance, seconds: float, rng: np.random.Generator, report: Report) -> Plan:
    """LKH-3 through elkai: one run, its own default of trials; no time limit and no seed can be set.

    Licence: for research and non-commercial use only. Nothing else here depends on it.
    """
    import elkai

    matrix, _ = _integers(instance)
    tour = elkai.DistanceMatrix(matrix.tolist()).solve_tsp(runs=1)
    return [int(v) for v in tour[:-1]]
