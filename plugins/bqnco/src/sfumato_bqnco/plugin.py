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
    ("op", "OpTask", "orienteering: random and OPLib instances"),
    ("kp", "KpTask", "0/1 knapsack: random instances"),
)


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """Five tasks, the policy, the classical methods, one evaluator."""
    for name, target, summary in _TASKS:
        yield ComponentSpec(
            "task",
            f"bqnco/{name}",
            target=f"sfumato_bqnco.tasks:{target}",
            config="sfumato_bqnco.config:TaskConfig",
            version=1,
            summary=summary,
            source=SOURCE,
            evaluators=("bqnco/gap",),
            backends=(),
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
        summary="a classical method by name: 2-opt, string removals, fast-tsp, PyVRP, HGS, OR-Tools, LKH, exact",
        source="see sfumato_bqnco.methods",
        backends=(BackendSpec("numba", devices=("cpu",)),),
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
    yield ReportSection("Routes", target="sfumato_bqnco.report:routes", tasks=tasks)
