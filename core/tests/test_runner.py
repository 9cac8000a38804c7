"""Sweeps: what is missing is run, what is there is kept, and random death changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs

from sfumato import provenance
from sfumato.executors.local import LocalExecutor
from sfumato.records import Status
from sfumato.runner import plan, sweep
from sfumato.store import Store

N_RUNS = 200


def test_a_finished_run_is_kept_and_a_change_of_code_makes_it_stale(store, make_jobs, listener):
    """Unless one says that old results will do."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    (first,) = sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
    assert plan(store, [job])[0].verdict == "kept"
    changed = attrs.evolve(job, code={**job.code, "sfumato_toys": "another"})
    assert plan(store, [changed], reuse_stale=True)[0].verdict == "kept"
    (planned,) = plan(store, [changed])
    assert planned.verdict == "stale"
    (second,) = sweep(store, [planned], LocalExecutor(1, "none"), listener, threading.Event())
    assert (second.attempt, second.digest) == (2, first.digest)
    assert second.code["sfumato_toys"] == "another"
    assert plan(store, [changed])[0].verdict == "kept"


def test_the_code_of_what_a_solver_asked_for_counts(store, make_jobs, listener, monkeypatch):
    """A run whose solver asked the context for a component of another package is stale when that package changes."""
    monkeypatch.setattr(provenance, "code_of", lambda targets: {"json": provenance.code_digest("json")})
    (job,) = make_jobs("toys/echo", "toys/standing")
    (record,) = sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
    assert record.code == {**job.code, "json": provenance.code_digest("json")}
    assert plan(store, [job])[0].verdict == "kept"
    monkeypatch.setattr("sfumato.staleness.code_digest", lambda package: "another")
    (planned,) = plan(store, [job])
    assert (planned.verdict, "the code of json has changed since" in planned.because) == ("stale", True)


def test_backend_and_device_are_for_the_solver_underneath(sfumato, make_jobs):
    """They are resolved by its offers, and recorded; what it lacks, what it has not and who is unknown are told before any run."""
    (job,) = make_jobs("toys/echo", "toys/standing", solver_settings={"solver": "toys/two-backends"}, backend="numpy")
    assert job.spec.backend == "numpy"
    words = ("run", "toys/echo", "--solver", "toys/standing")
    assert "'toys/gpu' does not run on 'cpu'" in sfumato(*words, "-s", "solver=toys/gpu", "--device", "cpu", check=3).stderr
    assert "has no backend 'jax'" in sfumato(*words, "-s", "solver=toys/two-backends", "--backend", "jax", check=2).stderr
    assert "solver toys/standing, setting 'solver'" in sfumato(*words, "-s", "solver=toys/nop", check=2).stderr


def test_a_task_that_turns_out_unfit_while_solving_is_declined(sfumato):
    """The run ends unsupported, with the reason, and not as a failure."""
    done = sfumato("run", "toys/echo", "--solver", "toys/standing", "-s", "declined=true", "--json", check=1)
    record = json.loads(done.stdout)
    assert (record["status"], record["error"]) == ("unsupported", "toys/noop declines this task: too much")


def test_a_change_of_a_data_file_makes_a_run_stale(sfumato, tmp_path):
    """Both `status` and the next sweep say which file, and the run is made anew."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "figure.txt"
    words = ("run", "toys/file", "--solver", "toys/noop", "--data-dir", str(tmp_path / "data"))
    there = ("status", "--data-dir", str(tmp_path / "data"))
    file.write_text("1.5")
    sfumato(*words, check=0)
    assert "were there already" in sfumato(*words, check=0).stderr
    digest = hashlib.sha256(b"1.5").hexdigest()[:12]
    file.write_text("2.5")
    for _ in range(2):  # the second time from what is known of the file
        status = sfumato(*there, check=0).stdout
        assert "ok stale" in status
        (line,) = sfumato(*there, "--json", check=0).stdout.splitlines()
        assert json.loads(line)["stale"].startswith("the data file figure.txt has changed since")
        assert f"stale, 1 of them: the data file figure.txt has changed since ({digest} then" in status
    assert "stale" not in sfumato("status", "--data-dir", str(tmp_path / "nowhere"), check=0).stdout
    kept = sfumato(*words, "--reuse-stale", "--json", check=0)
    assert json.loads(kept.stdout)["figures"][0]["value"] == 1.5
    done = sfumato(*words, check=0)
    assert "1 of 1 runs were stale and made anew: the data file figure.txt has changed since" in done.stderr
    assert "2.5" in done.stdout
    assert "stale" not in sfumato(*there, check=0).stdout


def test_a_file_that_a_setting_named_from_here_makes_a_run_stale(sfumato, tmp_path):
    """By a relative path, which is looked for where `status` is asked; a data file of that name is another file."""
    (tmp_path / "mine.txt").write_text("1.5")
    words = ("run", "toys/file", "--solver", "toys/noop", "-t", "path=mine.txt")
    sfumato(*words, check=0)
    assert "stale" not in sfumato("status", check=0).stdout
    (tmp_path / "mine.txt").write_text("2.5")
    assert "stale, 1 of them: the data file mine.txt has changed since (" in sfumato("status", check=0).stdout
    assert "2.5" in sfumato(*words, check=0).stdout
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "figure.txt").write_text("1")
    sfumato("run", "toys/file", "--solver", "toys/noop", "--data-dir", "data", check=0)
    (tmp_path / "figure.txt").write_text("2")
    assert "figure.txt has changed" not in sfumato("status", check=0).stdout


def test_all_claims_of_the_dead_are_taken_away_when_a_sweep_is_planned(store, make_jobs, listener):
    """Not the first one alone."""
    jobs = make_jobs("toys/echo", "toys/noop", seeds=3, shards=3)
    sweep(store, plan(store, jobs), LocalExecutor(1, "none"), listener, threading.Event())
    for job in jobs:
        assert store.claim(job.run_id) is None
        claim = store.folder(job.run_id) / "claim.json"
        claim.write_text(claim.read_text().replace('"start_time": ', '"start_time": 1'))
    assert {p.verdict for p in plan(store, jobs)} == {"kept"}
    assert not list(store.runs.glob("*/claim.json"))


def test_a_failure_is_never_a_result_and_is_tried_again_on_request(store, make_jobs, listener):
    """`--retry` names statuses; the earlier record and error stream are kept."""
    (job,) = make_jobs(task_settings={"fault": "raise"})
    sweep(store, plan(store, [job]), LocalExecutor(1), listener, threading.Event())
    assert plan(store, [job])[0].verdict == "failed before"
    assert plan(store, [job], retry=("timeout",))[0].verdict == "failed before"
    (planned,) = plan(store, [job], retry=("failed",))
    (record,) = sweep(store, [planned], LocalExecutor(1), listener, threading.Event())
    assert (record.status, record.attempt) == (Status.FAILED, 2)
    (earlier,) = store.earlier(job.run_id)
    assert (earlier.status, earlier.attempt) == (Status.FAILED, 1)
    assert "the task broke down" in (store.folder(job.run_id) / "stderr.attempt1.txt").read_text()


def test_a_claim_that_was_left_beside_a_record_is_taken_away(store, make_jobs, listener):
    """Its owner died after the record was put and before the claim was given back; the record stands."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    (record,) = sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
    assert store.claim(job.run_id) is None
    claim = store.folder(job.run_id) / "claim.json"
    assert plan(store, [job])[0].verdict == "kept"
    assert claim.exists()  # its owner lives
    claim.write_text(claim.read_text().replace('"start_time": ', '"start_time": 1'))
    assert plan(store, [job])[0].verdict == "kept"
    assert not claim.exists()
    assert store.record(job.run_id) == record


def test_status_shows_stale_runs(sfumato, store, make_jobs, listener):
    """Those whose code is another by now."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    old = attrs.evolve(job, code={**job.code, "sfumato_toys": "older"})
    sweep(store, plan(store, [old]), LocalExecutor(1, "none"), listener, threading.Event())
    assert "ok stale" in sfumato("status", check=0).stdout
    assert "ok stale" not in sfumato("run", "toys/echo", "--solver", "toys/noop", check=0).stdout
    assert "stale" not in sfumato("status", check=0).stdout


def test_a_long_sweep_is_shown_with_its_shards_together(sfumato):
    """The figures are those of the whole, run at once."""
    words = ("run", "toys/coin", "--solver", "toys/belief", "--seeds", "41", "--isolation", "none")
    (whole,) = [line.split() for line in sfumato(*words, check=0).stdout.splitlines() if "return" in line]
    (parts,) = [line.split() for line in sfumato(*words, "--shards", "41", check=0).stdout.splitlines() if "return" in line]
    assert parts[2:4] == ["(41", "runs)"]
    assert parts[4:] == whole[2:]


def test_random_death_changes_nothing(tmp_path, make_jobs, survivors):
    """200 runs, four workers at a time; workers and supervisors are killed with -9 at random.

    At the end every run is accounted for exactly once, and rows and digests equal those of an undisturbed sweep, bit
    for bit, times apart.
    """
    words = [sys.executable, "-m", "sfumato", "run", "toys/coin", "--solver", "toys/belief", "--seeds", str(N_RUNS),
             "--shards", str(N_RUNS), "-j", "4", "--quiet", "--retry", "killed,interrupted"]  # fmt: skip
    # `interrupted`: a run that loses its supervisor four times is given up otherwise, and up to eight are killed here
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([*words, "-j", "1", "--isolation", "none", "--store", str(tmp_path / "calm")], check=True, **quiet)
    chance = random.Random(3)
    killed = {"worker": 0, "supervisor": 0}
    attempts = 0
    while True:
        attempts += 1
        assert attempts < 40
        isolation = "run" if attempts <= 4 else "group"  # a process each is slow: there is work left for all the deaths
        sweep_process = subprocess.Popen([*words, "--isolation", isolation, "--store", str(tmp_path / "wild")], **quiet)
        # the first sweeps are cut short; later ones get on with it, so that the test comes to an end
        deaths = 5 if attempts <= 8 else 1 if attempts <= 12 else 0
        while sweep_process.poll() is None:
            time.sleep(chance.uniform(0.02, 0.12 if isolation == "group" else 0.5))
            victims = workers_of(sweep_process.pid)
            if not deaths or not victims:
                continue
            deaths -= 1
            if deaths == 0 and attempts <= 8:
                sweep_process.kill()
                killed["supervisor"] += 1
            else:
                kill(chance.choice(victims))
                killed["worker"] += 1
        sweep_process.communicate()
        if sweep_process.returncode == 0:
            break
    assert survivors() == []
    assert killed["worker"] >= 10
    assert killed["supervisor"] >= 2
    calm, wild = Store(tmp_path / "calm"), Store(tmp_path / "wild")
    jobs = make_jobs("toys/coin", "toys/belief", seeds=N_RUNS, shards=N_RUNS)
    assert sorted(wild.ids()) == sorted(calm.ids()) == sorted(j.run_id for j in jobs)
    lost = 0
    for job in jobs:
        a, b = calm.record(job.run_id), wild.record(job.run_id)
        assert a.status is b.status is Status.OK
        assert a.digest == b.digest
        assert [bits(row) for row in calm.rows(job.run_id)] == [bits(row) for row in wild.rows(job.run_id)]
        assert [f for f in a.figures if f.unit != "s"] == [f for f in b.figures if f.unit != "s"]
        assert [r.attempt for r in wild.earlier(job.run_id)] == list(range(1, b.attempt))
        lost += b.attempt - 1
        left = {p.name for p in wild.folder(job.run_id).iterdir()}
        assert {n for n in left if "attempt" not in n and not n.startswith(".")} == {"spec.json", "record.json", "rows.jsonl", "trace.zip"}
    assert lost >= 10


def bits(row):
    """A row without its times."""
    metrics = [m for m in row["metrics"] if m["unit"] != "s"]
    return {"metrics": metrics, **{k: row[k] for k in ("episode", "items", "steps", "digest")}}


def workers_of(pid):
    """The workers of a sweep."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for name in (task / "children").read_text().split():
                if b"sfumato.worker" in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    except OSError:  # gone while we looked
        pass
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
