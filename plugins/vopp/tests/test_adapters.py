"""The plugin seen from the runner: light to load, and whole episodes through the protocols."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato", reason="the adapters need the runner")
pytest.importorskip("numba", reason="the solvers of these tests are compiled")
from sfumato_vopp.plugin import sfumato_components
from sfumato_vopp.solvers import PlannerSolver, POMCPSolver
from sfumato_vopp.task_config import PlannerConfig, POMCPSolverConfig, RockSampleConfig, TigerConfig
from sfumato_vopp.tasks import RockSampleTask, TigerTask


def context(n: int = 2) -> SimpleNamespace:
    return SimpleNamespace(
        indices=range(n), backend=None, device="cpu", stream=lambda name, *keys: np.random.default_rng([len(name), *keys])
    )


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, sfumato_vopp, sfumato_vopp.plugin as p; list(p.sfumato_components());"
        "print([m for m in ('numpy', 'numba', 'torch', 'scipy', 'rich', 'cattrs') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_component_can_be_built() -> None:
    from importlib import import_module

    for spec in sfumato_components():
        module, name = spec.target.split(":")
        target = getattr(import_module(module), name)
        if spec.config is None:
            target()
            continue
        module, name = spec.config.split(":")
        target(getattr(import_module(module), name)())


@pytest.mark.parametrize(
    ("task", "solver"),
    [
        (TigerTask(TigerConfig(max_steps=10)), PlannerSolver(PlannerConfig(seconds=None, max_steps=20_000))),
        (RockSampleTask(RockSampleConfig(max_steps=10)), PlannerSolver(PlannerConfig(seconds=None, max_steps=20_000))),
        (
            RockSampleTask(RockSampleConfig(max_steps=10)),
            POMCPSolver(POMCPSolverConfig(seconds=None, max_episodes=500, filter="particles", n_particles=500)),
        ),
    ],
)
def test_episodes_run_and_repeat_bit_by_bit(task, solver) -> None:  # type: ignore[no-untyped-def]
    assert solver.supports(task, None) is None and solver.replay_promise() == "bits"

    def play() -> list[tuple[int, float]]:
        ctx = context()
        policy = solver.solve(task, ctx)
        out = []
        for k, instance in enumerate(task.instances(ctx)):
            episode = task.start(instance, ctx, ctx.stream("world", k))
            start = episode.reset()
            policy.reset(start, ctx.stream("policy", k))
            observation = start.observation
            for _ in range(task.max_steps):
                action = policy.act(observation)
                step = episode.step(action)
                policy.observe(step)
                out.append((action, step.reward))
                observation = step.observation
                if step.over:
                    break
            assert policy.notes()["decisions"] > 0
        return out

    assert play() == play()


def test_stratified_starts_are_the_prior_exactly() -> None:
    task = RockSampleTask(RockSampleConfig())
    ctx = context(256)
    starts = {
        task.start(i, ctx, ctx.stream("world", i.index)).truth()["start_state"][0] for i in task.instances(ctx)
    }
    assert len(starts) == 256
