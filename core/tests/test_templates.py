"""`sfumato new-plugin`: what it writes passes its own tests at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sfumato.errors import UsageError
from sfumato.templates import write_plugin


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
    assert ("kept      runs" in checked.stdout) is (only in (None, "runtime"))  # a task or a solver alone has nothing to run with


def test_a_new_plugin_runs(sfumato, tmp_path):
    """The command of its README."""
    sfumato("new-plugin", "my-guess", "--output", str(tmp_path / "mine"), check=0)
    env = install(tmp_path / "mine", tmp_path / "site")
    done = sfumato("run", "my-guess/guess", "--solver", "my-guess/bisection", "--seeds", "20", env=env, check=0)
    assert "guesses" in done.stdout


@pytest.mark.parametrize("name", ["My", "a_b", "1a", "", "a--b"])
def test_a_bad_name_is_refused(sfumato, name):
    """With an example of a good one."""
    assert "as in 'my-planner'" in sfumato("new-plugin", name, check=2).stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("class", "reserved word of Python"),
        ("lambda", "reserved word of Python"),
        ("sfumato", "reserved word of sfumato"),
        ("gym", "reserved word of sfumato: 'gym/env' is the core's"),
        ("direct", "reserved word of sfumato"),
        ("run", "reserved word of sfumato: 'sfumato run' is a command"),
    ],
)
def test_a_reserved_word_is_called_so(sfumato, name, why, tmp_path):
    """It is well spelled; to say how names are spelled would be no help."""
    error = sfumato("new-plugin", name, check=2).stderr
    assert f"{name!r} is a {why}" in error
    assert "lower-case" not in error
    assert not list(tmp_path.glob("sfumato-*"))


@pytest.mark.parametrize("author", ['O"Neil', "Ann\nB. \\ C", "tab\there\x7f", "Jürgen $name"])
def test_any_author_makes_a_project_file_that_can_be_read(tmp_path, author):
    """Quotes, line ends, backslashes and control characters come back as one line of text."""
    import tomllib

    write_plugin("mine", tmp_path / "mine", "task", author)
    (found,) = tomllib.loads((tmp_path / "mine" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["authors"]
    assert found["name"].split() == author.replace("\x7f", " ").split()
    assert found["name"].isprintable()


def test_an_author_that_is_no_text_is_refused(tmp_path):
    """Bytes that are not UTF-8 reach a program as surrogates, which no file can hold."""
    with pytest.raises(UsageError, match="--author"):
        write_plugin("mine", tmp_path / "mine", "task", "Ann \udcff")
    assert not (tmp_path / "mine").exists()


def test_a_name_too_long_for_a_folder_is_refused(sfumato):
    """Before anything is written."""
    assert "at most 64 letters, got 300" in sfumato("new-plugin", "a" * 300, check=2).stderr


@pytest.mark.parametrize("output", ["/proc/nope", "file/under", "x" * 300])
def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(sfumato, tmp_path, output):
    """With what the system said, and what to do."""
    (tmp_path / "file").write_text("")
    error = sfumato("new-plugin", "mine", "--output", output, check=2).stderr
    assert error.startswith("UsageError: cannot write the plugin to ")
    assert "--output" in error
    assert "Traceback" not in error


def test_what_was_written_before_it_failed_is_removed(tmp_path, monkeypatch):
    """So that the command can be given again; an empty folder that was there stays."""
    from pathlib import Path

    (tmp_path / "mine").mkdir()
    written, write_text = [], Path.write_text

    def full(path, *args, **kwargs):
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(path)
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_plugin("mine", tmp_path / "mine")
    assert len(written) == 5
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_an_existing_folder_is_left_alone(sfumato, tmp_path):
    """Nothing is overwritten."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("mine")
    assert "nothing was written" in sfumato("new-plugin", "x", "--output", str(tmp_path / "here"), check=2).stderr
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["notes.txt"]
    (tmp_path / "a-file").write_text("mine")
    assert "nothing was written" in sfumato("new-plugin", "x", "--output", "a-file", check=2).stderr


def test_an_empty_folder_is_filled(sfumato, tmp_path):
    """Nothing could be lost."""
    (tmp_path / "empty").mkdir()
    sfumato("new-plugin", "mine", "--output", "empty", check=0)
    assert (tmp_path / "empty" / "pyproject.toml").exists()
