"""Runs on a Ray cluster (extra `ray`): one that starts by itself on this machine, or an existing one (`--address`).

A Ray task holds the processors, GPUs and memory that the run declares and supervises the run's own process on its
node, so that limits, isolation and statuses are those of any other run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.errors import BackendUnavailable, SfumatoError, UsageError
from sfumato.executors import Listener
from sfumato.executors.remote import absolute, cpus, gpus, memory_mb, watch, work
from sfumato.store import Store
from sfumato.supervisor import Isolation, Job


class RayExecutor:
    """`n_jobs` processors in a cluster that starts by itself; in an existing one, as many runs at a time as fit."""

    def __init__(
        self,
        n_jobs: int = 1,
        isolation: Isolation | None = None,
        address: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if isolation == "none":
            raise UsageError("--isolation none makes runs in this very process; with --executor ray use run or group.")
        self.n_jobs = n_jobs
        self.isolation = isolation
        self.address = address
        self.options = dict(options or {})

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None:
        """Run all jobs; those whose time is the result come last, each with a whole node to itself."""
        if not jobs:
            return
        try:
            import ray
        except ImportError as error:
            raise BackendUnavailable(
                "the executor 'ray' needs Ray, which is not installed. Install it: pip install 'sfumato[ray]'"
            ) from error
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray, jobs)
        try:
            capacity = ray.cluster_resources()
            self._check(jobs, capacity)
            shared = [j for j in jobs if not j.exclusive]
            width = max(2 * int(capacity.get("CPU", 1)), 2)  # the next ones wait in Ray's queue, so that no node idles
            watch(store, shared, _Tasks(ray, store, self.isolation), listener, stop, width)
            alone = [j for j in jobs if j.exclusive]
            whole = max(float(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
            watch(store, alone, _Tasks(ray, store, self.isolation, whole), listener, stop, 1)
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any, jobs: Sequence[Job]) -> None:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            needed = max(math.ceil(cpus(j)) for j in jobs)
            ray.init(num_cpus=max(self.n_jobs, needed), **{**quiet, **self.options})
            return
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **self.options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendUnavailable(
                f"no Ray cluster answers at {self.address!r}: {error}. Start one (ray start --head), or leave --address out."
            ) from error

    def _check(self, jobs: Sequence[Job], capacity: Mapping[str, float]) -> None:
        if any(gpus(j) for j in jobs) and not capacity.get("GPU"):
            raise BackendUnavailable("these runs need a GPU, and no node of this Ray cluster has one. Run with --device cpu.")


class _Tasks:
    """Ray tasks, seen as a cluster to send work to."""

    poll_seconds = 0.2

    def __init__(self, ray: Any, store: Store, isolation: Isolation | None, whole_node: float | None = None) -> None:
        self._ray = ray
        self._root = absolute(store)
        self._isolation = isolation
        self._cpus = whole_node
        # Ray must not repeat a task by itself: the store counts attempts.
        self._work = ray.remote(max_retries=0)(work)

    def submit(self, jobs: Sequence[Job]) -> list[Any]:
        refs = []
        for job in jobs:
            wants: dict[str, Any] = {"num_cpus": self._cpus or cpus(job), "num_gpus": gpus(job), "name": job.label or job.run_id}
            if (memory := memory_mb(job)) is not None:
                wants["memory"] = int(memory * 1e6)
            refs.append(self._work.options(**wants).remote(self._root, [job], self._isolation))
        return refs

    def ended(self, handles: Sequence[Any]) -> dict[Any, str]:
        done, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=self.poll_seconds)
        return {ref: self._trouble(ref) for ref in done}

    def _trouble(self, ref: Any) -> str:
        try:
            self._ray.get(ref)
        except SfumatoError as error:  # Ray wraps it in a class of its own, with a long text
            raise getattr(error, "cause", error) from None
        except Exception as error:  # a node or worker that died, a task that was cancelled, an error in our own code
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return ""

    def cancel(self, handles: Sequence[Any]) -> None:
        for ref in handles:
            self._ray.cancel(ref, force=False)
