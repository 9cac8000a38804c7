"""What this plugin offers to sfumato. Light: nothing is imported but the names of what could be."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import PLUGIN_API, BackendSpec, ComponentSpec, ReportSection, hookimpl

__all__ = ["PLUGIN_API", "sfumato_components"]

_SOURCE = "arXiv:2510.27191"
_NUMBA = (BackendSpec("numba", devices=("cpu",), extra="numba"),)
_TASKS = (
    ("tiger", "TigerTask", "TigerConfig", "Listen, or open one of two doors", "Kaelbling et al. 1998"),
    ("rocksample", "RockSampleTask", "RockSampleConfig", "Rover, rocks of unknown worth, a fading sensor", "Smith and Simmons 2004"),
    ("tag", "TagTask", "TagConfig", "Chase an opponent seen only on one's own cell", "Pineau et al. 2003"),
    ("lasertag", "LaserTagTask", "LaserTagConfig", "Tag with noisy laser beams, the robot lost", "Somani et al. 2013"),
    ("light-dark", "LightDarkTask", "LightDarkConfig", "Find the light, learn the position, stop at 0", "Sunberg 2018"),
    ("navigation", "NavigationTask", "NavigationConfig", "Find the gate in a partially known map", _SOURCE),
    ("mars", "MarsTask", "MarsConfig", "Two rovers among rocks, (5+m)² joint actions", "Cai et al. 2018"),
    ("crowdnav", "CrowdNavTask", "CrowdNavConfig", "Cross a hall of curious and shy people", _SOURCE),
    ("file", "FileTask", "FileConfig", "The POMDP of a .pomdp file", "pomdp.org"),
)
_SOLVERS = (
    (
        "planner", "PlannerSolver", "PlannerConfig", "VOPP: vectorised online planning with reference policies", _SOURCE,
        (
            *_NUMBA,
            BackendSpec("numpy", devices=("cpu",)),
            BackendSpec("torch", devices=("cpu", "cuda"), extra="torch"),
        ),
    ),
    ("pomcp", "POMCPSolver", "POMCPSolverConfig", "POMCP (partially observable UCT), compiled", "Silver and Veness 2010", _NUMBA),
    (
        "despot", "DESPOTSolver", "DESPOTSolverConfig", "DESPOT-like: bounds under determinised scenarios, compiled",
        "Ye et al. 2017", _NUMBA,
    ),
    ("porpp", "PORPPSolver", "PORPPSolverConfig", "Sequential PORPP, in plain Python", "Kim and Kurniawati 2025", ()),
    ("qmdp", "QMDPSolver", "QMDPConfig", "QMDP: the value of full knowledge after this step", "Littman et al. 1995", _NUMBA),
    (
        "sarsop", "SarsopSolver", "SarsopConfig", "Anytime bounds by heuristic search value iteration, then the lower policy",
        "Smith and Simmons 2005", _NUMBA,
    ),
)  # fmt: skip


_ONLINE: dict[str, object] = {"seconds": None, "max_episodes": 40, "n_episodes": 20, "n_particles": 200}
#: Settings under which a solver can be tried in seconds.
_SAMPLES: dict[str, dict[str, object]] = {
    "planner": _ONLINE,
    "pomcp": _ONLINE,
    "despot": {"seconds": None, "max_episodes": 3, "n_scenarios": 50, "rollout_depth": 20, "n_particles": 200},
    "porpp": _ONLINE,
    "qmdp": {},
    "sarsop": {"gap": 2.0, "solve_seconds": 2.0, "max_trials": 3},
}


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    """Yield the tasks, the solvers and the evaluator."""
    for name, target, config, summary, source in _TASKS:
        yield ComponentSpec(
            "task", f"vopp/{name}", target=f"sfumato_vopp.tasks:{target}", config=f"sfumato_vopp.task_config:{config}",
            version=1, summary=summary, source=source, evaluators=("vopp/discounted-return",),
            sample={"max_steps": 5, **({"n": 7, "m": 3} if name == "mars" else {})},
        )  # fmt: skip
    for name, target, config, summary, source, backends in _SOLVERS:
        yield ComponentSpec(
            "solver", f"vopp/{name}", target=f"sfumato_vopp.solvers:{target}", config=f"sfumato_vopp.task_config:{config}",
            version=1, summary=summary, source=source, backends=backends, timing="exclusive", sample=_SAMPLES[name],
        )  # fmt: skip
    yield ComponentSpec(
        "evaluator", "vopp/discounted-return", target="sfumato_vopp.evaluators:DiscountedReturn", version=1,
        summary="Discounted return, success, and the time a decision took",
    )  # fmt: skip


@hookimpl
def sfumato_report_sections() -> Iterator[ReportSection]:
    yield ReportSection("Belief over the map", target="sfumato_vopp.report:belief", tasks=("vopp/",))
    yield ReportSection("First episode", target="sfumato_vopp.report:episode", tasks=("vopp/",))
