"""Runs as Slurm jobs (extra `slurm`), sent by submitit; `--address local` runs the same jobs on this machine.

The submitting process may end or be killed: the jobs go on, and their records appear in the store.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sfumato import errors
from sfumato.errors import BackendUnavailable, StoreError, UsageError
from sfumato.executors import Listener
from sfumato.executors.remote import absolute, cpus, gpus, memory_mb, watch, work
from sfumato.store import Store
from sfumato.supervisor import Isolation, Job

MAX_ARRAY = 500
"""Jobs in one array; more runs than that are dealt out to them (Slurm's own limit is 1001 by default)."""
SPARE_SECONDS = 120.0
"""What a Slurm job gets beyond the time limit of its runs, so that it is sfumato that ends them and says so."""
DEFAULT_HOURS = 24


def work_and_tell(root: str, jobs: Sequence[Job], isolation: Isolation | None) -> tuple[str, str] | None:
    """Make runs as `work` does; return the class and text of an error that is the user's to mend.

    Submitit hands on the text of a traceback only, and a run whose machine does not see the store would be taken for
    one that was lost, and sent again.
    """
    try:
        work(root, jobs, isolation)
    except errors.SfumatoError as error:
        return type(error).__name__, str(error)
    return None


class SubmititExecutor:
    """Arrays of Slurm jobs, at most `n_jobs` of them at a time."""

    def __init__(
        self,
        n_jobs: int = 1,
        isolation: Isolation | None = None,
        address: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if isolation == "none":
            raise UsageError("--isolation none makes runs in this very process; with --executor submitit use run or group.")
        if address not in (None, "slurm", "local"):
            raise UsageError(f"--address for the executor 'submitit' is slurm (the default) or local, got {address!r}.")
        self.n_jobs = n_jobs
        self.isolation = isolation
        self.cluster = address or "slurm"
        self.options = dict(options or {})

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None:
        """Run all jobs, grouped by what they need; those whose time is the result last, each with a node to itself."""
        if not jobs:
            return
        try:
            import submitit
        except ImportError as error:
            raise BackendUnavailable(
                "the executor 'submitit' needs submitit, which is not installed. Install it: pip install 'sfumato[slurm]'"
            ) from error
        if self.cluster == "slurm" and shutil.which("srun") is None:
            raise BackendUnavailable(
                "there is no Slurm on this machine (no srun on PATH). Submit from a login node, or try the same jobs here "
                "with --address local."
            )
        wants = sorted(jobs, key=lambda j: (j.exclusive, cpus(j), gpus(j), memory_mb(j) or 0, j.spec.limits.seconds or 0))
        for (alone, *_), group in groupby(
            wants, key=lambda j: (j.exclusive, cpus(j), gpus(j), memory_mb(j), j.spec.limits.seconds)
        ):
            members = list(group)
            width = 1 if alone else self.n_jobs if self.cluster == "local" else len(members)
            watch(store, members, _Arrays(submitit, store, self, alone), listener, stop, width)


class _Arrays:
    """Slurm's job arrays, seen as a cluster to send work to."""

    def __init__(self, submitit: Any, store: Store, executor: SubmititExecutor, alone: bool) -> None:
        self.poll_seconds = 0.2 if executor.cluster == "local" else 2.0
        self._submitit = submitit
        self._executor = executor
        self._root = absolute(store)
        self._folder = store.root.resolve() / "submitit"
        self._alone = alone

    def submit(self, jobs: Sequence[Job]) -> list[Any]:
        n_parts = min(len(jobs), MAX_ARRAY)
        parts = [jobs[k::n_parts] for k in range(n_parts)]
        sender = self._submitit.AutoExecutor(folder=str(self._folder), cluster=self._executor.cluster)
        sender.update_parameters(**self.parameters(parts[0]), **self._executor.options)
        with sender.batch():
            handles = [sender.submit(work_and_tell, self._root, part, self._executor.isolation) for part in parts]
        return [handles[k % n_parts] for k in range(len(jobs))]

    def parameters(self, part: Sequence[Job]) -> dict[str, Any]:
        """Return what a job that makes these runs one after another asks of Slurm."""
        first = part[0]
        limit = first.spec.limits.seconds
        seconds = DEFAULT_HOURS * 3600 if limit is None else len(part) * (limit + 10) + SPARE_SECONDS
        wants: dict[str, Any] = {
            "name": "sfumato",
            "timeout_min": math.ceil(seconds / 60),
            "cpus_per_task": math.ceil(cpus(first)),
        }
        if gpus(first):
            wants["gpus_per_node"] = math.ceil(gpus(first))
        if (memory := memory_mb(first)) is not None:
            wants["mem_gb"] = math.ceil(memory / 1000 * 1.1 + 0.2)  # the supervisor lives there too
        if self._executor.cluster == "slurm":
            wants["slurm_array_parallelism"] = self._executor.n_jobs
            if self._alone:
                wants["slurm_exclusive"] = True
        return wants

    def ended(self, handles: Sequence[Any]) -> dict[Any, str]:
        deadline = time.monotonic() + self.poll_seconds
        while not (done := [h for h in handles if h.done()]) and time.monotonic() < deadline:
            time.sleep(min(self.poll_seconds, 0.1))
        return {handle: self._trouble(handle) for handle in done}

    def _trouble(self, handle: Any) -> str:
        try:
            error = handle.exception()
        except Exception as problem:  # its output is missing: the job was killed
            error = problem
        if error is None:  # nothing in its files that the store does not hold
            if (told := handle.result()) is not None:
                raise getattr(errors, told[0], StoreError)(told[1])
            paths = handle.paths
            for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr):
                path.unlink(missing_ok=True)
            return ""
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}"

    def cancel(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            handle.cancel(check=False)
