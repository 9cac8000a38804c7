"""The plugin is light, complete, and runs under the runner's protocols."""

import subprocess
import sys

import numpy as np

HEAVY = ("numpy", "numba", "scipy", "casadi", "torch", "jax", "rich", "cattrs")


def test_the_package_and_the_plugin_import_nothing_heavy():
    code = f"import sys, sfumato_cpto, sfumato_cpto.plugin; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_method_works_without_the_runner():
    code = "import sys, sfumato_cpto as c; c.CPTOSolver(); print('sfumato' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_every_component_can_be_built():
    from importlib import import_module

    from sfumato_cpto import plugin

    for spec in plugin.sfumato_components():
        module, name = spec.target.split(":")
        target = getattr(import_module(module), name)
        if spec.config:
            module, name = spec.config.split(":")
            target(getattr(import_module(module), name)())
        else:
            target()


def test_a_course_through_the_protocols_is_scored():
    from types import SimpleNamespace

    from sfumato_cpto.config import CruiseConfig, PlannerConfig
    from sfumato_cpto.evaluators import DrivingEvaluator
    from sfumato_cpto.solvers import PlannerSolver
    from sfumato_cpto.tasks import CruiseTask

    task, solver = CruiseTask(CruiseConfig(seconds=1.0)), PlannerSolver(PlannerConfig())
    ctx = SimpleNamespace(indices=[0])
    assert solver.supports(task, None) is None
    policy = solver.solve(task, ctx)
    (course,) = task.instances(ctx)
    episode = task.start(course, ctx, np.random.default_rng(0))
    start = episode.reset()
    policy.reset(start, np.random.default_rng(1))
    observation, over = start.observation, False
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
    trace = SimpleNamespace(truth=episode.truth(), notes=policy.notes())
    rows = {metric.name: metric.value for metric in DrivingEvaluator().score(course, trace)}
    assert rows["at_fault"] == 0.0
    assert rows["plan_ms_max"] > 0.0
    assert len(policy.notes()["status"]) == 10


def test_iterations_and_penalty_reach_the_planner_beneath():
    """As given they are the planner's own; twice the penalty doubles every one of every stage, and one stage has the iterations."""
    from sfumato_cpto.config import PlannerConfig, PlannerSettings

    assert PlannerConfig().planner_settings() == PlannerSettings(kernel="numba")
    first, second = PlannerConfig(iterations=7, penalty=2.0).planner_settings().stages
    assert (first.iterations, second.iterations) == (7, PlannerSettings().stages[1].iterations)
    assert (first.rho_box, second.rho_obstacle) == (100.0, 40.0)
