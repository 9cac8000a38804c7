"""The experiment files resolve, and a small piece of each crossing runs to a figure and a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sfumato_crossings.figures import main

from sfumato import config, plugins
from sfumato.cli import cli
from sfumato.errors import BackendUnavailable, UnknownName
from sfumato.experiment import Experiment
from sfumato.runtimes import Direct

ROOT = Path(__file__).parents[1]
PIECES = {
    "cartpole": '[[task]]\nuse = "crossings/cartpole"\nmax_steps = 40\n[[solver]]\nuse = "vopp/planner"\nseconds = "none"\n'
    "max_steps = 2000\nn_episodes = 200\nn_particles = 200\n",
    "knapsack": 'backend = "numpy"\n[[task]]\nuse = "opaque-knapsack/micro"\npomdp_model = true\n[[solver]]\nuse = "vopp/planner"\nseconds = "none"\n'
    'max_episodes = 100\nn_episodes = 50\nn_particles = 100\n[[solver]]\nuse = "opaque-knapsack/expert"\npolicy = "greedy"\n'
    '[[solver]]\nuse = "crossings/endgame"\n',
    "tuned": '[[task]]\nuse = "vopp/tiger"\nmax_steps = 5\n[[solver]]\nuse = "ofs/tuned"\nsolver = "vopp/planner"\n'
    'setting = "max_episodes"\nvalues = [20, 40]\nsettings = {seconds = "none", n_episodes = 20}\ndeadline_seconds = 0.05\n'
    'clock = "cpu"\n[[solver]]\nuse = "vopp/planner"\nseconds = "none"\nn_episodes = 20\nmax_episodes = 20\n',
}


FILES = sorted(path for path in ROOT.glob("*.toml") if path.name != "pyproject.toml")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_experiment_file_names_what_is_there(path):
    """Tasks, solvers and settings resolve, and no solver declines its task; a file that needs an extra says so."""
    experiment, registry = Experiment.from_toml(path), plugins.Registry()
    try:
        jobs = experiment.jobs(registry)
    except UnknownName as error:
        if "sb3/" in str(error):
            pytest.skip("sfumato-sb3 is not installed; it is an example of its own")
        raise
    except BackendUnavailable as error:
        if "torch" in str(error):
            pytest.skip("torch is not installed; the learners need it")
        raise
    assert len(jobs) == len(experiment.tasks) * len(experiment.solvers)
    for job in jobs:
        task, solver = (
            plugins.build(registry.find(kind, ref.name), ref.settings, config.structure)
            for kind, ref in (("task", job.spec.task), ("solver", job.spec.solver))
        )
        assert solver.supports(task, Direct()) is None


@pytest.mark.parametrize("name", sorted(PIECES))
def test_a_piece_of_each_crossing_becomes_a_figure(tmp_path, name):
    """Run, draw, and read the table back: a row for each solver, each with a finite interval."""
    (tmp_path / "piece.toml").write_text(f'name = "{name}"\nseeds = 2\n' + PIECES[name])
    runner, store = CliRunner(), str(tmp_path / "store")
    ran = runner.invoke(cli, ["run", str(tmp_path / "piece.toml"), "--store", store, "--isolation", "none"])
    assert ran.exit_code == 0, ran.output
    drawn = runner.invoke(main, [name, "--store", store, "--out", str(tmp_path)])
    assert drawn.exit_code == 0, drawn.output
    table = json.loads((tmp_path / f"{name}.json").read_text())
    played = [row for row in table["rows"] if "low" in row]
    assert len(played) == PIECES[name].count("[[solver]]")
    assert all(row["low"] <= row["high"] and row["n"] == 2 for row in played)
    if name == "tuned":
        assert sum(table["rows"][-1]["plays"]) == 2
        assert table["rows"][-2]["return"] == played[0]["return"]  # of one fast value, whoever draws blindly draws that
    assert (tmp_path / f"{name}.svg").read_text().count("<svg") == 1


def test_an_empty_store_is_named(tmp_path):
    """Nothing to draw is an error that says what to run."""
    drawn = CliRunner().invoke(main, ["tuned", "--store", str(tmp_path)])
    assert drawn.exit_code == 1
    assert "run 'sfumato run" in drawn.output
