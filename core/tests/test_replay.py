"""Replays: kept promises, broken ones, and those of which nothing can be said."""

from __future__ import annotations

import json
import threading
import time
from itertools import product

import attrs
import numpy as np
import pytest

from sfumato import turnstile
from sfumato.errors import UsageError
from sfumato.executors.local import LocalExecutor
from sfumato.records import ComponentRef
from sfumato.replay import _close, replay, sign_flip_test
from sfumato.runner import plan, sweep
from sfumato.store import run_id_of


@pytest.fixture
def made(store, make_jobs, listener, tmp_path):
    """Make one run; return what its replay finds."""

    def make(
        task="toys/echo", solver="toys/noisy", *, before=lambda: None, seeds=20, odd=None, flip_file="", **solver_settings
    ):
        (job,) = make_jobs(task, solver, solver_settings=solver_settings, seeds=seeds)
        if odd is not None:
            evaluator = ComponentRef("toys/odd", settings={"odd_items": odd, "flip_file": flip_file})
            spec = attrs.evolve(job.spec, evaluators=(*job.spec.evaluators, evaluator))
            job = attrs.evolve(job, run_id=run_id_of(spec), spec=spec, targets={})
        sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
        before()
        scratch = tmp_path / f"replay {job.run_id}"
        scratch.mkdir()
        return replay(store, job.run_id, scratch)

    return make


def test_bits_come_out_again(made):
    """In another process than the first time."""
    result = made("toys/coin", "toys/belief")
    assert result.kept is True
    assert result.promise == "bits"
    assert "digest" in result.found
    assert result.warnings == ()


def test_a_broken_promise_of_bits_is_shown_with_episode_and_step(made):
    """The solver draws from the operating system and promises bits all the same."""
    result = made(noise=1e-9, seeds=3)
    assert result.kept is False
    assert "3 of 3 episodes differ" in result.found
    assert "episode 0: actions differs at step 0" in result.differences[0]


def test_a_tolerance_is_kept_by_what_is_close_and_broken_by_what_is_not(made):
    """Relative 1e-4."""
    close, far = made(promise="tolerance", noise=1e-6, seeds=3), made(promise="tolerance", noise=1e-2, seeds=3)
    assert close.kept is True
    assert "largest relative difference" in close.found
    assert far.kept is False
    assert any("return was" in line for line in far.differences)
    assert any("native.rewards differs at step" in line for line in far.differences)


def test_a_statistical_promise_allows_noise_and_finds_drift(made, tmp_path):
    """Twenty episodes: their mean must not have moved."""
    assert made(promise="statistical", noise=0.5).kept is True
    drift = tmp_path / "drift"
    moved = made(promise="statistical", noise=0.5, drift_file=str(drift), before=drift.touch)
    assert moved.kept is False
    assert "return: mean difference" in moved.differences[0]


def test_too_few_episodes_leave_a_statistical_promise_undecided(made):
    """Five signs cannot show anything at one in a thousand."""
    result = made(promise="statistical", noise=0.5, seeds=5)
    assert result.kept is None
    assert "5 of 5 items differ, too few" in result.differences[0]


def test_a_figure_that_is_no_number_both_times_has_not_moved(made):
    """Two of twenty items have none, then as now; the other eighteen are compared."""
    result = made(promise="statistical", noise=0.5, odd=[3, 7])
    assert result.kept is True


def test_figures_that_turn_into_no_numbers_are_found(made, tmp_path):
    """Twenty of twenty: that is no chance. One of twenty: it cannot be told."""
    flip = tmp_path / "flip"
    result = made(promise="statistical", noise=0.5, odd=[], flip_file=str(flip), before=flip.touch)
    assert result.kept is False
    assert "odd not finite: mean difference 1" in result.differences[0]


def test_a_tolerance_without_traces_is_undecided(made, store, monkeypatch):
    """Over the size limit there is nothing to compare actions with; the metrics alone do not prove it."""
    def away():
        (store.folder(store.ids()[0]) / "trace.zip").unlink()

    result = made(promise="tolerance", noise=1e-6, seeds=3, before=away)
    assert result.kept is None
    assert "the actions and rewards of 3 of 3 episodes cannot be compared" in result.found
    assert "--shards" in result.found

    def empty():
        from sfumato.trace import TraceFile

        for run_id in store.ids():
            file = TraceFile(store.folder(run_id) / "trace.zip", 1)
            file.write_json("e000000/notes.json", "more than a byte")
            file.close()

    assert made(promise="tolerance", noise=2e-6, seeds=3, before=empty).kept is None
    assert made(promise="tolerance", noise=1e-2, seeds=3, before=empty).kept is False  # the metrics differ by more


def test_a_replay_without_its_data_is_undecided(sfumato, tmp_path):
    """Nothing is broken: the file is not there. And with another file, nothing is proved."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "figure.txt").write_text("1.5")
    there = {"SFUMATO_DATA": str(tmp_path / "data")}
    run_id = json.loads(sfumato("run", "toys/file", "--solver", "toys/noop", "--json", check=0, env=there).stdout)["run_id"]
    assert "kept" in sfumato("replay", run_id, check=0, env=there).stdout
    absent = sfumato("replay", run_id, check=1, env={"SFUMATO_DATA": ""}).stdout
    assert "undecided: it cannot be told" in absent
    assert "sfumato toys fetch" in absent
    (tmp_path / "data" / "figure.txt").write_text("2.5")
    other = sfumato("replay", run_id, check=1, env=there)
    assert "undecided" in other.stdout
    assert "data files have changed since" in other.stdout
    assert "the data file figure.txt is another one" in other.stderr


def test_a_replay_without_a_file_of_the_users_own_is_undecided(sfumato, tmp_path):
    """Also a file that a setting names may have changed, or be gone."""
    mine = tmp_path / "mine.txt"
    mine.write_text("1.5")
    made = sfumato("run", "toys/file", "--solver", "toys/noop", "-t", "path=mine.txt", "--json", check=0)
    run_id = json.loads(made.stdout)["run_id"]
    mine.write_text("2.5")
    other = sfumato("replay", run_id, check=1)
    assert "undecided" in other.stdout
    assert "the file mine.txt is another one" in other.stderr
    mine.unlink()
    absent = sfumato("replay", run_id, check=1)
    assert "undecided" in absent.stdout
    assert "the file mine.txt cannot be read now" in absent.stderr


def test_a_tolerance_reaches_into_tables_and_lists():
    """Actions need not be arrays."""
    def same(x, y):
        return _close(x, y, 1e-4, 1e-6)

    ragged = {"a": 1.0, "b": [[1.0], [1.0, float("nan")]], "c": "word"}
    assert same(ragged, {"a": 1.0 + 1e-9, "b": [[1.0], [1.0 + 1e-9, float("nan")]], "c": "word"})
    assert not same(ragged, {"a": 1.1, "b": [[1.0], [1.0, float("nan")]], "c": "word"})
    assert not same(ragged, {"a": 1.0, "b": [[1.0], [1.1, float("nan")]], "c": "word"})
    assert not same(ragged, {"a": 1.0, "b": [[1.0], [1.0]], "c": "word"})
    assert not same(ragged, {"a": 1.0, "c": "word"})
    assert not same({"c": "word"}, {"c": "another"})


def test_a_replay_that_was_cut_off_is_undecided(store, make_jobs, listener, tmp_path):
    """A time limit that the run kept and the replay does not, on a busy machine: nothing is broken."""
    there = tmp_path / "slow"
    (job,) = make_jobs("toys/echo", "toys/noisy", solver_settings={"slow_file": str(there)}, limits={"seconds": 8})
    (record,) = sweep(store, plan(store, [job]), LocalExecutor(1, "run"), listener, threading.Event())
    assert record.status == "ok"
    there.touch()
    result = replay(store, job.run_id, tmp_path / "scratch")
    assert result.kept is None
    assert "it cannot be told: the replay ended timeout: passed its time limit of 8 s. The run once kept" in result.found


@pytest.mark.parametrize(("solver", "alone"), [("toys/noop", True), ("toys/timed", False)])
def test_a_replay_keeps_off_a_run_that_is_timed(solver, alone, store, make_jobs, listener, tmp_path, monkeypatch):
    """While one holds the machine, it waits, and says so; a timed run's replay waits for all others."""
    monkeypatch.setattr("sfumato.turnstile.SILENT_SECONDS", 0.1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = {"folder": str(tmp_path)} if solver == "toys/timed" else {}
    (job,) = make_jobs("toys/echo", solver, solver_settings=settings)
    sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
    said, ended = [], []

    def go():
        ended.append(replay(store, job.run_id, tmp_path / "scratch", on_progress=lambda fraction, what: said.append(what)))

    with turnstile.place(alone, threading.Event()):
        thread = threading.Thread(target=go)
        thread.start()
        deadline = time.monotonic() + 20
        while not any(what.startswith("waits") for what in said):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        assert not ended
    thread.join(60)
    assert ended[0].kept is True


def test_a_failed_run_is_not_replayed(made):
    """There is nothing to compare with."""
    with pytest.raises(UsageError, match="only a run that ended ok"):
        made("toys/coin", "toys/best")


def test_the_sign_flip_test_counts_exactly():
    """Against counting all signs one by one; and at both ends."""
    gap = np.array([0.3, -1.0, 2.0, 0.7, 0.0, 1.1])
    moved = gap[gap != 0]
    sums = [abs(np.dot(signs, moved)) for signs in product((-1, 1), repeat=5)]
    assert sign_flip_test(gap) == np.mean([s >= abs(moved.sum()) - 1e-9 for s in sums])
    assert sign_flip_test(np.zeros(9)) == 1.0
    assert sign_flip_test(np.ones(10)) == 2 / 2**10
    assert sign_flip_test(np.ones(100)) == 1 / 20_001
    assert sign_flip_test(np.array([1.0, np.nan])) == 0.0


def test_the_level_of_the_sign_flip_test_holds():
    """At 5 %, about one of twenty samples without any shift is rejected: 400 samples, bounds at 4 standard errors."""
    rng = np.random.default_rng(0)
    rejected = sum(sign_flip_test(rng.normal(size=12)) <= 0.05 for _ in range(400))
    assert abs(rejected - 20) <= 4 * np.sqrt(400 * 0.05 * 0.95)


def test_the_command_proves_a_run_and_leaves_the_store_alone(sfumato, tmp_path):
    """Exit status 0 for a kept promise, 1 for a broken one."""
    words = ("run", "toys/echo", "--solver", "toys/noisy", "--json")
    (good, bad) = (json.loads(sfumato(*words, "-s", f"noise={n}", check=0).stdout)["run_id"] for n in ("0.0", "1.0"))
    before = sorted(p.relative_to(tmp_path) for p in (tmp_path / "store").rglob("*"))
    assert "promise 'bits' kept" in sfumato("replay", good, check=0).stdout
    broken = json.loads(sfumato("replay", bad, "--json", check=1).stdout)
    assert broken["kept"] is False
    assert sorted(p.relative_to(tmp_path) for p in (tmp_path / "store").rglob("*")) == before
