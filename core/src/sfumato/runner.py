"""A sweep: what is missing is run, what is there is kept."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, overload

import attrs

from sfumato import config, stats
from sfumato.errors import StoreError
from sfumato.executors import Executor, Listener
from sfumato.index import Index, Summary
from sfumato.records import RunRecord, Status
from sfumato.staleness import Staleness
from sfumato.store import Store, canonical
from sfumato.supervisor import LACKING, MAX_INTERRUPTIONS, Job

SETTLED = (Status.OK, Status.UNSUPPORTED)

Verdict = Literal["new", "again", "kept", "failed before", "stale"]


@attrs.frozen
class Planned:
    """A job and what is to be done with it. `status` is that of the record that stands now; `because` says why it is
    stale."""

    job: Job
    verdict: Verdict
    status: str | None = None
    because: str = ""  # why it is stale

    @property
    def to_run(self) -> bool:
        return self.verdict in ("new", "again", "stale")


def plan(store: Store, jobs: Sequence[Job], retry: Collection[str] = (), reuse_stale: bool = False) -> list[Planned]:
    """Decide for each job: run it, or keep what is there.

    A finished run is kept while the code of its components and the data files that it read are what they were, else it
    is `stale` and done again unless `reuse_stale`. A failure is never taken for a result; it is tried again when `retry` names its status. An
    interrupted run is tried again, at most MAX_INTERRUPTIONS times by itself; one that lacked a data file or a library is
    tried again always. A claim whose owner is gone becomes an
    interrupted run first.
    """
    with Index(store) as index:
        there = {s.run_id: s for s in index.summaries()}
    # A claim beside a record is one whose owner died between putting the record and giving the claim back.
    lost = [j.run_id for j in jobs if j.run_id in there and (store.folder(j.run_id) / "claim.json").exists()]
    if [run_id for run_id in lost if store.recover(run_id)]:
        with Index(store) as index:
            there = {s.run_id: s for s in index.summaries()}
    planned = []
    seen: set[str] = set()
    stale = _stale(store, jobs, there) if not reuse_stale else {}
    for job in jobs:
        if job.run_id in seen:
            continue
        seen.add(job.run_id)
        found = there.get(job.run_id)
        if found is None or found.status in ("waiting", "running"):
            planned.append(Planned(job, "new"))
            continue
        if found.status == "damaged":
            store.record(job.run_id)  # says what is wrong and what to do
            raise StoreError(found.error)  # the index is stricter
        verdict: Verdict = "failed before"
        because = ""
        if found.status in SETTLED and found.status not in retry:
            because = stale.get(job.run_id, "")
            verdict = "stale" if because else "kept"
        elif (
            found.status in retry
            or (found.status == Status.INTERRUPTED and store.interruptions(job.run_id) <= MAX_INTERRUPTIONS)
            or found.error.startswith(LACKING)  # what was not there may be now, and looking costs little
        ):
            verdict = "again"
        attempt = found.attempt + (verdict in ("again", "stale"))
        planned.append(Planned(attrs.evolve(job, attempt=attempt), verdict, found.status, because))
    return planned


def _stale(store: Store, jobs: Sequence[Job], there: Mapping[str, Summary]) -> dict[str, str]:
    """Return why each of the jobs' finished runs is stale, by run id."""
    found: dict[str, str] = {}
    tellers: dict[tuple[str | None, tuple[tuple[str, str], ...]], Staleness] = {}
    with Index(store) as index:
        for job in jobs:
            summary = there.get(job.run_id)
            if summary is None or summary.status not in SETTLED:
                continue
            # What it has beyond these it asked for while it ran.
            if new := sorted(set(job.code) - set(summary.code)):
                found[job.run_id] = f"it is made of other packages now ({', '.join(new)})"
                continue
            key = (job.data_dir, tuple(sorted(job.code.items())))
            if key not in tellers:
                tellers[key] = Staleness(index, job.data_dir, job.code)
            if because := tellers[key].because(summary):
                found[job.run_id] = because
    return found


class Records(Sequence[RunRecord]):
    """The records of a sweep, read when they are looked at: a sweep of any length fits into memory."""

    def __init__(self, store: Store, ids: Sequence[str]) -> None:
        self._store = store
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Records:
        if isinstance(index, slice):
            return Records(self._store, self._ids[index])
        record = self._store.record(self._ids[index])
        if record is None:
            raise IndexError(f"the record of run {self._ids[index]} was taken away")
        return record

    def __iter__(self) -> Iterator[RunRecord]:
        return (self[k] for k in range(len(self)))


def merged(store: Store, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return one record for all shards of one specification that ended ok, with the figures of their rows together.

    For showing a long sweep: it belongs to no run, and its label tells how many runs it is made of.
    """
    groups: dict[str, list[str]] = {}
    firsts: dict[str, RunRecord] = {}
    for record in records:
        if record.status is Status.OK:
            key = record.label + canonical(config.unstructure(attrs.evolve(record.spec, instances="")))
            groups.setdefault(key, []).append(record.run_id)
            firsts.setdefault(key, record)
    shown = []
    for key, ids in groups.items():
        rows = (row for run_id in ids for row in store.rows(run_id))
        label = f"{firsts[key].label} ({len(ids)} runs)"
        shown.append(attrs.evolve(firsts[key], run_id="", label=label, figures=stats.figures(rows)))
    return shown


def sweep(
    store: Store, planned: Sequence[Planned], executor: Executor, listener: Listener, stop: threading.Event
) -> Records:
    """Run what is to be run; return the records that stand at the end, in the order of the plan."""
    executor.run(store, [p.job for p in planned if p.to_run], listener, stop)
    return Records(store, [i for p in planned if (store.folder(i := p.job.run_id) / "record.json").exists()])
