"""What this plugin offers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import attrs

from sfumato import BackendSpec, CommandSpec, ComponentSpec, Finding, ReportSection, hookimpl

PLUGIN_API = 1
SOURCE = "arXiv:2409.10310"
_CPU = (BackendSpec("numba", devices=("cpu",)), BackendSpec("numpy", devices=("cpu",)))
_BASELINE = (BackendSpec("numba", devices=("cpu",)),)


def _task(name: str, target: str, config: str, summary: str) -> ComponentSpec:
    return ComponentSpec(
        "task",
        name,
        target=f"sfumato_cpto.tasks:{target}",
        config=f"sfumato_cpto.config:{config}",
        version=1,
        summary=summary,
        source=SOURCE,
        evaluators=("cpto/driving",),
        sample={"seconds": 0.5},
    )


def _needing(package: str) -> tuple[BackendSpec, ...]:
    """The baselines' backend, for one that needs a solver of the extra `verify` besides."""
    return tuple(attrs.evolve(spec, extra="verify", requires=(spec.name, package)) for spec in _BASELINE)


def _solver(
    name: str, target: str, summary: str, source: str = SOURCE, backends: tuple[BackendSpec, ...] = _BASELINE
) -> ComponentSpec:
    return ComponentSpec(
        "solver",
        name,
        target=f"sfumato_cpto.solvers:{target}",
        config="sfumato_cpto.config:BaselineConfig",
        version=1,
        summary=summary,
        source=source,
        backends=backends,
        timing="exclusive",
    )


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """Yield tasks, solvers and the evaluator."""
    yield _task("cpto/cruise", "CruiseTask", "CruiseConfig", "Dense car-following traffic on six lanes")
    yield _task("cpto/racing", "RacingTask", "RacingConfig", "Sparser traffic at 22 m/s")
    yield _task("cpto/noisy", "NoisyTask", "NoisyConfig", "Dense traffic through noisy, failing sensors")
    yield _task(
        "cpto/occluded-intersection",
        "IntersectionTask",
        "IntersectionConfig",
        "Crossing traffic hidden by buildings",
    )
    yield _task(
        "cpto/occluded-pedestrian",
        "PedestrianTask",
        "PedestrianConfig",
        "Somebody may step out between parked cars",
    )
    yield _task("cpto/replay", "ReplayTask", "ReplayConfig", "Recorded traffic on real roads with bends")
    yield ComponentSpec(
        "solver",
        "cpto/planner",
        target="sfumato_cpto.solvers:PlannerSolver",
        config="sfumato_cpto.config:PlannerConfig",
        version=1,
        summary="One trajectory per hypothesis, sharing the segment that is driven",
        source=SOURCE,
        backends=_CPU,
        timing="exclusive",
    )
    yield _solver(
        "cpto/independent", "IndependentSolver", "Baseline: one plan per hypothesis, the cheapest is driven"
    )
    yield _solver("cpto/worst-case", "WorstCaseSolver", "Baseline: one plan for everything that might exist")
    yield _solver("cpto/most-likely", "MostLikelySolver", "Baseline: one plan for the likeliest hypothesis")
    yield _solver(
        "cpto/rule", "RuleSolver", "Baseline: scored rule-based proposals, in the manner of PDM-Closed",
        "Dauner et al., CoRL 2023",
    )  # fmt: skip
    yield _solver(
        "cpto/control-tree", "ControlTreeSolver", "Baseline: joint program with shared prefix, general QP solver",
        "Phiquepal and Toussaint, ICRA 2021", _needing("proxsuite"),
    )  # fmt: skip
    yield _solver(
        "cpto/ipopt", "IpoptSolver", "Baseline: the full nonlinear program", "Waechter and Biegler, 2006", _needing("casadi")
    )  # fmt: skip
    yield ComponentSpec(
        "evaluator",
        "cpto/driving",
        target="sfumato_cpto.evaluators:DrivingEvaluator",
        version=1,
        summary="Contacts, safety margin, comfort, speed kept, consistency, planning time",
        source=SOURCE,
    )


@hookimpl
def sfumato_commands() -> Iterator[CommandSpec]:
    """Yield `sfumato cpto verify` and `sfumato cpto film`."""
    yield CommandSpec(
        "verify",
        target="sfumato_cpto.cli:verify",
        help="Solve the same problems with other solvers, side by side.",
    )
    yield CommandSpec(
        "film",
        target="sfumato_cpto.cli:film",
        help="Drive one course and write a playable top view or an animation.",
    )


@hookimpl
def sfumato_doctor() -> Iterator[Finding]:
    """Yield which optional packages are there."""
    for package, extra, what in (
        ("clarabel", "verify", "verification"),
        ("proxsuite", "verify", "verification and the control-tree baseline"),
        ("casadi", "verify", "verification and the IPOPT baseline"),
        ("jax", "jax", "the batched kernel"),
        ("matplotlib", "plot", "pictures"),
        ("gymnasium", "gym", "the Gymnasium environment"),
        ("highway_env", "gym", "driving in highway-env"),
        ("commonroad_route_planner", "commonroad", "routes planned by CommonRoad's planner"),
    ):
        there = find_spec(package) is not None
        yield Finding(
            "ok" if there else "warning",
            f"cpto: {package}",
            f"{'found' if there else 'absent'}; needed for {what}",
            "" if there else f"pip install 'sfumato-cpto[{extra}]'",
        )


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    names = ("cruise", "racing", "noisy", "occluded-intersection", "occluded-pedestrian", "replay")
    yield ReportSection(
        "The scene from above", target="sfumato_cpto.report:scene", tasks=tuple(f"cpto/{n}" for n in names)
    )
