"""`sfumato new-plugin`: what it writes passes its own tests at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def install(folder, site):
    """Make a distribution importable with its entry points, without touching the environment of the tests."""
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{k} = {v}" for k, v in project["entry-points"]["sfumato"].items()]
    (info / "entry_points.txt").write_text("[sfumato]\n" + "\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(folder / "src"), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("only", [None, "task", "solver", "runtime"])
def test_a_new_plugin_passes_its_tests_and_keeps_every_promise(sfumato, tmp_path, only):
    """All four forms."""
    words = ["new-plugin", "my-guess", "--output", str(tmp_path / "mine"), *(["--only", only] if only else [])]
    sfumato(*words, check=0)
    env = install(tmp_path / "mine", tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], cwd=tmp_path / "mine", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    checked = sfumato("check", "my-guess", env=env, check=0)
    assert "broken" not in checked.stdout


def test_a_new_plugin_runs(sfumato, tmp_path):
    """The command of its README."""
    sfumato("new-plugin", "my-guess", "--output", str(tmp_path / "mine"), check=0)
    env = install(tmp_path / "mine", tmp_path / "site")
    done = sfumato("run", "my-guess/guess", "--solver", "my-guess/bisection", "--seeds", "20", env=env, check=0)
    assert "guesses" in done.stdout


@pytest.mark.parametrize("name", ["My", "a_b", "1a", "sfumato", "", "a--b"])
def test_a_bad_name_is_refused(sfumato, name):
    """With an example of a good one."""
    assert "as in 'my-planner'" in sfumato("new-plugin", name, check=2).stderr


def test_an_existing_folder_is_left_alone(sfumato, tmp_path):
    """Nothing is overwritten."""
    (tmp_path / "here").mkdir()
    assert "nothing was written" in sfumato("new-plugin", "x", "--output", str(tmp_path / "here"), check=2).stderr
