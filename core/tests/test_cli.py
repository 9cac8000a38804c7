"""The command line as a user meets it, each command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_list_shows_components_and_json_has_one_a_line(sfumato):
    """For people and for programs."""
    assert "toys/bandit" in sfumato("list", check=0).stdout
    listed = lines(sfumato("list", "--json", check=0))
    assert {"task", "solver", "runtime", "evaluator"} <= {c["kind"] for c in listed}


def test_info_shows_settings_with_types_and_defaults(sfumato):
    """All that one needs for `-s`."""
    shown = sfumato("info", "toys/greedy", check=0).stdout
    assert "epsilon" in shown
    assert "0.1" in shown
    assert "Did you mean 'toys/greedy'" in sfumato("info", "toys/gredy", check=2).stderr


def test_doctor_names_what_is_missing(sfumato):
    """And plugins add their own findings."""
    shown = sfumato("doctor", "--no-devices").stdout
    assert "toys are in the box" in shown
    assert "not installed Components" not in shown
    assert "numpy" in shown


def test_run_prints_a_table_and_running_again_keeps_what_is_there(sfumato):
    """The same figures, without running."""
    first = sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "100", check=0)
    again = sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "100", check=0)
    assert "return" in first.stdout
    assert again.stdout == first.stdout
    assert "1 of 1 runs were there already" in again.stderr


def test_run_json_and_status_json_print_a_record_a_line(sfumato):
    """With status, figures and provenance."""
    (record,) = lines(sfumato("run", "toys/coin", "--solver", "toys/belief", "--seeds", "8", "--json", check=0))
    assert record["status"] == "ok"
    (figure,) = [f for f in record["figures"] if f["name"] == "return"]
    assert figure["n"] == 8
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert record["provenance"]["versions"]["numpy"]
    (listed,) = lines(sfumato("status", "--json", check=0))
    assert listed["run_id"] == record["run_id"]


def test_the_same_spec_gives_the_same_bits(sfumato, tmp_path):
    """In two processes, with other hash seeds."""
    digests = {
        lines(
            sfumato(
                "run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "50", "--json", "--store",
                str(tmp_path / seed), env={"PYTHONHASHSEED": seed}, check=0,
            )  # fmt: skip
        )[0]["digest"]
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_shards_together_give_the_figures_of_the_whole(sfumato):
    """Instances are split, not changed."""
    (whole,) = lines(sfumato("run", "toys/coin", "--solver", "toys/belief", "--seeds", "12", "--json", check=0))
    parts = lines(
        sfumato("run", "toys/coin", "--solver", "toys/belief", "--seeds", "12", "--shards", "3", "-j", "2", "--json", check=0)
    )
    assert len(parts) == 3

    def total(record):
        (figure,) = [f for f in record["figures"] if f["name"] == "return"]
        return figure["value"] * figure["n"]

    assert sum(map(total, parts)) == pytest.approx(total(whole))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("run", "toys/bandt", "--solver", "toys/greedy"), 2, "no task named 'toys/bandt' is installed. Did you mean"),
        (("run", "toys/bandit", "--solver", "toys/greddy"), 2, "Did you mean 'toys/greedy'"),
        (("run", "toys/bandit"), 2, "which solver for 'toys/bandit'? Give --solver NAME"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "-s", "epsilon=2"), 2, "'epsilon' must be <= 1"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "-s", "epsilom=0.2"), 2, "Did you mean 'epsilon'"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "-t", "n_rounds=x"), 2, "expected a whole number, got 'x'"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--instances", "5:2"), 2, "Example: 0:20"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--device", "cuda"), 3, "Run with --device cpu"),
        (("run", "toys/bandit", "--solver", "toys/gpu"), 3, "torch"),
        (("run", "toys/bandit", "--solver", "toys/two-backends", "--backend", "absentlib"), 3, "pip install"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--dtype", "banana"), 2, "leave --dtype out"),
        (("run", "absent.toml"), 2, "absent.toml: no such file"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--retry", "fialed"), 2, "Did you mean 'failed'"),
        (("check", "tosy"), 2, "no plugin 'tosy' is installed. Did you mean 'toys'"),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--executor", "locla"), 2, "Did you mean 'local'"),
        (("show", "ffff"), 2, "no run 'ffff'"),
        (("rnu",), 2, "no command 'rnu'. Did you mean 'run'"),
        (("toys", "helo"), 2, "Did you mean 'hello'"),
        (("doctor", "tois"), 2, "Did you mean 'toys'"),
        (("run", "vopq/tiger", "--solver", "vopq/qmdp"), 2, "no task 'vopq/tiger': no plugin 'vopq' is installed (pip install sfumato-vopq, "),
        (("run", "toys/bandit", "--solver", "toys/greedy", "--runtime", "runtime-odd/x"), 2, "pip install -e plugins/runtime_odd)"),
        (("vrptw", "solve", "x.vrp"), 2, "If it is a plugin's: no plugin 'vrptw' is installed (pip install sfumato-vrptw"),
        (("check", "my_planner"), 2, "install it first: pip install -e ./sfumato-my-planner"),
        (("compare", "a", "b"), 2, "store holds no finished run. 'sfumato run' makes some"),
        (("check", "my-planner"), 2, "If you have just made it, install it first: pip install -e ./sfumato-my-planner"),
    ],
)
def test_a_mistake_is_explained_with_the_right_exit_status(sfumato, words, status, message):
    """2 for usage, 3 for a backend; no traceback."""
    done = sfumato(*words, check=status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_plugins_it_is_said_how_to_come_by_one(sfumato):
    """Where they are listed and where their claims would be run; with one it is not."""
    bare = {"PYTHONPATH": ""}
    for words in (("list",), ("reproduce",)):
        assert "pip install sfumato-ofs" in sfumato(*words, check=0, env=bare).stderr
        assert "pip install" not in sfumato("list", check=0).stderr


def test_a_run_that_lacked_a_file_is_not_told_to_ask_for_a_retry(sfumato, tmp_path):
    """It is tried again by itself."""
    words = ("run", "toys/file", "--solver", "toys/noop")
    empty = {"XDG_DATA_HOME": str(tmp_path / "none"), "SFUMATO_DATA": ""}
    said = sfumato(*words, check=1, env=empty).stderr
    assert "DataMissing" in said
    assert "--retry" not in said
    assert "run the experiment again" in said
    (tmp_path / "figure.txt").write_text("1.5")
    sfumato(*words, "--data-dir", str(tmp_path), check=0, env=empty)


def test_an_absent_plugin_is_named_before_names_of_others(sfumato):
    """No component of another plugin is offered instead, unless the prefix may be a slip of the finger."""
    assert "Did you mean" not in sfumato("run", "vopq/bandit", "--solver", "vopq/greedy", check=2).stderr
    assert "Did you mean 'toys/bandit'" in sfumato("run", "toy/bandit", "--solver", "toys/greedy", check=2).stderr


def outside_tracebacks(lines):
    """Yield the lines but those that stand deeper under a traceback's first line."""
    depth = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent > depth:
            continue
        depth = indent if line.lstrip().startswith("Traceback") else None
        yield line


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_keep_to_the_columns_that_there_are(sfumato, columns):
    """Compare, status, show and reproduce; whether a run went well or not, without colour."""
    narrow = {"COLUMNS": str(columns)}
    sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--solver", "toys/trained", "--seeds", "12", check=0)
    sfumato("run", "toys/fault", "--solver", "toys/noop", "-t", "fault=raise", check=1)
    runs = [json.loads(line)["run_id"] for line in sfumato("status", "--json", check=0).stdout.splitlines()]
    assert len(runs) == 3
    commands = [("compare", "toys/greedy", "toys/trained"), ("status",), ("reproduce", "toys"), ("reproduce", "toys", "--ledger")]
    for words in [*commands, *(("show", run) for run in runs)]:
        done = sfumato(*words, env=narrow)
        lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        lines = list(outside_tracebacks(lines))  # their paths and source lines are not cut
        assert lines, words
        assert max(map(len, lines)) <= columns, (words, max(lines, key=len))
        assert "\x1b" not in done.stdout
        assert "…" not in done.stdout or words[0] == "status", words  # nothing is cut where it could be folded


def test_an_unsupported_pair_is_recorded_with_the_solvers_reason(sfumato):
    """A polite no is a status of its own."""
    done = sfumato("run", "toys/coin", "--solver", "toys/best", check=1)
    assert "the values are not shown Use toys/pick" in done.stderr
    (record,) = lines(sfumato("status", "--json"))
    assert record["status"] == "unsupported"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan-reward", "the reward of step 1 is nan"),
        ("raise", "RuntimeError: the task broke down"),
        ("segfault", "SIGSEGV"),
        ("exit", "left with status 7"),
    ],
)
def test_a_run_that_fails_is_recorded_and_the_sweep_goes_on(sfumato, tmp_path, kind, message):
    """Two runs, one of which breaks; exit status 1, and `show` has the error."""
    experiment = tmp_path / "x.toml"
    experiment.write_text(
        f"[[task]]\nuse='toys/fault'\nfault='{kind}'\n[[task]]\nuse='toys/fault'\n[[solver]]\nuse='toys/noop'\n"
    )
    done = sfumato("run", str(experiment), "--json", check=1)
    by_status = {r["status"]: r for r in lines(done)}
    assert set(by_status) == {"failed", "ok"}
    assert message in by_status["failed"]["error"]
    assert message in sfumato("show", by_status["failed"]["run_id"], check=0).stdout


def test_what_a_component_prints_does_not_disturb_the_output(sfumato):
    """Standard output belongs to results."""
    done = sfumato("run", "toys/fault", "--solver", "toys/noop", "-t", "fault=print", "--json", check=0)
    assert len(done.stdout.splitlines()) == 1


def test_a_damaged_record_is_named_and_the_others_are_shown(sfumato, tmp_path):
    """Nothing is lost by one bad file."""
    sfumato("run", "toys/coin", "--solver", "toys/belief", check=0)
    (bad,) = lines(sfumato("run", "toys/cart", "--solver", "toys/controller", "--json", check=0))
    record = tmp_path / "store" / "runs" / bad["run_id"] / "record.json"
    record.write_text(record.read_text()[:100])
    done = sfumato("status", check=1)
    assert "damaged" in done.stdout
    assert "toys/coin" in done.stdout
    assert "is damaged" in sfumato("show", bad["run_id"], check=2).stderr


def test_a_store_that_cannot_be_written_is_refused_before_anything_runs(sfumato, tmp_path):
    """A file where the folder should be: root writes through permissions, not through this."""
    (tmp_path / "file").write_text("")
    done = sfumato("run", "toys/coin", "--solver", "toys/belief", "--store", str(tmp_path / "file"), check=2)
    assert "cannot be written" in done.stderr
    assert "--store DIR" in done.stderr


def test_two_processes_running_one_experiment_do_each_run_once(sfumato, tmp_path):
    """The second waits for the first one's record."""
    words = [sys.executable, "-m", "sfumato", "run", "toys/fault", "--solver", "toys/noop", "-t", "seconds=0.3",
             "--store", str(tmp_path / "store"), "--json"]  # fmt: skip
    pair = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [p.communicate(timeout=60)[0] for p in pair]
    assert [p.returncode for p in pair] == [0, 0]
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["attempt"] == 1


def test_ctrl_c_leaves_a_clean_store_and_the_next_run_resumes(sfumato, tmp_path):
    """Exit status 130; the run is `interrupted`; running again finishes it."""
    words = ["run", "toys/fault", "--solver", "toys/noop", "-t", "seconds=1.5", "--store", str(tmp_path / "store")]
    process = subprocess.Popen([sys.executable, "-m", "sfumato", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not list(tmp_path.glob("store/runs/*/rows.jsonl")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    (record,) = lines(sfumato("status", "--json"))
    assert record["status"] == "interrupted"
    sfumato(*words, check=0)
    (record,) = lines(sfumato("status", "--json"))
    assert (record["status"], record["attempt"]) == ("ok", 2)


def test_hooks_can_be_traced(sfumato):
    """SFUMATO_TRACE=1 prints the calls to the error stream."""
    assert "sfumato_components" in sfumato("list", env={"SFUMATO_TRACE": "1"}, check=0).stderr


def test_a_plugins_command_is_mounted(sfumato):
    """`sfumato <plugin> <name>`."""
    assert sfumato("toys", "hello", check=0).stdout == "hello from the toys\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(sfumato, shell):
    """For three shells."""
    assert "sfumato" in sfumato("completion", shell, check=0).stdout
