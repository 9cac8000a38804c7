"""Runs on a Ray cluster (extra `ray`): one that starts by itself on this machine, or an existing one (`--address`).

A Ray task holds the processors, GPUs and memory that the run declares and supervises the run's own process on its
node, so that limits, isolation and statuses are those of any other run. Ray keeps a task that no node can ever hold in
its queue without a word; here that is an error which names what is wanted and what the nodes have.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfumato.errors import BackendUnavailable, SfumatoError, UsageError
from sfumato.executors import Listener
from sfumato.executors.remote import absolute, cpus, gpus, memory_mb, watch, work
from sfumato.store import Store
from sfumato.supervisor import Isolation, Job

CONNECT_SECONDS = 5.0
LOST_NODE_SECONDS = 60.0
"""A run whose only fitting node has gone waits so long for another one."""
LOOK_SECONDS = 5.0
WAIT_OPTION = "node_wait_seconds"


class RayExecutor:
    """`n_jobs` processors in a cluster that starts by itself; in an existing one, as many runs at a time as fit.

    Options go to `ray.init`, but for `node_wait_seconds`: how long a run that no node can hold waits for one that can,
    where nodes join by themselves (0 by default; 60 once the sweep is under way).
    """

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
        wait = self.options.pop(WAIT_OPTION, 0)
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or wait < 0:
            raise UsageError(f"-x {WAIT_OPTION} wants a number of seconds, got {wait!r}. Example: -x {WAIT_OPTION}=300")
        self.node_wait = float(wait)

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None:
        """Run all jobs; those whose time is the result come last, each with a whole node to itself.

        Raises BackendUnavailable when no cluster answers or no node of it can hold a run.
        """
        if not jobs:
            return
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray, jobs)
        try:
            self._check(ray, jobs, stop)
            capacity = ray.cluster_resources()
            shared = [j for j in jobs if not j.exclusive]
            width = max(2 * int(capacity.get("CPU", 1)), 2)  # the next ones wait in Ray's queue, so that no node idles
            patience = max(self.node_wait, LOST_NODE_SECONDS)
            watch(store, shared, _Tasks(ray, store, self.isolation, patience), listener, stop, width)
            alone = [j for j in jobs if j.exclusive]
            watch(store, alone, _Tasks(ray, store, self.isolation, patience, whole_node=True), listener, stop, 1)
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any, jobs: Sequence[Job]) -> None:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            needed = max(math.ceil(cpus(j)) for j in jobs)
            ray.init(num_cpus=max(self.n_jobs, needed), **{**quiet, **self.options})
            return
        reach(self.address)
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **self.options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendUnavailable(
                f"no Ray cluster answers at {self.address!r}: {error}. Start one (ray start --head), or leave --address out."
            ) from error

    def _check(self, ray: Any, jobs: Sequence[Job], stop: threading.Event) -> None:
        deadline = time.monotonic() + self.node_wait
        while True:
            nodes = nodes_of(ray)
            homeless = [j for j in jobs if not fitting(wants(j), nodes)]
            if not homeless:
                return
            if time.monotonic() >= deadline:
                raise no_room(homeless[0], len(homeless), nodes)
            if stop.wait(min(LOOK_SECONDS, 0.5 + self.node_wait / 20)):
                return


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            "the executor 'ray' needs Ray, which is not installed. Install it: pip install 'sfumato[ray]'"
        ) from error
    return ray


def reach(address: str) -> None:
    """Raise BackendUnavailable when nothing that speaks as Ray does listens at an address: Ray itself would wait on."""
    if address in ("auto", "local"):
        return
    match = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^:/\[\]]+):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UsageError(
            f"--address for the executor 'ray' is HOST:PORT, ray://HOST:PORT or auto; got {address!r}. Example: "
            "--address 10.0.0.5:6379"
        )
    advice = "Start a cluster (ray start --head prints its address), or leave --address out for one that starts by itself."
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=CONNECT_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            # The first words of HTTP/2, which gRPC stands on, and an empty SETTINGS frame: the answer is one, too.
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            answer = line.recv(9)
    except OSError as error:
        why = "nothing answered" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise BackendUnavailable(
            f"no Ray cluster answers at {address!r} within {CONNECT_SECONDS:g} s: {why}. {advice}"
        ) from error
    if len(answer) < 4 or answer[3] != 4:
        raise BackendUnavailable(f"what answers at {address!r} is no Ray cluster: it speaks no gRPC. {advice}")


# ---------------------------------------------------------------------- what runs need and nodes have


def wants(job: Job) -> dict[str, float]:
    """Return what a run needs in Ray's words: CPU, GPU, memory (bytes)."""
    memory = memory_mb(job)
    found = {"CPU": cpus(job), "GPU": gpus(job), "memory": 0.0 if memory is None else memory * 1e6}
    return {name: amount for name, amount in found.items() if amount}


def nodes_of(ray: Any) -> list[dict[str, float]]:
    """Return what each living node has in all, busy or not."""
    return [{k: float(v) for k, v in node["Resources"].items()} for node in ray.nodes() if node["Alive"]]


def fitting(wanted: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Return the nodes that have all that is wanted."""
    return [node for node in nodes if all(node.get(name, 0.0) >= amount for name, amount in wanted.items())]


def no_room(job: Job, count: int, nodes: Sequence[Mapping[str, float]]) -> BackendUnavailable:
    """Return the error of runs that no node can hold."""
    wanted = wants(job)
    if wanted.get("GPU") and not any(node.get("GPU") for node in nodes):
        return BackendUnavailable("these runs need a GPU, and no node of this Ray cluster has one. Run with --device cpu.")
    have = sorted({_said(node) for node in nodes}) or ["no node is alive"]
    more = "" if count == 1 else f" (and {count - 1} more)"
    return BackendUnavailable(
        f"{job.label or job.run_id}{more} needs {_said(wanted)} on one node, and no node of this Ray cluster has that: they "
        f"have {'; '.join(have)}. Lower --threads or --memory-limit, or add a node; where nodes join by themselves, wait "
        f"for one with -x {WAIT_OPTION}=300."
    )


def _said(amounts: Mapping[str, float]) -> str:
    return f"{amounts.get('CPU', 0):g} CPU, {amounts.get('GPU', 0):g} GPU, {amounts.get('memory', 0) / 1e6:,.0f} MB"


class _Tasks:
    """Ray tasks, seen as a cluster to send work to."""

    poll_seconds = 0.2

    def __init__(
        self, ray: Any, store: Store, isolation: Isolation | None, patience: float, whole_node: bool = False
    ) -> None:
        self._ray = ray
        self._root = absolute(store)
        self._isolation = isolation
        self._patience = patience
        self._whole_node = whole_node
        self._jobs: dict[Any, Job] = {}
        self._homeless_since: dict[Any, float] = {}
        self._looked = time.monotonic()
        # Ray must not repeat a task by itself: the store counts attempts.
        self._work = ray.remote(max_retries=0)(work)

    def submit(self, jobs: Sequence[Job]) -> list[Any]:
        refs = []
        for job in jobs:
            wanted = wants(job)
            options: dict[str, Any] = {"num_gpus": wanted.get("GPU", 0), "name": job.label or job.run_id}
            options["num_cpus"] = self._all_cpus(wanted) if self._whole_node else wanted["CPU"]
            if "memory" in wanted:
                options["memory"] = int(wanted["memory"])
            ref = self._work.options(**options).remote(self._root, [job], self._isolation)
            self._jobs[ref] = job
            refs.append(ref)
        return refs

    def _all_cpus(self, wanted: Mapping[str, float]) -> float:
        """Return the processors of the largest node that can hold it: with those, it has the node to itself."""
        return max((node["CPU"] for node in fitting(wanted, nodes_of(self._ray))), default=wanted["CPU"])

    def ended(self, handles: Sequence[Any]) -> dict[Any, str]:
        done, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=self.poll_seconds)
        for ref in done:
            self._jobs.pop(ref, None)
            self._homeless_since.pop(ref, None)
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return {ref: self._trouble(ref) for ref in done}

    def _look(self) -> None:
        """Raise BackendUnavailable when a run has had no node that could hold it for too long."""
        self._looked = time.monotonic()
        nodes = nodes_of(self._ray)
        for ref, job in self._jobs.items():
            if fitting(wants(job), nodes):
                self._homeless_since.pop(ref, None)
            elif self._looked - self._homeless_since.setdefault(ref, self._looked) >= self._patience:
                raise no_room(job, len(self._homeless_since), nodes)

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
