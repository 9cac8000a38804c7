"""Every way to solve an instance that is no neural network, by name, behind one signature.

`run(name, instance, seconds, rng, report)` returns a solution; `report(solution)` may be called with better and better
ones on the way. `seconds=None` asks a construction for its one answer and a descent for one descent.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from .baselines import atsp_local, construct, cvrp_local, exact, external, op_local, tsp_local
from .errors import BqncoError
from .instances import Instance, Plan

Report = Callable[[Plan], None]
Clock = Callable[[], float]
Run = Callable[[Instance, float, np.random.Generator, Report, Clock], Plan]


@frozen
class Method:
    """One method: which problems it takes, the module and extra it needs, its licence, and whether time helps it."""

    name: str
    problems: tuple[str, ...]
    run: Run
    anytime: bool
    summary: str
    module: str = ""
    extra: str = ""
    licence: str = "Apache-2.0"

    @property
    def installed(self) -> bool:
        """Whether the module it needs is there."""
        return not self.module or importlib.util.find_spec(self.module) is not None


def trivial(instance: Instance) -> Plan | None:
    """The answer for instances too small for any choice (or with nothing to do), else None."""
    n, problem = instance.n, instance.problem
    if problem in ("tsp", "atsp") and n <= 3:
        if n == 3 and problem == "atsp":
            matrix = instance.metric().full()
            forward = matrix[0, 1] + matrix[1, 2] + matrix[2, 0]
            return [0, 1, 2] if forward <= matrix[0, 2] + matrix[2, 1] + matrix[1, 0] else [0, 2, 1]
        return list(range(n))
    if problem in ("cvrp", "cvrptw") and n <= 2:
        return [[1]] if n == 2 else []
    if (problem == "op" and n <= 1) or (problem == "kp" and n == 0):
        return []
    return None


def _nearest(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    return [int(v) for v in construct.nearest_neighbour(i.metric())]


def _farthest(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    return [int(v) for v in construct.farthest_insertion(i.metric())]


def _descent(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    metric = i.metric()
    return [int(v) for v in tsp_local.two_opt_or_opt(metric, construct.farthest_insertion(metric))]


def _iterated(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    metric = i.metric()
    began = clock()
    start = construct.farthest_insertion(metric) if i.n <= 5000 else construct.nearest_neighbour(metric)
    if i.problem == "atsp":
        tour = atsp_local.path_exchange(
            metric.full(), construct.nearest_neighbour(metric), rng, seconds=s - (clock() - began), clock=clock,
            on_incumbent=lambda _, t: report([int(v) for v in t]),
        )  # fmt: skip
    else:
        tour = tsp_local.iterated_local_search(
            metric, start, rng, seconds=s - (clock() - began), clock=clock,
            on_incumbent=lambda _, t: report([int(v) for v in t]),
        )  # fmt: skip
    return [int(v) for v in tour]


def _savings(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.demand is not None
    return cvrp_local.savings(i.metric(), i.demand, i.limit)


def _sisr(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.demand is not None
    began = clock()
    metric = i.metric()
    start = cvrp_local.savings(metric, i.demand, i.limit)
    return cvrp_local.string_removals(
        metric, i.demand, i.limit, rng, start=start, seconds=s - (clock() - began), clock=clock,
        on_incumbent=lambda _, r: report(r),
    )  # fmt: skip


def _op_greedy(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.prize is not None
    return op_local.ruin_recreate(i.metric(), i.prize, i.limit, rng)


def _op_anneal(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.prize is not None
    return op_local.ruin_recreate(
        i.metric(), i.prize, i.limit, rng, seconds=s, clock=clock, on_incumbent=lambda _, p: report(p)
    )


def _density(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.value is not None and i.weight is not None
    return list(construct.density_greedy(i.value, i.weight, i.limit))


def _knapsack(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    assert i.value is not None and i.weight is not None
    found = exact.knapsack(i.value, i.weight, i.limit)
    if found is None:
        raise BqncoError(
            f"{i.name}: expected weights on a grid of 1/1000 and a table below 400 MB for the exact knapsack, got other "
            "weights or a larger table; use 'cp-sat' or 'density'"
        )
    return list(found)


def _time_insertion(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    return _timed(i, construct.time_insertion)


def _time_nearest(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    return _timed(i, construct.time_nearest)


def _timed(i: Instance, build: Any) -> Plan:
    assert i.demand is not None and i.windows is not None and i.service is not None
    plan: Plan | None = build(i.metric(), i.demand, i.limit, i.windows, i.service)
    if plan is None:
        raise BqncoError(
            f"{i.name}: expected customers that a vehicle of their own can serve on time, found one that it cannot; "
            "check its window against the way from the depot and back"
        )
    return plan


def _wrapped(function: Any) -> Run:
    def call(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
        plan: Plan = function(i, s, rng, report)
        return plan

    return call


def _pyvrp(i: Instance, s: float, rng: np.random.Generator, report: Report, clock: Clock) -> Plan:
    return external.pyvrp(i, s, rng, report, clock=clock)


_TOURS = ("tsp", "atsp")
METHODS = {
    m.name: m
    for m in (
        Method("nearest-neighbour", _TOURS, _nearest, False, "nearest unvisited node"),
        Method("farthest-insertion", ("tsp",), _farthest, False, "farthest insertion"),
        Method("2-opt", ("tsp",), _descent, False, "one descent of 2-opt and Or-opt from farthest insertion (Numba)"),
        Method("iterated-2-opt", _TOURS, _iterated, True, "2-opt/Or-opt (ATSP: path exchange) with kicks (Numba)"),
        Method("savings", ("cvrp",), _savings, False, "parallel savings of Clarke and Wright"),
        Method("string-removals", ("cvrp",), _sisr, True, "slack induction by string removals from savings (Numba)"),
        Method("prize-greedy", ("op",), _op_greedy, False, "insertion by prize per detour"),
        Method("prize-ruin", ("op",), _op_anneal, True, "ruin and recreate with annealing (Numba)"),
        Method("time-insertion", ("cvrptw",), _time_insertion, False, "sequential insertion of Solomon"),
        Method("time-nearest", ("cvrptw",), _time_nearest, False, "always the customer who can be served soonest"),
        Method("density", ("kp",), _density, False, "greedy by value per weight"),
        Method("knapsack-exact", ("kp",), _knapsack, False, "dynamic programming, exact (Numba)"),
        Method("fast-tsp", ("tsp",), _wrapped(external.fast_tsp), True, "fast-tsp, Or-opt in C++", "fast_tsp",
               "fast-tsp", "MIT"),
        Method("pyvrp", ("tsp", "cvrp", "cvrptw", "op"), _pyvrp, True, "PyVRP, iterated local search",
               "pyvrp", "pyvrp", "MIT"),
        Method("hgs", ("cvrp",), _wrapped(external.hgs), True, "HGS-CVRP through hygese", "hygese", "hgs", "MIT"),
        Method("ortools", ("tsp", "atsp", "cvrp"), _wrapped(external.ortools_routing), True,
               "OR-Tools routing, guided local search", "ortools", "ortools", "Apache-2.0"),
        Method("cp-sat", ("tsp", "atsp", "op", "kp"), _wrapped(external.cp_sat), True,
               "OR-Tools CP-SAT, one worker", "ortools", "ortools", "Apache-2.0"),
        Method("lkh", _TOURS, _wrapped(external.lkh), False, "LKH-3 through elkai, one run", "elkai", "lkh",
               "research and non-commercial use only"),
    )
}  # fmt: skip


def method(name: str, problem: str) -> Method:
    """The method of that name, checked for the problem and for what must be installed. Raises BqncoError."""
    if name not in METHODS:
        raise BqncoError(f"expected a method among {', '.join(METHODS)}, got {name!r}")
    found = METHODS[name]
    if problem not in found.problems:
        fits = ", ".join(m.name for m in METHODS.values() if problem in m.problems)
        raise BqncoError(
            f"method {name!r} solves {', '.join(found.problems)}, not {problem}; for {problem} use {fits}"
        )
    if not found.installed:
        raise BqncoError(
            f"method {name!r} needs the package {found.module!r} ({found.licence}), which is not installed; "
            f"run: pip install 'sfumato-bqnco[{found.extra}]'"
        )
    return found


def run(
    name: str,
    instance: Instance,
    seconds: float,
    rng: np.random.Generator,
    report: Report | None = None,
    clock: Clock = time.perf_counter,
) -> Plan:
    """Solve `instance` by the named method within `seconds` of `clock`.

    HGS counts process CPU time and fast-tsp and OR-Tools wall time, whatever `clock` is. Raises BqncoError when the method does not fit
    or is not installed.
    """
    chosen = method(name, instance.problem)
    easy = trivial(instance)
    if easy is not None:
        return easy
    return chosen.run(instance, seconds, rng, report or (lambda plan: None), clock)
