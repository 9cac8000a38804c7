"""Runs that misbehave, each made really to do so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sfumato import cgroups, child, turnstile
from sfumato.errors import UsageError
from sfumato.executors.local import LocalExecutor
from sfumato.experiment import Experiment, Use
from sfumato.plugins import Registry
from sfumato.records import RunRecord, Status
from sfumato.runner import plan, sweep
from sfumato.store import Store, write_atomic
from sfumato.supervisor import Lane, environment, run, settle

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


def workers_of(pid):
    """The worker processes under a supervisor."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return [int(p) for p in found if b"sfumato.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]


def until(condition, within=30.0):
    """Wait for a condition; return its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return value


# ---------------------------------------------------------------- time


def test_a_solver_that_sleeps_in_c_is_stopped_at_its_limit_and_shows_where_it_was(store, make_jobs, survivors):
    """No Python signal handler can run there; the limit is kept from outside, and the stack is in the error stream."""
    (job,) = make_jobs(task_settings={"fault": "sleep-in-c"}, limits={"seconds": 4.5})
    began = time.monotonic()
    record = run(store, job)
    assert time.monotonic() - began < 4.5 + child.GRACE_SECONDS + 3
    assert record.status is Status.TIMEOUT
    assert "4.5 s" in record.error
    assert "--time-limit" in record.advice
    assert "faults.py" in (store.folder(job.run_id) / "stderr.txt").read_text()
    assert survivors() == []


def test_children_that_ignore_term_are_killed_with_their_parent(store, make_jobs, survivors):
    """Three of them, and a parent that ignores TERM too: KILL after the grace."""
    (job,) = make_jobs(task_settings={"fault": "fork"}, limits={"seconds": 2.5})
    assert run(store, job).status is Status.TIMEOUT
    assert survivors() == []


def test_a_daemon_in_a_session_of_its_own_does_not_outlive_its_run(store, make_jobs, survivors):
    """It left the process group and its parent is gone; the run itself ends well."""
    (job,) = make_jobs(task_settings={"fault": "daemon", "n_steps": 1})
    assert run(store, job).status is Status.OK
    assert survivors() == []


@pytest.mark.parametrize("isolation", ["run", "group"])
def test_a_grandchild_that_cleared_its_environment_does_not_outlive_its_run(store, make_jobs, listener, isolation):
    """It forked twice, has a session of its own and bears no mark; the run ends well, and it goes all the same."""
    def strangers():
        lines = (p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK))
        return [line for line in lines if line.startswith(b"sfumato-stranger")]

    jobs = make_jobs(task_settings={"fault": "stranger", "n_steps": 1})
    (record,) = sweep(store, plan(store, jobs), LocalExecutor(1, isolation), listener, threading.Event())
    assert record.status is Status.OK
    until(lambda: not strangers())  # those of another suite on this machine go when their own run ends


def test_a_long_error_stream_loses_its_middle(store, make_jobs, monkeypatch):
    """The first words and the last ones are kept, in the file and in what `show` prints."""
    monkeypatch.setattr(child, "STDERR_BYTES", 100_000)
    monkeypatch.setattr(child, "STDERR_HEAD", 20_000)
    monkeypatch.setattr(child, "STDERR_TAIL", 30_000)
    (job,) = make_jobs(task_settings={"fault": "chatter", "seconds": 0.15, "n_steps": 4})
    assert run(store, job).status is Status.OK
    text = (store.folder(job.run_id) / "stderr.txt").read_text()
    assert len(text) < 110_000
    assert text.startswith("first words\n")
    assert text.endswith("last words\n")
    assert text.count("cut out here") == 1


def test_a_run_that_is_done_stays_done_though_its_process_will_not_leave(store, make_jobs, survivors, monkeypatch):
    """An exit handler hangs after the outcome is written."""
    monkeypatch.setattr(child, "EXIT_SECONDS", 0.5)
    (job,) = make_jobs(task_settings={"fault": "hang-at-exit"}, limits={"seconds": 20})
    assert run(store, job).status is Status.OK
    assert survivors() == []


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("kernel", [True, False], ids=["control group", "polling"])
def test_a_run_that_allocates_without_end_is_killed_at_its_limit(store, make_jobs, survivors, monkeypatch, kernel):
    """By the kernel where control groups can be made, else by looking ten times a second; the record says which."""
    if kernel and not cgroups._bases():
        pytest.skip("no control group for memory can be made here")
    if not kernel:
        monkeypatch.setattr(cgroups, "_bases", tuple)
    (job,) = make_jobs(task_settings={"fault": "allocate"}, limits={"memory_mb": 400, "seconds": 60})
    record = run(store, job)
    assert record.status is Status.KILLED
    assert "memory limit" in record.error
    assert "--memory-limit" in record.advice
    watched = record.provenance["memory_limit"]["watched_by"]
    assert ("cgroup" in watched) is kernel
    assert "10 times a second" in watched
    assert survivors() == []
    assert not [g for base, _ in cgroups._bases() for g in base.glob("sfumato-*")]


def test_the_memory_of_children_counts(store, make_jobs, survivors, monkeypatch):
    """The worker is small, its child is not."""
    monkeypatch.setattr(cgroups, "_bases", tuple)
    (job,) = make_jobs(
        task_settings={"fault": "children", "seconds": 0.2, "n_steps": 100}, limits={"memory_mb": 400, "seconds": 60}
    )
    record = run(store, job)
    assert record.status is Status.KILLED
    assert record.provenance["peak_mb"] > 400
    assert survivors() == []


def test_a_run_under_its_limits_is_let_alone(store, make_jobs):
    """And what it used is in the record."""
    (job,) = make_jobs(task_settings={"seconds": 0.2}, limits={"memory_mb": 1000, "seconds": 60})
    record = run(store, job)
    assert record.status is Status.OK
    assert 10 < record.provenance["peak_mb"] < 300


# ---------------------------------------------------------------- death


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("segfault", Status.FAILED, "SIGSEGV"),
        ("kill-self", Status.KILLED, "SIGKILL"),
        ("term-self", Status.KILLED, "from outside by SIGTERM"),
        ("exit", Status.FAILED, "left with status 7"),
        ("sys-exit", Status.FAILED, "sys.exit(0)"),
    ],
)
def test_a_crash_costs_only_its_own_run_also_in_a_warm_worker(store, make_jobs, listener, fault, status, words):
    """Five runs share a worker; the third one breaks it."""
    jobs = make_jobs(task_settings={"fault": fault, "only_item": 2}, seeds=5, shards=5)
    records = sweep(store, plan(store, jobs), LocalExecutor(1, "group"), listener, threading.Event())
    assert [r.status for r in records] == [Status.OK] * 2 + [status] + [Status.OK] * 2
    assert words in records[2].error
    assert records[2].advice
    assert records[2].figures == ()
    stderr = store.folder(records[2].run_id) / "stderr.txt"
    if fault == "segfault":
        assert "faults.py" in stderr.read_text()


def test_a_worker_killed_with_9_is_recorded_and_the_sweep_goes_on(store, make_jobs, listener, survivors):
    """From outside, while it is at work."""
    jobs = make_jobs(task_settings={"seconds": 0.3, "n_steps": 5}, seeds=2, shards=2)
    ended = []
    thread = threading.Thread(
        target=lambda: ended.extend(sweep(store, plan(store, jobs), LocalExecutor(1), listener, threading.Event()))
    )
    thread.start()
    os.kill(until(lambda: workers_of(os.getpid()))[0], signal.SIGKILL)
    thread.join(60)
    assert sorted(r.status.value for r in ended) == ["killed", "ok"]
    again = plan(store, jobs, retry=("killed",))
    assert sorted(p.verdict for p in again) == ["again", "kept"]
    assert {r.status for r in sweep(store, again, LocalExecutor(1), listener, threading.Event())} == {Status.OK}
    assert survivors() == []


def test_a_supervisor_killed_with_9_takes_its_workers_along_and_the_run_is_resumed(sfumato, tmp_path, survivors):
    """Though the worker hangs in C and its children ignore TERM. Status says `interrupted`, the next run counts it."""
    words = ["run", "toys/fault", "--solver", "toys/noop", "-t", "fault=fork", "--memory-limit", "2000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sfumato", *words, "--store", str(tmp_path / "store")], stderr=subprocess.DEVNULL
    )
    until(lambda: len(survivors(0)) >= 6)  # supervisor, worker, guardian, three children
    (running,) = json.loads("[" + sfumato("status", "--json").stdout + "]")
    assert running["status"] == "running"
    process.kill()
    process.wait()
    assert survivors() == []
    assert not [g for base, _ in cgroups._bases() for g in base.glob("sfumato-*")]
    (lost,) = json.loads("[" + sfumato("status", "--json").stdout + "]")
    assert lost["status"] == "interrupted"
    (record,) = [json.loads(line) for line in sfumato(*words, "--time-limit", "3", "--json", check=1).stdout.splitlines()]
    assert (record["status"], record["attempt"]) == ("timeout", 2)
    assert "its owner, process" in sfumato("show", record["run_id"], check=0).stdout
    assert survivors() == []


def test_a_run_that_is_always_cut_off_is_given_up_after_three_more_attempts(store, make_jobs, listener):
    """Its owner dies each time; what is retried for ever would stop every sweep."""
    (job,) = make_jobs()
    owner = subprocess.Popen(["sleep", "60"])
    try:
        for attempt in (1, 2, 3, 4):
            (planned,) = plan(store, [job])
            assert planned.to_run, attempt
            assert planned.job.attempt == attempt
            _claim_for(store, planned.job, owner.pid)
            assert store.status(job.run_id) == "interrupted"
    finally:
        owner.kill()
        owner.wait()
    (planned,) = plan(store, [job])
    assert planned.verdict == "failed before"
    (planned,) = plan(store, [job], retry=("interrupted",))
    assert planned.verdict == "again"
    (record,) = sweep(store, [planned], LocalExecutor(1), listener, threading.Event())
    assert (record.status, record.attempt) == (Status.OK, 5)
    assert [r.status for r in store.earlier(job.run_id)] == [Status.INTERRUPTED] * 4


def _claim_for(store, job, pid):
    """Leave a claim as a process would that is gone by now."""
    folder = store.write_spec(job.run_id, job.spec)
    if record := store.record(job.run_id):
        store.set_aside(record)
    assert store.claim(job.run_id, job.attempt, job.label, job.code) is None
    claim = json.loads((folder / "claim.json").read_text())
    claim["owner"] |= {"pid": pid, "start_time": 1}
    (folder / "claim.json").write_text(json.dumps(claim))


def test_stopping_ends_the_run_under_way_and_does_not_count_against_it(store, make_jobs, listener):
    """Ctrl-C as often as one likes."""
    (job,) = make_jobs(task_settings={"fault": "sleep-in-c"})
    for attempt in range(1, 6):
        (planned,) = plan(store, [job])
        assert planned.job.attempt == attempt
        stop = threading.Event()
        listener.started = lambda job, stop=stop: threading.Timer(0.05, stop.set).start()
        assert settle(store, planned.job, listener, stop, Lane()).status is Status.INTERRUPTED


def test_a_run_that_was_taken_over_is_ended_here_and_its_successor_is_waited_for(
    store, make_jobs, listener, survivors, monkeypatch
):
    """Our machine slept for longer than the lease: another one has the run, and two must not write one folder."""
    monkeypatch.setattr("sfumato.claims.HEARTBEAT_SECONDS", 0.1)
    (job,) = make_jobs(task_settings={"fault": "sleep-in-c"})
    path = store.folder(job.run_id) / "claim.json"
    ended = []
    thread = threading.Thread(
        target=lambda: ended.append(settle(store, job, listener, threading.Event(), Lane())), daemon=True
    )
    thread.start()
    until(lambda: workers_of(os.getpid()))
    claim = json.loads(path.read_text())
    claim["owner"]["host"] += "-elsewhere"
    write_atomic(path, json.dumps(claim))
    until(lambda: not workers_of(os.getpid()))
    assert store.record(job.run_id) is None
    assert thread.is_alive()
    theirs = RunRecord(job.run_id, job.spec, Status.OK, digest="theirs")
    store.put_record(theirs)
    path.unlink()
    thread.join(20)
    assert [r.digest for r in ended] == ["theirs"]
    assert survivors() == []


def test_a_sweep_works_where_ended_children_are_not_waited_for(tmp_path):
    """Whoever starts it may ignore SIGCHLD, and that is inherited."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    words = ["-m", "sfumato", "run", "toys/echo", "--solver", "toys/noop", "--isolation", "run", "--store", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_control_group_of_version_2_is_made_beside_our_own_one(tmp_path, monkeypatch):
    """A group that holds processes cannot hand memory on; its parent may. Never so as to slip out of a limit."""
    own = tmp_path / "user" / "session"
    own.mkdir(parents=True)
    (tmp_path / "user" / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("\n")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OURS", tmp_path / "ours")
    (tmp_path / "ours").write_text("0::/user/session\n")
    for limit, bases in (("max\n", ((tmp_path / "user", 2),)), ("2000000\n", ())):
        (own / "memory.max").write_text(limit)
        cgroups._bases.cache_clear()
        assert cgroups._bases() == bases
    cgroups._bases.cache_clear()


# ---------------------------------------------------------------- isolation


def test_all_three_isolations_give_the_same_bits(store, make_jobs, listener, tmp_path):
    """A process each, a warm one for all, or this very process."""
    digests = {}
    for isolation in ("run", "group", "none"):
        jobs = make_jobs("toys/coin", "toys/belief", seeds=3, shards=3)
        other = type(store)(tmp_path / isolation)
        other.prepare()
        records = sweep(other, plan(other, jobs), LocalExecutor(1, isolation), listener, threading.Event())
        assert {r.provenance["isolation"] for r in records} == {isolation}
        digests[isolation] = [r.digest for r in records]
    assert digests["run"] == digests["group"] == digests["none"]


@pytest.mark.parametrize("isolation", ["run", "group", "none"])
def test_a_component_that_changes_the_folder_loses_no_run(isolation, make_jobs, listener, tmp_path, monkeypatch):
    """The store's path may be relative, and is so by default."""
    monkeypatch.chdir(tmp_path)
    here = Store("relative")
    here.prepare()
    jobs = make_jobs(task_settings={"fault": "chdir"}, seeds=2, shards=2)
    records = sweep(here, plan(here, jobs), LocalExecutor(1, isolation), listener, threading.Event())
    assert [r.status for r in records] == [Status.OK] * 2, [r.error for r in records]
    assert sorted(p.name for p in (tmp_path / "relative" / "runs").iterdir()) == sorted(j.run_id for j in jobs)


def test_a_job_names_the_data_folder_wherever_its_worker_stands(tmp_path, monkeypatch):
    """A worker of a cluster starts in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    experiment = Experiment((Use("toys/file"),), (Use("toys/noop"),))
    assert [j.data_dir for j in experiment.jobs(Registry(), "data")] == [str(tmp_path / "data")]
    assert [j.data_dir for j in experiment.jobs(Registry())] == [None]


def test_runs_declared_short_share_a_warm_worker_by_default(store, make_jobs, listener):
    """Both the task and the solver must say so."""
    short = make_jobs("toys/echo", "toys/noisy")
    long = make_jobs("toys/echo", "toys/noop")
    records = sweep(store, plan(store, short + long), LocalExecutor(1), listener, threading.Event())
    assert [r.provenance["isolation"] for r in records] == ["group", "run"]


def test_a_warm_worker_is_replaced_after_its_share_of_runs(store, make_jobs, listener, survivors, monkeypatch):
    """What components leak must not add up without end."""
    monkeypatch.setattr("sfumato.supervisor.RUNS_OF_A_WARM_WORKER", 2)
    made = []
    monkeypatch.setattr("sfumato.supervisor.Child", lambda *a: made.append(child.Child(*a)) or made[-1])
    jobs = make_jobs("toys/echo", "toys/noop", seeds=5, shards=5)
    sweep(store, plan(store, jobs), LocalExecutor(1, "group"), listener, threading.Event())
    assert [c.runs for c in made] == [2, 2, 1]
    assert survivors() == []


def test_limits_that_cannot_be_kept_are_refused(store, make_jobs, listener):
    """In this very process nobody could enforce them."""
    jobs = make_jobs(limits={"seconds": 5})
    with pytest.raises(UsageError, match="no time or memory limit can be kept"):
        LocalExecutor(1, "none").run(store, jobs, listener, threading.Event())
    with pytest.raises(UsageError, match="one at a time; got -j 2"):
        LocalExecutor(2, "none")


def test_a_worker_gets_threads_and_caches_before_anything_is_imported(make_jobs, monkeypatch):
    """The user's own choice of a cache wins."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    (job,) = make_jobs(threads=3)
    made = environment(job.spec)
    assert {made[f"{n}_NUM_THREADS"] for n in ("OMP", "MKL", "OPENBLAS", "NUMBA")} == {"3"}
    assert made["NUMBA_CACHE_DIR"] == "/mine"
    assert made["JAX_COMPILATION_CACHE_DIR"].endswith("sfumato/jax")
    assert made["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


# ---------------------------------------------------------------- alone on the machine


def test_a_run_that_waits_for_one_that_is_timed_says_so(sfumato):
    """On the error stream, where there is no progress bar to say it."""
    with turnstile.place(True, threading.Event()):
        words = [sys.executable, "-m", "sfumato", "run", "toys/echo", "--solver", "toys/noop", "--isolation", "none"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                   env={**os.environ, "SFUMATO_STORE": tempfile.mkdtemp()})  # fmt: skip
        said = process.stderr.readline()
    assert process.communicate()[1]
    assert process.returncode == 0
    assert said.endswith("toys/echo toys/noop waits for a run that is timed\n")


@pytest.mark.parametrize("kind", ["solver", "runtime"])
def test_any_component_whose_time_is_the_result_makes_its_run_go_alone(kind):
    """A task, a solver, a runtime or an evaluator."""
    from sfumato.experiment import Experiment, Use
    from sfumato.plugins import Registry

    uses = {"solver": Use("toys/noop"), "runtime": Use("direct")}
    for timed in (False, True):
        chosen = {**uses, kind: Use("toys/timed")} if timed else uses
        (job,) = Experiment((Use("toys/echo"),), (chosen["solver"],), (chosen["runtime"],)).jobs(Registry())
        assert job.exclusive is timed


def test_runs_whose_time_is_the_result_never_run_beside_others(store, make_jobs, tmp_path):
    """Two sweeps at once, in two stores, as two processes: a timed run overlaps with nothing, others may overlap."""
    sweeps = []
    for name in ("diary", "timed"):
        (tmp_path / name).mkdir()
        words = ["run", "toys/echo", "--solver", f"toys/{name}", "-s", f"folder={tmp_path / name}", "--seeds", "3",
                 "--shards", "3", "-j", "2", "--store", str(tmp_path / f"store-{name}")]  # fmt: skip
        sweeps.append(
            subprocess.Popen(
                [sys.executable, "-m", "sfumato", *words],
                env={**os.environ, "TMPDIR": str(tmp_path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    for each in sweeps:
        errors = each.communicate(timeout=90)[1]
        assert each.returncode == 0, errors
    hours = {
        name: [tuple(map(float, p.read_text().split())) for p in (tmp_path / name).iterdir()] for name in ("diary", "timed")
    }
    assert [len(h) for h in hours.values()] == [3, 3]
    for began, ended in hours["timed"]:
        others = [h for h in hours["diary"] + hours["timed"] if h != (began, ended)]
        assert all(b >= ended or e <= began for b, e in others)
