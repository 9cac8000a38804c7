"""Starts a run in a child process of its own, watches it from outside, and writes down how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from sfumato import stats
from sfumato.provenance import now
from sfumato.records import RunRecord, RunSpec, Status
from sfumato.store import Store

GRACE_SECONDS = 3.0
POLL_SECONDS = 0.1


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


def environment(spec: RunSpec) -> dict[str, str]:
    """Return the child's environment: thread counts and allocators must be set before anything is imported."""
    threads = str(spec.threads)
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")
    return {
        **os.environ,
        **{f"{n}_NUM_THREADS": threads for n in names},
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def run(
    store: Store,
    job: Job,
    on_progress: Callable[[float, str], None] = lambda fraction, message: None,
    stop: threading.Event | None = None,
) -> RunRecord:
    """Make one run and return its record, which is in place by then.

    `stop` asks for an early end: the run becomes `interrupted`.
    """
    folder = store.write_spec(job.run_id, job.spec)
    for leftover in ("outcome.json", "rows.jsonl", "trace.zip"):
        (folder / leftover).unlink(missing_ok=True)
    (folder / "job.json").write_text(
        json.dumps({"data_dir": job.data_dir, "artifacts": str((store.root / "artifacts").resolve())})
    )
    started, began = now(), time.monotonic()
    with (folder / "stderr.txt").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "sfumato.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(job.spec),
            start_new_session=True,
        )
        try:
            verdict = _watch(child, job.spec, on_progress, stop or threading.Event(), began)
        finally:
            _end_group(child, 0.0)
            if child.stdout:
                child.stdout.close()
    record = _record(store, job, verdict, child.returncode, started)
    store.put_record(record)
    return record


def _watch(
    child: subprocess.Popen[bytes],
    spec: RunSpec,
    on_progress: Callable[[float, str], None],
    stop: threading.Event,
    began: float,
) -> tuple[Status, str] | None:
    """Follow the child to its end; return why it was stopped, None when it ended by itself."""
    assert child.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(child.stdout, selectors.EVENT_READ)
    os.set_blocking(child.stdout.fileno(), False)
    limit = spec.limits.seconds
    rest = b""
    open_channel = True
    with selector:
        while child.poll() is None:
            if open_channel and selector.select(POLL_SECONDS):
                data = child.stdout.read()
                if not data:
                    selector.unregister(child.stdout)
                    open_channel = False
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    _tell(line, on_progress)
            elif not open_channel:
                time.sleep(POLL_SECONDS / 5)
            if stop.is_set():
                _end_group(child, GRACE_SECONDS)
                return Status.INTERRUPTED, "stopped before it ended"
            if limit is not None and time.monotonic() - began > limit:
                _end_group(child, GRACE_SECONDS)
                return Status.TIMEOUT, f"passed its time limit of {limit:g} s"
    return None


def _tell(line: bytes, on_progress: Callable[[float, str], None]) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(line)
        on_progress(float(message["progress"]), str(message["message"]))


def _end_group(child: subprocess.Popen[bytes], grace: float) -> None:
    """End the child's whole process group: TERM, wait, KILL; grandchildren too."""
    with contextlib.suppress(ProcessLookupError):
        if grace and child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _record(store: Store, job: Job, verdict: tuple[Status, str] | None, code: int, started: str) -> RunRecord:
    folder = store.folder(job.run_id)
    outcome = _read_outcome(folder)
    if verdict is not None:
        status, error = verdict
    elif outcome is None:
        status, error = _death(code)
    else:
        status, error = Status(outcome["status"]), outcome["error"]
    outcome = outcome or {}
    rows = list(store.rows(job.run_id))
    return RunRecord(
        run_id=job.run_id,
        spec=job.spec,
        status=status,
        error=error,
        advice="" if status is Status.OK else status.advice,
        started=started,
        ended=now(),
        timings=outcome.get("timings", {}),
        figures=stats.figures(rows),
        digest=outcome.get("digest", ""),
        trace=outcome.get("trace", "none"),
        promise=outcome.get("promise", "bits"),
        code=job.code,
        provenance=outcome.get("provenance", {}),
        attempt=job.attempt,
        label=job.label,
    )


def _death(code: int) -> tuple[Status, str]:
    if code < 0:
        name = signal.Signals(-code).name
        status = Status.KILLED if -code == signal.SIGKILL else Status.FAILED
        return status, f"the worker died of {name}; its error stream is in stderr.txt"
    return Status.FAILED, f"the worker left with status {code} and no outcome; its error stream is in stderr.txt"


def _read_outcome(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / "outcome.json").read_text()))
    except (OSError, ValueError):
        return None
