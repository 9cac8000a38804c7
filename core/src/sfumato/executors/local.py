"""Runs on this machine, `n_jobs` at a time; runs whose time is the result go alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.errors import UsageError
from sfumato.executors import Listener
from sfumato.store import Store
from sfumato.supervisor import Isolation, Job, Lane, settle


class LocalExecutor:
    """A thread for each lane; each lane makes one run at a time."""

    def __init__(
        self,
        n_jobs: int = 1,
        isolation: Isolation | None = None,
        address: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if address is not None:
            raise UsageError(f"the local executor joins no cluster, got --address {address}. Use --executor ray.")
        if options:
            raise UsageError(f"the local executor has no options of its own, got {', '.join(options)}. Leave -x out.")
        if isolation == "none" and n_jobs > 1:
            raise UsageError(
                f"--isolation none makes runs in this very process, one at a time; got -j {n_jobs}. Use -j 1, or "
                "--isolation group."
            )
        self.n_jobs = n_jobs
        self.isolation = isolation

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None:
        """Run all jobs; the first error of the store ends the sweep, the runs under way are ended cleanly."""
        if self.isolation == "none":
            self._check(jobs)
            self._lane(store, deque(jobs), listener, stop)
            return
        shared = deque(j for j in jobs if not j.exclusive)
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._lane(store, shared, listener, stop)
            except BaseException as error:
                errors.append(error)
                stop.set()

        threads = [threading.Thread(target=work, name=f"lane {k}") for k in range(min(self.n_jobs, len(shared)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)  # keeps the main thread open to Ctrl-C
        except BaseException:
            stop.set()
            for thread in threads:
                thread.join()
            raise
        if errors:
            raise errors[0]
        self._lane(store, deque(j for j in jobs if j.exclusive), listener, stop)

    def _lane(self, store: Store, jobs: deque[Job], listener: Listener, stop: threading.Event) -> None:
        lane = Lane(self.isolation)
        try:
            while jobs and not stop.is_set():
                try:
                    job = jobs.popleft()
                except IndexError:  # another lane took the last one
                    break
                settle(store, job, listener, stop, lane)
        finally:
            lane.close()

    def _check(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.spec.limits.seconds is not None or job.spec.limits.memory_mb is not None:
                raise UsageError(
                    "--isolation none makes runs in this very process, where no time or memory limit can be kept. Leave "
                    "the limits out, or use --isolation run."
                )
