"""Runs on Ray: a cluster that starts by itself, and one that loses a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sfumato.errors import BackendUnavailable
from sfumato.records import Status
from sfumato.runner import plan, sweep
from sfumato.store import Store

ray = pytest.importorskip("ray", reason="needs Ray (extra ray)")
pytestmark = pytest.mark.optional


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No usage statistics, no warning about /dev/shm."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def until(condition, within=90.0):
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return value


def test_a_cluster_starts_by_itself_and_statuses_mean_the_same(store, make_jobs, listener, tmp_path):
    """One run ends well with the same bits, one sleeps in C past its limit, one crashes."""
    from sfumato.executors.local import LocalExecutor
    from sfumato.executors.ray import RayExecutor

    jobs = [
        *make_jobs(task_settings={"fault": "sleep-in-c"}, limits={"seconds": 6}),  # the others have no limit: a busy
        *make_jobs(),  # machine may need longer than that to start them
        *make_jobs(task_settings={"fault": "segfault"}),
    ]
    elsewhere = Store(tmp_path / "here")
    elsewhere.prepare()
    here = sweep(elsewhere, plan(elsewhere, jobs), LocalExecutor(2), listener, threading.Event())
    there = sweep(store, plan(store, jobs), RayExecutor(2), listener, threading.Event())
    assert [r.status for r in there] == [r.status for r in here] == [Status.TIMEOUT, Status.OK, Status.FAILED]
    assert here[1].digest == there[1].digest
    assert "SIGSEGV" in there[2].error
    assert not ray.is_initialized()


def test_a_cluster_is_joined_and_what_it_cannot_hold_is_refused(store, make_jobs, listener):
    """Ray would keep the run in its queue for ever; one that fits is made."""
    from ray.cluster_utils import Cluster

    from sfumato.executors.ray import RayExecutor

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        (large,), (small,) = (make_jobs("toys/echo", "toys/noop", threads=n) for n in (3, 2))
        with pytest.raises(BackendUnavailable, match=r"needs 3 CPU.*they have 2 CPU"):
            RayExecutor(address=cluster.address).run(store, [small, large], listener, threading.Event())
        assert not list(store.ids())
        records = sweep(store, plan(store, [small]), RayExecutor(address=cluster.address), listener, threading.Event())
        assert [r.status for r in records] == [Status.OK]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_node_killed_with_9_costs_an_attempt_and_no_result(store, make_jobs, listener, survivors):
    """Two nodes, of which the head makes no runs; the other one is killed at work, a third takes over."""
    from ray.cluster_utils import Cluster

    from sfumato.executors.ray import RayExecutor

    jobs = make_jobs(task_settings={"seconds": 0.8}, seeds=4, shards=4)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    errors = []
    try:
        node = cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

        def go():
            try:
                sweep(store, plan(store, jobs), RayExecutor(), listener, threading.Event())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        until(lambda: [j for j in jobs if store.status(j.run_id) == "running"])
        (raylet,) = (p.process.pid for p in node.all_processes["raylet"])
        ours = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        for pid in (raylet, *map(int, ours)):  # the node and what runs on it, but not the runs' own processes
            os.kill(pid, signal.SIGKILL)
        until(lambda: not [line for line in survivors(0) if "sfumato.worker" in line])
        cluster.add_node(num_cpus=2)
        thread.join(180)
        assert not thread.is_alive()
        assert errors == []
    finally:
        ray.shutdown()
        cluster.shutdown()
    records = [store.record(j.run_id) for j in jobs]
    assert [r.status for r in records] == [Status.OK] * 4
    again = [r for r in records if r.attempt > 1]
    assert again
    for record in again:
        assert [r.status for r in store.earlier(record.run_id)] == [Status.INTERRUPTED] * (record.attempt - 1)
    finished = [e[1] for e in listener.events if e[0] == "finished"]
    assert sorted(finished) == sorted(j.run_id for j in jobs)


def test_a_submitting_process_killed_with_9_leaves_the_truth_behind(sfumato, tmp_path, survivors):
    """Its cluster goes with it; status says `interrupted`, and running again finishes the work."""
    words = ["run", "toys/fault", "--solver", "toys/noop", "-t", "seconds=3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sfumato", *words, "--executor", "ray", "--store", str(tmp_path / "store")],
        stderr=subprocess.DEVNULL,
    )
    store = Store(tmp_path / "store")
    until(lambda: any(store.status(i) == "running" for i in store.ids()))
    process.kill()
    process.wait()
    until(lambda: not [line for line in survivors(0) if "sfumato.worker" in line])
    until(lambda: json.loads(sfumato("status", "--json").stdout)["status"] == "interrupted", within=30)
    (record,) = map(json.loads, sfumato(*words, "-t", "seconds=3", "--json", check=0).stdout.splitlines())
    assert (record["status"], record["attempt"]) == ("ok", 2)
