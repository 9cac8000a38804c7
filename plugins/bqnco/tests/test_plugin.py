"""The plugin's offers, its lightness, and its tasks driven through the protocols."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import sfumato_bqnco
from sfumato_bqnco import claims

pytest.importorskip("sfumato", reason="needs the core")

from sfumato.context import RunContext
from sfumato_bqnco import solvers
from sfumato_bqnco.config import BASELINES, PolicyConfig, TaskConfig
from sfumato_bqnco.evaluators import GapEvaluator
from sfumato_bqnco.solvers import PolicySolver
from sfumato_bqnco.tasks import AtspTask, CvrpTask, CvrptwTask, KpTask, OpTask, TspTask, decode, encode

TASKS = {"tsp": TspTask, "atsp": AtspTask, "cvrp": CvrpTask, "op": OpTask, "kp": KpTask}
FAST = {"tsp": "2-opt", "atsp": "nearest-neighbour", "cvrp": "savings", "op": "prize-greedy", "kp": "density"}


def drive_all(task, solver, ctx):
    from sfumato.driver import drive
    from sfumato.runtimes import Direct

    return drive(task, solver, Direct(), {"gap": GapEvaluator()}, ctx)


def test_importing_the_package_and_the_plugin_loads_nothing_heavy():
    """Neither numpy nor torch nor numba, in a fresh interpreter."""
    code = (
        "import sys, sfumato_bqnco, sfumato_bqnco.plugin as p; list(p.sfumato_components()); list(p.sfumato_commands());"
        "bad = {'numpy', 'torch', 'numba', 'scipy', 'ortools', 'rich', 'cattrs'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_offer_can_be_imported():
    """Targets and configs of all components and commands exist."""
    from importlib import import_module

    from sfumato_bqnco import plugin

    offers = list(plugin.sfumato_components())
    for path in (
        [o.target for o in offers]
        + [o.config for o in offers if o.config]
        + [c.target for c in plugin.sfumato_commands()]
    ):
        module, name = path.split(":")
        assert hasattr(import_module(module), name)
    for name in sfumato_bqnco.__all__:
        assert getattr(sfumato_bqnco, name) is not None


def test_encoding_round_trips():
    """Routes and tours."""
    routes = [[[1, 2], [3]], [[3, 1, 2]]]
    rows = encode("cvrp", routes)
    assert rows.tolist() == [[0, 1, 2, 0, 3], [0, 3, 1, 2, -1]]
    assert [decode("cvrp", r) for r in rows] == routes
    assert [decode("tsp", r) for r in encode("tsp", [[0, 2, 1]])] == [[0, 2, 1]]


@pytest.mark.parametrize("problem", TASKS)
def test_a_batch_runs_through_the_driver(problem):
    """Feasible solutions, a gap of at least zero against the search reference where that is exact."""
    task = TASKS[problem](TaskConfig(n=12, reference="search", search_effort=1))
    ctx = RunContext(seed=3, indices=range(4), batch_size=2)
    component = {method: name for name, method in BASELINES.items()}[FAST[problem]]
    solver = getattr(solvers, f"Baseline_{component.replace('-', '_')}")
    result = drive_all(task, solver(), ctx)
    assert len(result.rows) == 2
    again = drive_all(task, solver(), ctx)
    assert result.digest == again.digest


@pytest.mark.parametrize("problem", TASKS)
def test_items_do_not_depend_on_their_batch(problem):
    """Item 2 of a batch of three is item 2 alone."""
    task = TASKS[problem](TaskConfig(n=10))
    together = next(iter(task.instances(RunContext(seed=1, indices=range(3))))).items[2]
    alone = next(iter(task.instances(RunContext(seed=1, indices=range(2, 3))))).items[0]
    a, b = together.arrays(), alone.arrays()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_an_infeasible_solution_earns_less_than_any_other_and_no_gap():
    """A tour that forgets a node: the episode goes on, the fault is named."""
    task = TspTask(TaskConfig(n=6))
    ctx = RunContext(indices=range(2))
    batch = next(iter(task.instances(ctx)))
    episode = task.start(batch, ctx, np.random.default_rng(0))
    episode.reset()
    step = episode.step(encode("tsp", [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]))
    assert step.reward[0] < -2 * 6 and step.reward[1] < 0
    assert "expected all 6 nodes" in step.info["faults"][0] and step.info["faults"][1] == ""


def test_the_policy_solver_declines_without_weights_and_runs_with_them(tmp_path, small_networks):
    """Problems without shipped weights are refused with advice; a file given by the user works."""
    from sfumato_bqnco import weights

    task = OpTask(TaskConfig(n=10))
    if weights.shipped("cvrptw") is None:
        refusal = PolicySolver().supports(CvrptwTask(TaskConfig(n=10)), None)
        assert refusal is not None
        assert "no trained weights" in refusal.reason
    path = tmp_path / "op.safetensors"
    weights.save(path, small_networks["op"], {"licence": "Apache-2.0"})
    solver = PolicySolver(PolicyConfig(weights=str(path), width=2))
    assert solver.supports(task, None) is None
    result = drive_all(task, solver, RunContext(indices=range(3)))
    assert len(result.rows) == 1


def test_published_and_library_sources_carry_references(routing):
    """Mean of the published optima as the literature has it; the smallest TSPLIB file first."""
    ctx = RunContext(indices=range(128), data_dir=routing.parent)
    batch = next(iter(TspTask(TaskConfig(source="published", n=200)).instances(ctx)))
    assert np.mean([i.reference for i in batch.items]) == pytest.approx(10.69355, abs=1e-4)
    one = RunContext(indices=range(1), data_dir=routing.parent)
    item = next(iter(TspTask(TaskConfig(source="library")).instances(one))).items[0]
    assert (item.name, item.reference) == ("eil51", 426.0)


def test_claims_name_functions_that_exist_and_bands_that_hold_numbers():
    """Every TOML under reproduce/ parses; a scaled-down claim says so in its title."""
    folder = Path(claims.__file__).parent / "reproduce"
    files = sorted(folder.glob("*.toml"))
    assert len(files) >= 15
    for path in files:
        claim = tomllib.loads(path.read_text())
        module, name = claim["run"]["call"].split(":")
        assert module == "sfumato_bqnco.claims" and callable(getattr(claims, name))
        assert claim["id"] == path.stem and claim["band"][0] <= claim["band"][1]
        assert not claim["scaled_down"] or "scaled down" in claim["title"]


def test_self_improvement_lowers_the_pool(small_networks):
    """One round on eight TSP15: no solution gets worse, some get better."""
    from sfumato_bqnco import generate
    from sfumato_bqnco.config import TrainConfig
    from sfumato_bqnco.selfimprove import SelfImprover

    arrays = generate.tsp(np.random.default_rng(0), 8, 15)
    improver = SelfImprover(small_networks["tsp"], arrays, np.random.default_rng(1), width=4, n_rounds=3)
    first = improver.cost.copy()
    done = improver.round(TrainConfig(n_steps=3, tokens_per_step=100), 8)
    assert (improver.cost <= first + 1e-9).all() and done.improved > 0 and done.after < done.before


def test_missing_library_files_say_where_they_are_published(tmp_path):
    """The error of a run without data names the public collections and the way to pass a single file."""
    from sfumato.errors import DataMissing

    task = OpTask(TaskConfig(source="library"))
    with pytest.raises(DataMissing, match="OPLib .*files="):
        list(task.instances(RunContext(indices=range(1), data_dir=tmp_path)))
