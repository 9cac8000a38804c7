"""What this plugin offers; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from sfumato import BackendSpec, CommandSpec, ComponentSpec, Finding, ReportSection, hookimpl

PLUGIN_API = 1
SOURCE = "arXiv:2512.22313"

_NUMPY = (BackendSpec("numpy", devices=("cpu",)),)


def _task(name: str, target: str, config: str, summary: str, **sample: object) -> ComponentSpec:
    return ComponentSpec(
        "task",
        name,
        target=f"sfumato_ofs.tasks:{target}",
        config=f"sfumato_ofs.config:{config}",
        version=1,
        summary=summary,
        source=SOURCE,
        evaluators=("ofs/closed-loop",),
        sample={"rounds": 40, "n_thresholds": 11, **sample},
    )


def _solver(name: str, target: str, config: str, summary: str, source: str = SOURCE) -> ComponentSpec:
    return ComponentSpec(
        "solver",
        name,
        target=f"sfumato_ofs.solvers:{target}",
        config=f"sfumato_ofs.config:{config}",
        version=1,
        summary=summary,
        source=source,
        backends=_NUMPY,
    )


def _peer(name: str, target: str, config: str, summary: str, package: str) -> ComponentSpec:
    return ComponentSpec(
        "solver",
        name,
        target=f"sfumato_ofs.peers:{target}",
        config=f"sfumato_ofs.config:{config}",
        version=1,
        summary=summary,
        source=f"the library {package}",
        backends=(BackendSpec("numpy", devices=("cpu",), extra="peers", requires=("numpy", package)),),
    )


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    yield _task(
        "ofs/synthetic",
        "SyntheticTask",
        "SyntheticConfig",
        "Beta scores whose means drift with acceptance",
        scores="observed",
    )
    yield _task("ofs/german", "GermanTask", "GermanConfig", "German Credit; the group mix follows acceptance")
    yield _task("ofs/compas", "CompasTask", "CompasConfig", "COMPAS; the group mix follows acceptance")
    yield _solver(
        "ofs/optimistic-feasible",
        "OptimisticFeasibleSolver",
        "OptimisticFeasibleConfig",
        "Largest optimistic reward among thresholds that look feasible",
    )
    yield _solver(
        "ofs/primal-dual",
        "PrimalDualSolver",
        "PrimalDualConfig",
        "Baseline: optimistic reward minus multipliers times residual bounds",
    )
    yield _solver(
        "ofs/unconstrained",
        "UnconstrainedSolver",
        "UnconstrainedConfig",
        "Baseline: upper confidence bound on reward, constraints ignored",
    )
    yield _solver(
        "ofs/observed-scores",
        "ObservedScoresSolver",
        "ObservedScoresConfig",
        "Every applicant's score is logged: rates known at all thresholds (ours)",
        source="own work",
    )
    yield _solver(
        "ofs/epsilon-greedy",
        "EpsilonGreedySolver",
        "EpsilonGreedyConfig",
        "Baseline: best feasible mean, sometimes a random arm",
    )
    yield _solver("ofs/random", "RandomSolver", "RandomConfig", "Baseline: a random arm each round")
    yield _solver("ofs/fixed", "FixedSolver", "FixedConfig", "Hold one threshold")
    yield _peer(
        "ofs/mabwiser",
        "MabwiserSolver",
        "MabwiserConfig",
        "Peer: mabwiser's bandits on reward or a penalised reward",
        "mabwiser",
    )
    yield _peer(
        "ofs/vowpal-wabbit",
        "VowpalWabbitSolver",
        "VowpalWabbitConfig",
        "Peer: Vowpal Wabbit's bandit on reward or a penalised reward",
        "vowpalwabbit",
    )
    yield ComponentSpec(
        "evaluator",
        "ofs/closed-loop",
        target="sfumato_ofs.evaluators:ClosedLoopEvaluator",
        version=1,
        summary="Reward, violation and gap to the best feasible fixed threshold",
        source=SOURCE,
    )
    yield ComponentSpec(
        "solver",
        "ofs/tuned",
        target="sfumato_ofs.tuned:TunedSolver",
        config="sfumato_ofs.tuned_config:TunedConfig",
        summary="Tunes a numeric setting of another solver online, under a deadline",
        source=SOURCE,
        timing="exclusive",
        stands_on="solver",
    )


@hookimpl
def sfumato_commands() -> Iterator[CommandSpec]:
    yield CommandSpec(
        "fetch", target="sfumato_ofs.cli:fetch", help="Download German Credit and COMPAS, with checksums"
    )
    yield CommandSpec(
        "sweep", target="sfumato_ofs.cli:sweep", help="Is any threshold feasible on a logged score file?"
    )
    yield CommandSpec(
        "replay", target="sfumato_ofs.cli:replay", help="Verify an audit log and replay its decisions"
    )
    yield CommandSpec("report", target="sfumato_ofs.cli:report", help="Model-risk report from an audit log")
    yield CommandSpec(
        "plots", target="sfumato_ofs.cli:plots", help="Pictures of the search beside its baselines"
    )


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    tasks = ("ofs/synthetic", "ofs/german", "ofs/compas")
    yield ReportSection("Over time", target="sfumato_ofs.report:curves", tasks=tasks)
    yield ReportSection("Where it played", target="sfumato_ofs.report:plays", tasks=tasks)


@hookimpl
def sfumato_doctor() -> Iterator[Finding]:
    for package, extra, purpose in (
        ("sklearn", "data", "the score models of ofs/german and ofs/compas"),
        ("pooch", "data", "'sfumato ofs fetch'"),
        ("numba", "numba", "the compiled simulation behind claims and pictures"),
    ):
        if find_spec(package):
            yield Finding("ok", f"ofs/{package}", f"installed, for {purpose}")
        else:
            yield Finding(
                "warning",
                f"ofs/{package}",
                f"not installed; needed for {purpose}",
                f"pip install 'sfumato-ofs[{extra}]'",
            )
    roots = [Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "sfumato"]
    if os.environ.get("SFUMATO_DATA"):
        roots.insert(0, Path(os.environ["SFUMATO_DATA"]))
    for task, names in (
        ("ofs/german", ("german.data",)),
        ("ofs/compas", ("compas-two-years-minimal.csv", "compas-scores-two-years.csv")),
    ):
        found = [root / "fairness" / name for root in roots for name in names]
        there = [path for path in found if path.is_file()]
        if there:
            yield Finding("ok", f"{task}: data", str(there[0]))
        else:
            yield Finding(
                "warning",
                f"{task}: data",
                f"no {' or '.join(names)} under {', '.join(map(str, roots))}",
                "Run 'sfumato ofs fetch', or set SFUMATO_DATA.",
            )
