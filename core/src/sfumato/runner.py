"""A sweep: what is missing is run, what is there is kept."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Literal

import attrs

from sfumato.executors import Executor, Listener
from sfumato.records import RunRecord, Status
from sfumato.store import Store
from sfumato.supervisor import Job

SETTLED = (Status.OK, Status.UNSUPPORTED)
MAX_INTERRUPTIONS = 3

Verdict = Literal["new", "again", "kept", "failed before", "stale"]


@attrs.frozen
class Planned:
    """A job and what is to be done with it. `record` is the one that stands now."""

    job: Job
    verdict: Verdict
    record: RunRecord | None = None

    @property
    def to_run(self) -> bool:
        return self.verdict in ("new", "again", "stale")


def plan(store: Store, jobs: Sequence[Job], retry: Collection[str] = (), reuse_stale: bool = False) -> list[Planned]:
    """Decide for each job: run it, or keep what is there.

    A finished run is kept while the code of its components is what it was, else it is `stale` and done again unless
    `reuse_stale`. A failure is never taken for a result; it is tried again when `retry` names its status. An
    interrupted run is tried again, at most MAX_INTERRUPTIONS times by itself.
    """
    planned = []
    seen: set[str] = set()
    for job in jobs:
        if job.run_id in seen:
            continue
        seen.add(job.run_id)
        record = store.record(job.run_id)
        if record is None:
            planned.append(Planned(job, "new"))
            continue
        verdict: Verdict
        if record.status in SETTLED:
            verdict = "kept" if reuse_stale or dict(record.code) == dict(job.code) else "stale"
        elif record.status.value in retry:
            verdict = "again"
        elif record.status is Status.INTERRUPTED and record.attempt <= MAX_INTERRUPTIONS:
            verdict = "again"
        else:
            verdict = "failed before"
        attempt = 1 if verdict == "stale" else record.attempt
        planned.append(Planned(attrs.evolve(job, attempt=attempt + (verdict != "kept")), verdict, record))
    return planned


def sweep(
    store: Store, planned: Sequence[Planned], executor: Executor, listener: Listener, stop: threading.Event
) -> list[RunRecord]:
    """Run what is to be run; return the records that stand at the end, in the order of the plan."""
    executor.run(store, [p.job for p in planned if p.to_run], listener, stop)
    records = [store.record(p.job.run_id) for p in planned]
    return [r for r in records if r is not None]
