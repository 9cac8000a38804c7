"""Claims a run, has it made in the isolation asked for, and writes down how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import attrs

from sfumato import claims, config, provenance, turnstile
from sfumato.child import Child, Progress, Verdict
from sfumato.errors import StoreError, UsageError
from sfumato.processes import HAS_PROC
from sfumato.provenance import now
from sfumato.records import Figure, RunRecord, RunSpec, Status
from sfumato.store import STOPPED, Store

LACKING = ("DataMissing", "BackendUnavailable")
"""Errors of runs that never began, for want of a file or a library; such a run is tried again always."""
MAX_INTERRUPTIONS = 3
"""An interrupted run is tried again so many times by itself."""
WAIT_SECONDS = 0.2
RUNS_OF_A_WARM_WORKER = 500
"""Then it is replaced, so that what components leak does not add up without end."""

Isolation = Literal["run", "group", "none"]


class Listener(Protocol):
    """Who is told how the sweep goes."""

    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, fraction: float, message: str) -> None: ...
    def finished(self, job: Job, record: RunRecord) -> None: ...


@attrs.frozen
class Job:
    """A run to be made: its id, its specification, and what is no part of its identity."""

    run_id: str
    spec: RunSpec
    label: str = ""
    data_dir: str | None = None
    code: Mapping[str, str] = attrs.field(factory=dict)
    attempt: int = 1
    exclusive: bool = False  # its time is its result: never beside another run
    short: bool = False  # may share a warm worker
    resources: Mapping[str, float] = attrs.field(factory=dict)  # as its components declare: cpus, gpus, memory_mb
    targets: Mapping[str, tuple[str, str | None]] = attrs.field(factory=dict)  # where to import the components from


def environment(spec: RunSpec) -> dict[str, str]:
    """Return a worker's environment: thread counts, allocators and caches must be set before anything is imported."""
    threads = str(spec.threads)
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sfumato"
    folders = {
        "NUMBA_CACHE_DIR": "numba",
        "JAX_COMPILATION_CACHE_DIR": "jax",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
    }
    return {
        **{name: str(caches / folder) for name, folder in folders.items()},  # the user's own choice wins
        **os.environ,
        **{f"{n}_NUM_THREADS": threads for n in names},
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


class ClaimLost(Exception):
    """Raised when a run that was under way here has become another process's: our lease ran out meanwhile."""


class Lane:
    """Makes runs one at a time. `run`: a process each; `group`: a warm process for many; `none`: in this process.

    Without a choice, runs whose task and solver are declared short share a warm process and all others have their own.
    """

    def __init__(self, isolation: Isolation | None = None) -> None:
        if isolation not in (None, *get_args(Isolation)):
            raise UsageError(f"isolation wants run, group or none; got {isolation!r}.")
        self._isolation = isolation
        self._warm: Child | None = None
        self._warm_environment: dict[str, str] = {}

    def make(self, store: Store, job: Job, on_progress: Progress, stop: threading.Event | claims.Stop) -> RunRecord:
        """Make one run, claimed already, and return its record, which is in place by then.

        Raises ClaimLost, and writes no record, when the claim has become another's.
        """
        folder = store.folder(job.run_id)
        try:
            store.tidy(job.run_id)
            (folder / "job.json").write_text(
                json.dumps(
                    {
                        "data_dir": job.data_dir and str(Path(job.data_dir).absolute()),
                        "artifacts": str(store.artifacts.resolve()),
                        "targets": dict(job.targets),
                    }
                )
            )
        except OSError as error:
            raise StoreError(f"run {job.run_id}: cannot write {folder}: {error.strerror}. Nothing was lost.") from error
        started = now()
        isolation = self._isolation or ("group" if job.short and not job.exclusive else "run")
        if isolation == "none":
            outcome, memory = self._here(folder, job, on_progress, stop)
        else:
            outcome, memory = self._in_a_process(folder, job, isolation, on_progress, stop)
        if isinstance(stop, claims.Stop) and (stop.lost.is_set() or store.owner(job.run_id) != claims.Owner.me()):
            raise ClaimLost
        record = _record(job, outcome, started, {**memory, "isolation": isolation})
        try:
            for spent in ("outcome.json", "job.json"):  # before the record: what follows it may not happen
                (folder / spent).unlink(missing_ok=True)
            errors = folder / "stderr.txt"
            if errors.exists() and errors.stat().st_size == 0:
                errors.unlink()
        except OSError as error:  # a disk that became read-only meanwhile
            raise StoreError(
                f"run {job.run_id}: its record cannot be put into {folder}: {error.strerror}. Mend the disk, then run the "
                "experiment again."
            ) from error
        store.put_record(record)
        return record

    def _in_a_process(
        self, folder: Path, job: Job, isolation: str, on_progress: Progress, stop: threading.Event | claims.Stop
    ) -> tuple[dict[str, Any] | Verdict, dict[str, Any]]:
        limits = job.spec.limits
        wanted = environment(job.spec)
        warm = isolation == "group"
        if self._warm is not None and (not warm or self._warm_environment != wanted or self._warm.exited()):
            self.close()
        # A control group bounds a process for life; a warm process serves runs of other limits, and is watched by
        # looking at its size alone.
        if limits.memory_mb is not None and not HAS_PROC:
            raise UsageError("--memory-limit needs /proc, which this system has not. Leave the limit out.")
        try:
            child = self._warm or Child(wanted, None if warm else limits.memory_mb)
        except OSError as error:
            raise StoreError(f"no worker can be started: {error.strerror}. Lower -j or free memory, then run again.") from error
        ended = False
        try:
            last = not warm or child.runs + 1 >= RUNS_OF_A_WARM_WORKER
            outcome = child.make(folder, limits, on_progress, stop, last)
            ended = last or isinstance(outcome, tuple)
        except BaseException:
            child.end(0.0)
            self._warm = None
            raise
        memory: dict[str, Any] = {"peak_mb": round(child.peak_mb, 1)}
        if limits.memory_mb is not None:
            memory["memory_limit"] = {"mb": limits.memory_mb, "watched_by": child.memory_watch}
        if ended:
            child.leave()
        self._warm, self._warm_environment = (None if ended else child), wanted
        return outcome, memory

    def _here(
        self, folder: Path, job: Job, on_progress: Progress, stop: threading.Event | claims.Stop
    ) -> tuple[dict[str, Any] | Verdict, dict[str, Any]]:
        from sfumato.worker import KEYBOARD, execute, same_folder

        def tell(message: Mapping[str, Any]) -> None:
            if "progress" in message:
                on_progress(message["progress"], message["message"])
            if stop.is_set():
                raise KeyboardInterrupt

        work = json.loads((folder / "job.json").read_text())
        with contextlib.redirect_stdout(sys.stderr), same_folder():
            outcome = execute(folder.absolute(), job.spec, work, tell)
        if outcome["error"] == KEYBOARD:  # a full disk interrupts a run too, and that is not for the user to have stopped
            outcome["error"] = STOPPED
        return outcome, {"peak_mb": round(outcome.get("peak_mb", 0.0), 1)}

    def close(self) -> None:
        """Let the warm process go."""
        if self._warm is not None:
            self._warm.leave()
            self._warm = None


def settle(store: Store, job: Job, listener: Listener, stop: threading.Event, lane: Lane) -> RunRecord | None:
    """See to it that a run has its record: claim and make it, or wait for the process that holds the claim.

    Returns None when `stop` was set before it began.
    """
    if stop.is_set():
        return None
    store.write_spec(job.run_id, job.spec)
    while store.claim(job.run_id, job.attempt, job.label, job.code) is not None:
        if stop.wait(WAIT_SECONDS):
            return None
    until = claims.Stop(stop)
    try:
        with claims.heartbeat((store.folder(job.run_id) / "claim.json").absolute(), until.lost):
            record = store.record(job.run_id)
            if record is not None and _unfinished(store, job, record):
                if record.attempt >= job.attempt:  # it was cut off while we waited for it
                    job = attrs.evolve(job, attempt=record.attempt + 1)
                    store.renew(job.run_id, job.attempt, job.label, job.code)
                record = None
            if record is None:
                with turnstile.place(job.exclusive, until, lambda why: listener.progress(job, 0.0, why)) as placed:
                    if placed:
                        job = _next(store, job)
                        listener.started(job)
                        record = lane.make(store, job, lambda f, m: listener.progress(job, f, m), until)
    except ClaimLost:
        until.lost.set()
    finally:
        store.release(job.run_id)
    if until.lost.is_set():  # whoever has it now makes it; we wait for that
        return settle(store, job, listener, stop, lane)
    if record is not None:
        listener.finished(job, record)
    return record


def refuse(store: Store, job: Job, error: str, code: Mapping[str, str]) -> None:
    """Write down that a run could not be begun here; whoever holds its claim may still make it."""
    store.write_spec(job.run_id, job.spec)
    if store.claim(job.run_id, job.attempt, job.label, code) is not None:
        return
    try:
        record = store.record(job.run_id)
        if record is not None:
            if record.attempt >= job.attempt:
                return
            store.set_aside(record)
        store.put_record(_record(attrs.evolve(job, code=code), (Status.FAILED, error), now(), {}))
    finally:
        store.release(job.run_id)


def _next(store: Store, job: Job) -> Job:
    """Set the standing record aside, only now that the run begins; number the attempt after all that there were."""
    if (standing := store.record(job.run_id)) is not None:
        store.set_aside(standing)
    number = max([job.attempt, *(r.attempt + 1 for r in store.earlier(job.run_id))])
    if number != job.attempt:
        job = attrs.evolve(job, attempt=number)
        store.renew(job.run_id, job.attempt, job.label, job.code)
    return job


def _unfinished(store: Store, job: Job, record: RunRecord) -> bool:
    if record.attempt < job.attempt:
        return True
    return record.status is Status.INTERRUPTED and store.interruptions(job.run_id) <= MAX_INTERRUPTIONS


def run(
    store: Store,
    job: Job,
    on_progress: Progress = lambda fraction, message: None,
    stop: threading.Event | None = None,
) -> RunRecord:
    """Make one run in a process of its own, without claiming it, and return its record, which is in place by then."""
    store.write_spec(job.run_id, job.spec)
    return Lane("run").make(store, job, on_progress, stop or threading.Event())


def _advice(status: Status, error: str) -> str:
    """Return what to do about a run that did not end well; "" for one that did."""
    if status is Status.FAILED and error.startswith(LACKING):
        return "Then run the experiment again: what was lacking is looked for anew."
    return "" if status is Status.OK else status.advice


def _record(job: Job, outcome: dict[str, Any] | Verdict, started: str, process: Mapping[str, Any]) -> RunRecord:
    if isinstance(outcome, tuple):
        (status, error), outcome = outcome, {}
    else:
        status, error = Status(outcome["status"]), outcome["error"]
    figures = tuple(config.structure(f, Figure, where="outcome") for f in outcome.get("figures", ()))
    return RunRecord(
        run_id=job.run_id,
        spec=job.spec,
        status=status,
        error=error,
        advice=_advice(status, error),
        started=started,
        ended=now(),
        timings=outcome.get("timings", {}),
        figures=figures,
        digest=outcome.get("digest", ""),
        trace=outcome.get("trace", "none"),
        promise=outcome.get("promise", "bits"),
        code={**outcome.get("code", {}), **job.code},
        provenance={
            **provenance.provenance(outcome.get("device", ""), outcome.get("data", {}), job.spec.threads),
            **process,
        },
        attempt=job.attempt,
        label=job.label,
    )
