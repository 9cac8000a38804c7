"""The plugin seen from the runner: light to load, and whole episodes through the protocols."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato", reason="the adapters need the runner")
pytest.importorskip("numba", reason="the solvers of these tests are compiled")
from sfumato_vopp import Model, ModelError, ParticleFilter
from sfumato_vopp.plugin import sfumato_components
from sfumato_vopp.solvers import PlannerSolver, POMCPSolver
from sfumato_vopp.task_config import PlannerConfig, POMCPSolverConfig, RockSampleConfig, TigerConfig
from sfumato_vopp.tasks import RockSampleTask, TigerTask

TIGER_FILE = """
discount: 0.95
states: left right
actions: listen open-left open-right
observations: left right
T: * uniform
T: listen identity
O: * uniform
O: listen
0.85 0.15
0.15 0.85
R: listen : * : * : * -1
R: open-left : left : * : * -100
R: open-left : right : * : * 10
R: open-right : left : * : * 10
R: open-right : right : * : * -100
"""


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


def test_the_planner_runs_through_the_adapters_where_numba_is_absent() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numba' else find(name, *rest)\n"
        "import numpy as np; from types import SimpleNamespace as N\n"
        "from sfumato_vopp.solvers import PlannerSolver; from sfumato_vopp.tasks import TigerTask\n"
        "from sfumato_vopp.task_config import PlannerConfig, TigerConfig\n"
        "ctx = N(backend=None, device='cpu', stream=lambda name, *keys: np.random.default_rng(0), indices=[0])\n"
        "task = TigerTask(TigerConfig()); policy = PlannerSolver(PlannerConfig(max_episodes=100)).solve(task, ctx)\n"
        "policy.reset(task.start(next(iter(task.instances(ctx))), ctx, np.random.default_rng(0)).reset(), np.random.default_rng(0))\n"
        "print(policy.act(-1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in ("0", "1", "2"), done.stderr


def test_a_file_that_is_not_there_is_told_while_the_settings_are_built() -> None:
    from sfumato.config import ConfigError, structure
    from sfumato_vopp.task_config import FileConfig

    with pytest.raises(ConfigError, match="found none at 'problem.pomdp'.*example:tiger"):
        structure({"path": "problem.pomdp"}, FileConfig, "task vopp/file")
    with pytest.raises(ConfigError, match="found none"):
        structure({"path": "example:tigre"}, FileConfig, "task vopp/file")


def test_every_component_can_be_built() -> None:
    from importlib import import_module

    for spec in sfumato_components():
        module, name = spec.target.split(":")
        target = getattr(import_module(module), name)
        if spec.config is None:
            target()
            continue
        module, name = spec.config.split(":")
        target(getattr(import_module(module), name)(**spec.sample))


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


def test_every_task_starts_steps_and_is_filtered(rng) -> None:  # type: ignore[no-untyped-def]
    from importlib import import_module

    for spec in sfumato_components():
        if spec.kind != "task" or spec.name == "vopp/crowdnav":
            continue
        module, name = spec.target.split(":")
        config = getattr(import_module(spec.config.split(":")[0]), spec.config.split(":")[1])()
        task = getattr(import_module(module), name)(config)
        ctx = context(2)
        for instance in task.instances(ctx):
            episode = task.start(instance, ctx, ctx.stream("world", instance.index))
            model = episode.reset().public["pomdp_model"]
            assert isinstance(model, Model)
            belief = ParticleFilter(model, 2000, rng)
            for action in (1, 0):
                step = episode.step(action)
                if step.over:
                    break
                belief.update(action, step.observation)
            assert episode.truth()["last_state"] is not None
        with pytest.raises(ModelError, match="expected an action"):
            episode.step(model.n_actions)


def test_table_solvers_know_their_bounds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from sfumato_vopp.solvers import QMDPSolver, SarsopSolver
    from sfumato_vopp.task_config import FileConfig, LaserTagConfig, QMDPConfig, SarsopConfig
    from sfumato_vopp.tasks import FileTask, LaserTagTask

    path = tmp_path / "tiger.pomdp"
    path.write_text(TIGER_FILE)
    task = FileTask(FileConfig(path=str(path), max_steps=20))
    ctx = context(1)
    sarsop = SarsopSolver(SarsopConfig(gap=0.5, solve_seconds=30))
    policy = sarsop.solve(task, ctx)
    notes = policy.notes()
    assert notes["lower_bound"] <= 19.3714 + 1e-6 and notes["upper_bound"] >= 19.3714 - 1e-6
    (instance,) = task.instances(ctx)
    policy.reset(task.start(instance, ctx, ctx.stream("world", 0)).reset(), ctx.stream("policy", 0))
    assert policy.act(-1) == 0
    assert QMDPSolver(QMDPConfig()).solve(task, ctx).notes()["upper_bound"] > 19.3714
    refusal = sarsop.supports(LaserTagTask(LaserTagConfig()), None)
    assert refusal is not None and "does not list" in refusal.reason


def test_crowdnav_is_played_from_what_is_seen() -> None:
    from sfumato_vopp.task_config import CrowdNavConfig
    from sfumato_vopp.tasks import CrowdNavTask

    task = CrowdNavTask(CrowdNavConfig(n_pedestrians=30))
    solver = PlannerSolver(PlannerConfig(seconds=None, max_episodes=400, n_episodes=200, n_particles=200))
    ctx = context(1)
    policy = solver.solve(task, ctx)
    (instance,) = task.instances(ctx)
    episode = task.start(instance, ctx, ctx.stream("world", 0))
    start = episode.reset()
    policy.reset(start, ctx.stream("policy", 0))
    observation = start.observation
    for _ in range(3):
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation = step.observation
    assert observation.shape == (20,) and policy.notes()["decisions"] == 3


def test_a_step_after_the_end_is_refused() -> None:
    from sfumato.errors import ProtocolError
    from sfumato_vopp.task_config import LightDarkConfig
    from sfumato_vopp.tasks import LightDarkTask

    task, ctx = LightDarkTask(LightDarkConfig()), context(1)
    (instance,) = task.instances(ctx)
    episode = task.start(instance, ctx, ctx.stream("world", 0))
    episode.reset()
    assert episode.step(2).over
    with pytest.raises(ProtocolError, match="after the end"):
        episode.step(2)
