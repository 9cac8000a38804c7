"""What this plugin offers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from sfumato import BackendSpec, CommandSpec, ComponentSpec, Finding, ReportSection, hookimpl

PLUGIN_API = 1
SOURCE = "arXiv:2301.03313"

_TASKS = (
    ("tsp", "TspTask", "Euclidean TSP: random, published and TSPLIB instances"),
    ("atsp", "AtspTask", "asymmetric TSP: random and TSPLIB matrices"),
    ("cvrp", "CvrpTask", "capacitated vehicle routing: random, published and CVRPLIB instances"),
    ("cvrptw", "CvrptwTask", "vehicle routing with time windows: random and Solomon instances"),
    ("op", "OpTask", "orienteering: random and OPLib instances"),
    ("kp", "KpTask", "0/1 knapsack: random instances"),
)

# Component, summary, source, and the package and extra of those that are not our own.
_BASELINES = (
    ("nearest-neighbour", "TSP, ATSP: nearest unvisited node", "", ""),
    ("farthest-insertion", "TSP: farthest insertion", "", ""),
    ("two-opt", "TSP: one descent of 2-opt and Or-opt from farthest insertion", "", ""),
    ("iterated-two-opt", "TSP: 2-opt/Or-opt with kicks; ATSP: path exchange with kicks", "", ""),
    ("savings", "CVRP: parallel savings", "", ""),
    ("string-removals", "CVRP: slack induction by string removals from savings", "", ""),
    ("prize-greedy", "OP: insertion by prize per detour", "", ""),
    ("prize-ruin", "OP: ruin and recreate with annealing", "", ""),
    ("density-greedy", "KP: greedy by value per weight", "", ""),
    ("knapsack-exact", "KP: dynamic programming, exact", "", ""),
    ("time-insertion", "CVRPTW: sequential insertion", "", ""),
    ("time-nearest", "CVRPTW: always the customer who can be served soonest", "", ""),
    ("fast-tsp", "TSP: fast-tsp (MIT), Or-opt in C++", "fast-tsp", "fast-tsp"),
    ("pyvrp", "TSP, CVRP, CVRPTW, OP: PyVRP (MIT)", "pyvrp", "pyvrp"),
    ("hgs", "CVRP: HGS-CVRP (MIT) through hygese", "hygese", "hgs"),
    ("or-tools", "TSP, ATSP, CVRP: OR-Tools routing (Apache-2.0), guided local search", "ortools", "ortools"),
    ("cp-sat", "TSP, ATSP, OP, KP: OR-Tools CP-SAT (Apache-2.0), one worker", "ortools", "ortools"),
    ("lkh", "TSP, ATSP: LKH-3 through elkai (research and non-commercial use only)", "elkai", "lkh"),
)


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """The tasks, the policy, every baseline, the evaluators."""
    for name, target, summary in _TASKS:
        yield ComponentSpec(
            "task",
            f"bqnco/{name}",
            target=f"sfumato_bqnco.tasks:{target}",
            config="sfumato_bqnco.config:TaskConfig",
            version=1,
            summary=summary,
            source=SOURCE,
            evaluators=("bqnco/gap", "bqnco/primal-integral"),
            backends=(),
            sample={"n": 12},
        )
    yield ComponentSpec(
        "solver",
        "bqnco/policy",
        target="sfumato_bqnco.solvers:PolicySolver",
        config="sfumato_bqnco.config:PolicyConfig",
        version=1,
        summary="transformer on the remaining instance; greedy, bisimulation-aware beam, random re-construct",
        source=SOURCE,
        backends=(BackendSpec("torch", devices=("cpu", "cuda"), extra="torch"),),
    )
    yield ComponentSpec(
        "solver",
        "bqnco/classical",
        target="sfumato_bqnco.solvers:MethodSolver",
        config="sfumato_bqnco.config:MethodConfig",
        version=1,
        timing="exclusive",
        summary="deprecated: any baseline by -s method=NAME; each has a component of its own now",
        source="see sfumato_bqnco.methods",
        backends=(BackendSpec("numba", devices=("cpu",)),),
    )
    for name, summary, package, extra in _BASELINES:
        requires = (package,) if package else ("numba",)
        yield ComponentSpec(
            "solver",
            f"bqnco/{name}",
            target=f"sfumato_bqnco.solvers:Baseline_{name.replace('-', '_')}",
            config="sfumato_bqnco.config:BaselineConfig",
            version=1,
            timing="exclusive",
            summary=summary,
            source="see sfumato_bqnco.methods",
            backends=(BackendSpec(package or "numba", devices=("cpu",), extra=extra or None, requires=requires),),
            sample={"seconds": 3.0 if name == "cp-sat" else 0.2 if package else 0.02},
        )
    yield ComponentSpec(
        "evaluator",
        "bqnco/gap",
        target="sfumato_bqnco.evaluators:GapEvaluator",
        config=None,
        version=1,
        summary="feasibility, objective and optimality gap, recomputed with the file's own rounding",
        source="",
        backends=(),
    )
    yield ComponentSpec(
        "evaluator",
        "bqnco/primal-integral",
        target="sfumato_bqnco.evaluators:PrimalIntegralEvaluator",
        config=None,
        version=1,
        summary="mean primal gap over the time limit, from the incumbents that the solver noted",
        source="Berthold, Operations Research Letters 41(6), 2013",
        backends=(),
    )


@hookimpl
def sfumato_commands() -> Iterator[CommandSpec]:
    """`sfumato bqnco solve | train | labels`."""
    yield CommandSpec(
        "solve", target="sfumato_bqnco.cli:solve", help="Solve an instance file within a time limit"
    )
    yield CommandSpec("train", target="sfumato_bqnco.cli:train", help="Train weights from labels, resumable")
    yield CommandSpec(
        "labels", target="sfumato_bqnco.cli:labels", help="Generate labelled instances, resumable"
    )


@hookimpl
def sfumato_doctor() -> Iterator[Finding]:
    """Which optional packages are there."""
    advice = "" if find_spec("torch") else "pip install 'sfumato-bqnco[torch]'"
    yield Finding(
        "warning" if advice else "ok",
        "torch",
        "missing: the neural policy cannot run" if advice else "found",
        advice,
    )
    for module, extra, what in (
        ("fast_tsp", "fast-tsp", "baseline fast-tsp"),
        ("pyvrp", "pyvrp", "baseline PyVRP, and time windows"),
        ("hygese", "hgs", "baseline HGS"),
        ("ortools", "ortools", "baselines OR-Tools routing and CP-SAT"),
    ):
        there = find_spec(module) is not None
        yield Finding("ok", module, "found" if there else f"not installed ({what})",
                      "" if there else f"pip install 'sfumato-bqnco[{extra}]'")  # fmt: skip


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    tasks = tuple(f"bqnco/{name}" for name in ("tsp", "atsp", "cvrp", "cvrptw", "op"))
    every = tuple(f"bqnco/{name}" for name, _, _ in _TASKS)
    yield ReportSection("Gap against time", target="sfumato_bqnco.report:gap_against_time", tasks=every)
    yield ReportSection("Routes", target="sfumato_bqnco.report:routes", tasks=tasks)
