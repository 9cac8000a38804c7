"""Executors: what they promise alike, and what happens when workers vanish."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import attrs
import pytest

from sfumato.errors import BackendUnavailable, UsageError
from sfumato.executors import executor, remote
from sfumato.executors import ray as ray_executor
from sfumato.executors.local import LocalExecutor
from sfumato.executors.remote import watch, work
from sfumato.executors.submitit import SubmititExecutor, _Arrays
from sfumato.records import Status
from sfumato.runner import plan, sweep
from sfumato.store import Store


class FakeCluster:
    """Makes runs in this process, except where it is told to lose the work."""

    poll_seconds = 0.01

    def __init__(self, store, lose=(), lose_always=False):
        self.store, self.lose, self.lose_always = store, set(lose), lose_always
        self.sent, self.cancelled, self.most, self._open = [], [], 0, set()

    def submit(self, jobs):
        handles = []
        for job in jobs:
            self.sent.append((job.run_id, job.attempt))
            self._open.add(len(self.sent))
            self.most = max(self.most, len(self._open))
            handles.append(len(self.sent))
            if job.run_id in self.lose:
                if not self.lose_always:
                    self.lose.discard(job.run_id)
            else:
                work(str(self.store.root), [job], "none")
        return handles

    def ended(self, handles):
        self._open -= set(handles)
        return {handle: "" if handle % 2 else "NodeDiedError: gone" for handle in handles}

    def cancel(self, handles):
        self.cancelled += handles


def test_work_that_is_lost_is_sent_again_and_its_attempts_are_counted(store, make_jobs, listener):
    """It was lost before the run was claimed: nobody but the executor can tell."""
    jobs = make_jobs("toys/echo", "toys/noop", seeds=4, shards=4)
    cluster = FakeCluster(store, lose=[jobs[1].run_id])
    watch(store, jobs, cluster, listener, threading.Event(), width=2)
    assert [store.record(j.run_id).attempt for j in jobs] == [1, 2, 1, 1]
    (lost,) = store.earlier(jobs[1].run_id)
    assert lost.status is Status.INTERRUPTED
    assert "lost before the run was claimed" in lost.error
    assert cluster.most <= 2
    assert sorted(e[1] for e in listener.events if e[0] == "finished") == sorted(j.run_id for j in jobs)


def test_work_that_is_always_lost_is_given_up(store, make_jobs, listener):
    """After three more attempts; the sweep ends."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    cluster = FakeCluster(store, lose=[job.run_id], lose_always=True)
    watch(store, [job], cluster, listener, threading.Event(), width=2)
    assert [attempt for _, attempt in cluster.sent] == [1, 2, 3, 4]
    assert store.record(job.run_id).status is Status.INTERRUPTED
    assert listener.events[-1] == ("finished", job.run_id, "interrupted")


def test_a_claim_on_a_lost_machine_is_waited_for_until_its_lease_is_over(store, make_jobs, listener):
    """Nobody can tell a dead machine from a slow one sooner."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    cluster = FakeCluster(store, lose=[job.run_id])
    folder = store.write_spec(job.run_id, job.spec)
    store.claim(job.run_id)
    claim = json.loads((folder / "claim.json").read_text())
    claim["owner"]["host"] += "-elsewhere"
    (folder / "claim.json").write_text(json.dumps(claim))
    thread = threading.Thread(target=watch, args=(store, [job], cluster, listener, threading.Event(), 2))
    thread.start()
    time.sleep(0.5)
    assert len(cluster.sent) == 1
    past = time.time() - 61
    os.utime(folder / "claim.json", (past, past))
    thread.join(20)
    assert [r.attempt for r in (*store.earlier(job.run_id), store.record(job.run_id))] == [1, 2]


def test_other_code_on_another_machine_is_refused(store, make_jobs):
    """Results of two versions under one digest would be a lie."""
    (job,) = make_jobs("toys/echo", "toys/noop")
    work(str(store.root), [attrs.evolve(job, code={**job.code, "sfumato_toys": "theirs"})], "none")
    record = store.record(job.run_id)
    assert record.status is Status.FAILED
    assert "the code of sfumato_toys on" in record.error
    assert record.code["sfumato_toys"] == job.code["sfumato_toys"]


def test_a_store_that_the_other_machine_does_not_see_is_an_error(tmp_path, make_jobs):
    """It must lie on a shared file system."""
    with pytest.raises(remote.StoreError, match="all machines share"):
        work(str(tmp_path / "absent"), make_jobs("toys/echo", "toys/noop"), None)


def test_a_stopped_sweep_cancels_what_is_out(store, make_jobs, listener, monkeypatch):
    """And sends nothing more."""
    monkeypatch.setattr(remote, "CANCEL_SECONDS", 0.1)
    jobs = make_jobs("toys/echo", "toys/noop", seeds=3, shards=3)
    stop = threading.Event()

    class Slow(FakeCluster):
        def ended(self, handles):
            stop.set()
            return {}

    cluster = Slow(store, lose=[j.run_id for j in jobs])
    watch(store, jobs, cluster, listener, stop, width=2)
    assert cluster.cancelled == [1, 2]
    assert len(cluster.sent) == 2


def test_what_a_run_needs_is_what_its_components_declare_and_its_limits(make_jobs):
    """Threads count as processors; a GPU device needs a GPU."""
    (job,) = make_jobs("toys/echo", "toys/diary", threads=2)
    assert (remote.cpus(job), remote.gpus(job), remote.memory_mb(job)) == (2, 0, 200)
    (job,) = make_jobs("toys/echo", "toys/diary", limits={"memory_mb": 500})
    assert (remote.cpus(job), remote.memory_mb(job)) == (1, 500)
    on_gpu = attrs.evolve(job, spec=attrs.evolve(job.spec, device="cuda:0"))
    assert remote.gpus(on_gpu) == 1


def test_slurm_is_asked_for_what_the_runs_need(store, make_jobs):
    """With time to spare, so that it is sfumato that ends a run; alone where time is the result."""
    job, *_ = make_jobs("toys/echo", "toys/diary", threads=2, limits={"seconds": 600, "memory_mb": 4000})
    arrays = _Arrays(None, store, SubmititExecutor(8, address="slurm"), alone=True)
    assert arrays.parameters([job, job]) == {
        "name": "sfumato", "timeout_min": 23, "cpus_per_task": 2, "mem_gb": 5, "slurm_array_parallelism": 8,
        "slurm_exclusive": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_another_process_cannot_be_this_process(name):
    """`--isolation none` elsewhere means nothing."""
    with pytest.raises(UsageError, match="isolation none"):
        executor(name, isolation="none")


def test_options_that_an_executor_does_not_have_are_refused():
    """Instead of passed over."""
    with pytest.raises(UsageError, match="--executor ray"):
        LocalExecutor(address="1.2.3.4:6379")
    with pytest.raises(UsageError, match="Leave -x out"):
        LocalExecutor(options={"slurm_partition": "gpu"})
    with pytest.raises(UsageError, match="slurm .the default. or local"):
        SubmititExecutor(address="1.2.3.4")


def test_without_slurm_the_way_to_try_is_told(store, make_jobs, listener, monkeypatch):
    """No silent fall back to this machine."""
    pytest.importorskip("submitit", reason="needs submitit (extra slurm)")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BackendUnavailable, match="--address local"):
        SubmititExecutor().run(store, make_jobs("toys/echo", "toys/noop"), listener, threading.Event())


@pytest.fixture
def listening():
    """Return a port on which something listens: it says `words` to whoever comes, then closes; None: says nothing."""
    sockets = []

    def open_one(words):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    sockets.append(line)
                    if words is not None:
                        line.sendall(words)
                        line.close()

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield open_one
    for each in sockets:
        each.close()


@pytest.mark.parametrize("words", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_an_address_where_no_ray_answers_is_an_error_within_seconds(listening, monkeypatch, words):
    """Ray itself would try for minutes: a silent listener, a web server, one that hangs up."""
    monkeypatch.setattr(ray_executor, "CONNECT_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="nothing answered" if words is None else "speaks no gRPC|reset"):
        ray_executor.reach(f"127.0.0.1:{listening(words)}")
    assert time.monotonic() - began < 5


def test_an_address_that_nobody_listens_at_is_an_error_at_once(listening):
    """With the way to start a cluster; one that is no address at all is a matter of usage."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}"):
        with pytest.raises(BackendUnavailable, match="ray start --head"):
            ray_executor.reach(address)
    for address in ("nowhere", "1.2.3.4", "1.2.3.4:port", "http://x:80", "1.2.3.4:99999", ""):
        with pytest.raises(UsageError, match="HOST:PORT"):
            ray_executor.reach(address)


NODES = [{"CPU": 8.0, "memory": 4e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 16e9}]


@pytest.mark.parametrize(
    ("settings", "change", "n_fitting"),
    [
        ({"threads": 8}, {}, 1),
        ({"threads": 9}, {}, 0),
        ({"limits": {"memory_mb": 5000}}, {}, 1),
        ({"threads": 4, "limits": {"memory_mb": 5000}}, {}, 0),  # one node has the processors, the other the memory
        ({"threads": 2}, {"device": "cuda"}, 1),
        ({"threads": 4}, {"device": "cuda"}, 0),
    ],
)
def test_a_node_must_have_all_that_a_run_needs(make_jobs, settings, change, n_fitting):
    """Not one node the processors and another one the memory."""
    (job,) = make_jobs("toys/echo", "toys/noop", **settings)
    job = attrs.evolve(job, spec=attrs.evolve(job.spec, **change))
    assert len(ray_executor.fitting(ray_executor.wants(job), NODES)) == n_fitting
    said = str(ray_executor.no_room(job, 1, NODES))
    assert "they have 2 CPU, 1 GPU, 16,000 MB; 8 CPU, 0 GPU, 4,000 MB." in said
    assert "node_wait_seconds" in said


def test_a_run_whose_only_node_has_gone_waits_for_another_for_a_while(store, make_jobs):
    """Then it is an error that says what is missing; Ray would keep it queued for ever."""
    (job,) = make_jobs("toys/echo", "toys/noop", threads=4)

    class Ray:
        alive = True

        def remote(self, **_):
            return lambda work: self

        def options(self, **wanted):
            self.wanted = wanted
            return type("Remote", (), {"remote": lambda *_: "ref"})()

        def nodes(self):
            return [{"Resources": {"CPU": 2, "memory": 1e9}, "Alive": True},
                    {"Resources": {"CPU": 6, "memory": 1e9}, "Alive": self.alive}]  # fmt: skip

        def wait(self, refs, **_):
            return [], refs

    ray = Ray()
    tasks = ray_executor._Tasks(ray, store, None, patience=0.2, whole_node=True)
    assert tasks.submit([job]) == ["ref"]
    assert ray.wanted["num_cpus"] == 6  # the whole of the node that can hold it
    tasks._look()
    ray.alive = False
    tasks._look()
    time.sleep(0.25)
    with pytest.raises(BackendUnavailable, match="needs 4 CPU, 0 GPU, 0 MB on one node.*they have 2 CPU, 0 GPU, 1,000 MB"):
        tasks._look()
    with pytest.raises(UsageError, match="number of seconds"):
        ray_executor.RayExecutor(options={"node_wait_seconds": "long"})


@pytest.mark.optional
def test_a_store_that_slurm_does_not_see_is_an_error_and_not_a_lost_run(store, make_jobs, listener, tmp_path, monkeypatch):
    """It would be sent out again and again otherwise."""
    pytest.importorskip("submitit", reason="needs submitit (extra slurm)")
    monkeypatch.setattr("sfumato.executors.submitit.absolute", lambda store: str(tmp_path / "absent"))
    jobs = make_jobs("toys/echo", "toys/noop")
    with pytest.raises(remote.StoreError, match="all machines share"):
        SubmititExecutor(address="local").run(store, jobs, listener, threading.Event())
    assert not [e for e in listener.events if e[0] == "finished"]


@pytest.mark.optional
def test_submitit_makes_the_same_runs_and_keeps_limits(sfumato, tmp_path):
    """With its local executor: one run ends well, one sleeps in C past its limit; nothing of submitit is left."""
    pytest.importorskip("submitit", reason="needs submitit (extra slurm)")
    experiment = tmp_path / "x.toml"
    experiment.write_text(
        "[limits]\nseconds = 12\n[[task]]\nuse='toys/fault'\nfault='sleep-in-c'\n[[task]]\nuse='toys/fault'\n"
        "[[solver]]\nuse='toys/noop'\n"
    )
    here = sfumato("run", str(experiment), "--json", "--store", str(tmp_path / "here"), check=1)
    there = sfumato("run", str(experiment), "--json", "--executor", "submitit", "--address", "local", "-j", "2", check=1)
    a, b = ({r["status"]: r for r in map(json.loads, out.stdout.splitlines())} for out in (here, there))
    assert set(a) == set(b) == {"timeout", "ok"}
    assert a["ok"]["digest"] == b["ok"]["digest"]
    assert not list((tmp_path / "store" / "submitit").glob("*.pkl"))


@pytest.mark.optional
def test_jobs_of_submitit_go_on_when_the_submitting_process_is_killed(sfumato, tmp_path):
    """And status tells the truth all the while."""
    pytest.importorskip("submitit", reason="needs submitit (extra slurm)")
    words = [sys.executable, "-m", "sfumato", "run", "toys/fault", "--solver", "toys/noop", "-t", "seconds=1.0",
             "--executor", "submitit", "--address", "local", "--store", str(tmp_path / "store")]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    store = Store(tmp_path / "store")
    deadline = time.monotonic() + 60
    while not any(store.status(i) == "running" for i in store.ids()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert json.loads(sfumato("status", "--json").stdout)["status"] == "running"
    while store.status(store.ids()[0]) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads(sfumato("status", "--json").stdout)["status"] == "ok"


@pytest.mark.parametrize(("lanes", "status"), [(2, Status.OK), (1, Status.FAILED)])
def test_two_lanes_make_two_runs_at_once(store, make_jobs, listener, tmp_path, lanes, status):
    """Each of the two goes on only when the other has come: one lane makes one after the other, and they fail."""
    folder = tmp_path / "meeting"
    folder.mkdir()
    settings = {"folder": str(folder), "seconds": 20.0 if lanes == 2 else 0.2}
    jobs = make_jobs("toys/echo", "toys/meet", solver_settings=settings, seeds=2, shards=2)
    records = sweep(store, plan(store, jobs), LocalExecutor(lanes), listener, threading.Event())
    assert records[0].status is status
    assert [e[1] for e in listener.events if e[0] == "started"].count(jobs[0].run_id) == 1


def test_two_lanes_share_the_work_and_are_never_three(store, make_jobs, listener, tmp_path):
    """Each run is made once, and at most two are under way at any time."""
    jobs = make_jobs("toys/echo", "toys/diary", solver_settings={"folder": str(tmp_path)}, seeds=6, shards=6)
    records = sweep(store, plan(store, jobs), LocalExecutor(2, "group"), listener, threading.Event())
    assert {r.status for r in records} == {Status.OK}
    started = [e[1] for e in listener.events if e[0] == "started"]
    assert sorted(started) == sorted(j.run_id for j in jobs)
    hours = [tuple(map(float, p.read_text().split())) for p in tmp_path.glob("*-*.*") if p.is_file()]
    assert len(hours) == 6
    assert max(sum(b <= began < e for b, e in hours) for began, _ in hours) == 2
