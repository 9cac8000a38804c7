"""Runs on this machine, `n_jobs` at a time; runs whose time is the result go alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sfumato import supervisor
from sfumato.executors import Listener
from sfumato.store import Store
from sfumato.supervisor import Job

WAIT_SECONDS = 0.2


class LocalExecutor:
    """A thread for each run under way; each thread watches one child process."""

    def __init__(self, n_jobs: int = 1) -> None:
        self.n_jobs = n_jobs

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None:
        """Run all jobs; the first error of the store ends the sweep, the runs under way are finished cleanly."""
        shared = [j for j in jobs if not j.exclusive]
        alone = [j for j in jobs if j.exclusive]
        with ThreadPoolExecutor(self.n_jobs, thread_name_prefix="supervisor") as pool:
            futures = [pool.submit(one, store, job, listener, stop) for job in shared]
            try:
                for future in futures:
                    while not future.done():
                        time.sleep(0.02)  # keeps the main thread open to Ctrl-C
                    future.result()
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                raise
        for job in alone:
            one(store, job, listener, stop)


def one(store: Store, job: Job, listener: Listener, stop: threading.Event) -> None:
    """Claim and make one run; where another process holds the claim, wait for its record."""
    if stop.is_set():
        return
    store.write_spec(job.run_id, job.spec)
    while store.claim(job.run_id) is not None:
        if stop.is_set():
            return
        time.sleep(WAIT_SECONDS)
    try:
        record = store.record(job.run_id)
        if record is None or record.attempt < job.attempt:  # else another process made it while we waited
            if record is not None:
                store.set_aside(record)
            listener.started(job)
            record = supervisor.run(store, job, lambda f, m: listener.progress(job, f, m), stop)
        listener.finished(job, record)
    finally:
        store.release(job.run_id)
