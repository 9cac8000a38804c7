"""What executors on other machines share: the function that runs there, and the loop that watches from here.

Nothing but a job travels out, and nothing travels back: whether a run was claimed, and how it ended, is read from the
store, which must lie on a file system that every machine sees. A worker that vanishes leaves a claim whose owner is
gone; then the run becomes `interrupted` and is sent out again.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import attrs

from sfumato.errors import StoreError
from sfumato.executors import Listener
from sfumato.provenance import code_digest
from sfumato.records import RunRecord, Status
from sfumato.store import STOPPED, Store
from sfumato.supervisor import MAX_INTERRUPTIONS, Isolation, Job, Lane, refuse, settle

CANCEL_SECONDS = 20.0
"""How long runs under way have to end cleanly once the sweep is stopped."""

H = TypeVar("H", bound=Hashable)


# ---------------------------------------------------------------------- over there


class _Quiet:
    def started(self, job: Job) -> None:
        return

    def progress(self, job: Job, fraction: float, message: str) -> None:
        return

    def finished(self, job: Job, record: RunRecord) -> None:
        return


def work(root: str, jobs: Sequence[Job], isolation: Isolation | None) -> None:
    """Make runs on this machine, one after another; TERM or INT ends the one under way cleanly.

    Raises StoreError when the store is not to be seen from here.
    """
    store = Store(root)
    if not store.runs.is_dir():
        raise StoreError(
            f"the store {root} is not there on {socket.gethostname()}: it must lie on a file system that all machines "
            "share. Give one with --store DIR."
        )
    stop = threading.Event()
    errors: list[BaseException] = []

    def make() -> None:
        lane = Lane(isolation)
        try:
            for job in jobs:
                there = {package: code_digest(package) for package in job.code}
                if other := [p for p in job.code if there[p] != job.code[p]]:
                    refuse(store, job, _other_code(other), there)
                else:
                    settle(store, job, _Quiet(), stop, lane)
        except BaseException as error:
            errors.append(error)
        finally:
            lane.close()

    thread = threading.Thread(target=make, name="lane")
    with _signals(stop):
        thread.start()
        while thread.is_alive():
            try:
                thread.join(0.1)
            except KeyboardInterrupt:  # Ray cancels so
                stop.set()
    if errors:
        raise errors[0]


def _other_code(packages: Iterable[str]) -> str:
    return (
        f"the code of {', '.join(packages)} on {socket.gethostname()} is not that of the submitting machine. Install the "
        "same version on both."
    )


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------- over here


class Cluster(Protocol[H]):
    """Where work is sent."""

    poll_seconds: float

    def submit(self, jobs: Sequence[Job]) -> list[H]:
        """Send jobs out; return a handle for each, the same one for those that go together."""

    def ended(self, handles: Sequence[H]) -> Mapping[H, str]:
        """Return those that have ended, each with what went wrong there, or nothing; waits `poll_seconds` at most.

        Raises what `work` raised of the user's concern.
        """

    def cancel(self, handles: Sequence[H]) -> None:
        """Ask for an end."""


@attrs.define
class _Out(Generic[H]):
    job: Job
    handle: H
    started: bool = False
    ended: str | None = None


def watch(
    store: Store, jobs: Sequence[Job], cluster: Cluster[H], listener: Listener, stop: threading.Event, width: int
) -> None:
    """Send out jobs, at most `width` at a time, until each has its record; tell the listener what the store says."""
    queue = deque(jobs)
    out: dict[str, _Out[H]] = {}
    while queue or out:
        if stop.is_set():
            _stop(store, out, cluster, listener)
            return
        if (room := min(width - len(out), len(queue))) > 0:
            batch = [queue.popleft() for _ in range(room)]
            for job in batch:
                store.write_spec(job.run_id, job.spec)  # from here on, status lists it as waiting
            for job, handle in zip(batch, cluster.submit(batch), strict=True):
                out[job.run_id] = _Out(job, handle)
        _look(out, cluster)
        for run_id, each in list(out.items()):
            if not each.started and (each.ended is not None or (store.folder(run_id) / "claim.json").exists()):
                each.started = True
                listener.started(each.job)
            if each.ended is None:
                continue
            record = _standing(store, each.job, each.ended)
            if record is None:  # its machine is gone, its lease is not over yet
                continue
            del out[run_id]
            if _again(store, record):
                queue.append(attrs.evolve(each.job, attempt=record.attempt + 1))
            else:
                listener.finished(each.job, record)


def _look(out: Mapping[str, _Out[H]], cluster: Cluster[H]) -> None:
    alive = list(dict.fromkeys(each.handle for each in out.values() if each.ended is None))
    if not alive:
        time.sleep(cluster.poll_seconds)
        return
    ended = cluster.ended(alive)
    for each in out.values():
        if each.ended is None:
            each.ended = ended.get(each.handle)


def _standing(store: Store, job: Job, trouble: str) -> RunRecord | None:
    """Return the record of an attempt whose work has ended, None while someone may still be at it.

    An attempt that left no record gets one with status `interrupted`.
    """
    record = store.record(job.run_id)
    if record is not None and record.attempt >= job.attempt:
        return record
    if store.claim(job.run_id, job.attempt, job.label, job.code) is not None:
        return None
    try:
        record = store.record(job.run_id)  # taking over the claim of the dead has written one
        if record is None or record.attempt < job.attempt:
            lost = RunRecord(
                run_id=job.run_id, spec=job.spec, status=Status.INTERRUPTED, attempt=job.attempt, label=job.label,
                error=f"its worker was lost before the run was claimed: {trouble or 'no reason was given'}",
                advice=Status.INTERRUPTED.advice, code=job.code,
            )  # fmt: skip
            if record is not None:
                store.set_aside(record)
            store.put_record(lost)
            record = lost
    finally:
        store.release(job.run_id)
    return record


def _again(store: Store, record: RunRecord) -> bool:
    if record.status is not Status.INTERRUPTED or record.error == STOPPED:
        return False
    return store.interruptions(record.run_id) <= MAX_INTERRUPTIONS


def _stop(store: Store, out: dict[str, _Out[H]], cluster: Cluster[H], listener: Listener) -> None:
    cluster.cancel(list(dict.fromkeys(each.handle for each in out.values() if each.ended is None)))
    deadline = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < deadline and any(each.ended is None for each in out.values()):
        _look(out, cluster)
    for run_id, each in out.items():
        record = store.record(run_id)
        if record is not None and record.attempt >= each.job.attempt:
            listener.finished(each.job, record)


def absolute(store: Store) -> str:
    """Return the store's path as other machines may use it."""
    return str(Path(store.root).resolve())


def cpus(job: Job) -> float:
    """Return the processors that a run needs: its threads, or what its components declare if that is more."""
    return max(float(job.resources.get("cpus", 1)), float(job.spec.threads))


def gpus(job: Job) -> float:
    """Return the GPUs that a run needs: what its components declare, at least one on a GPU device."""
    return max(float(job.resources.get("gpus", 0)), 0.0 if job.spec.device.startswith("cpu") else 1.0)


def memory_mb(job: Job) -> float | None:
    """Return the memory that a run needs, MB: its limit, or what its components declare; None when neither is given."""
    return job.spec.limits.memory_mb or job.resources.get("memory_mb")
