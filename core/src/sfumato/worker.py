"""Runs, in a process of their own: `python -m sfumato.worker`, started and watched by a supervisor.

Reads the folders of the runs from its standard input, one a line; an empty line ends it. For each it reads `spec.json`
and `job.json`, drives the run, appends a row an episode to `rows.jsonl`, and puts `outcome.json` in place. It speaks
to its supervisor through the file descriptor that was its standard output: one JSON object a line. What components
print goes to the run's `stderr.txt`.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato.records import ComponentRef, RunSpec

Tell = Callable[[Mapping[str, Any]], None]
KEYBOARD = "interrupted from the keyboard"


def main() -> int:
    """Serve runs until told to end."""
    from sfumato import cgroups, guard, processes  # before anything is imported that might start threads

    gc.disable()  # importing makes much and drops little: collecting meanwhile costs a fourteenth of the start
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it is inherited, and nobody could wait for a child
    guardian = guard.guard()
    processes.adopt()
    if entrance := os.environ.pop(cgroups.CGROUP, ""):
        Path(entrance).write_text("0")
    faulthandler.enable()
    # Says where the run was stuck, even inside C code that never gives the GIL back; then the signal takes its course.
    faulthandler.register(signal.SIGTERM, chain=True)
    channel, requests = _take_streams()

    def tell(message: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError, ValueError):
            channel.write(json.dumps(message) + "\n")

    tell({"guardian": guardian})
    for line in iter(requests.readline, ""):
        if not line.strip():
            break
        folder = Path(json.loads(line)["folder"])
        errors = os.open(folder / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(errors, 2)
        os.dup2(errors, 1)
        os.close(errors)
        with same_folder():
            serve(folder, tell)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        tell({"done": folder.name})
    guard.dismiss(guardian)
    return 0


@contextmanager
def same_folder() -> Iterator[None]:
    """Come back to the working folder, whichever a component has gone to."""
    home = None
    with suppress(OSError):  # it was taken away
        home = os.open(".", os.O_RDONLY)
    try:
        yield
    finally:
        if home is not None:
            with suppress(OSError):
                os.fchdir(home)
            os.close(home)


def _take_streams() -> tuple[Any, Any]:
    """Return the channel to the supervisor and its requests; standard input is empty from here on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return channel, requests


def serve(folder: Path, tell: Tell) -> None:
    """Make the run of a folder and put its outcome there."""
    from sfumato import config
    from sfumato.records import RunSpec
    from sfumato.store import write_atomic

    path = folder / "spec.json"
    spec = config.structure(json.loads(path.read_text(encoding="utf-8")), RunSpec, where=str(path))
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    outcome = execute(folder, spec, job, tell)
    text = json.dumps(outcome, default=str)
    try:
        write_atomic(folder / "outcome.json", text, durable=False)  # the record will be durable
    except OSError as error:
        tell({"outcome": outcome | {"status": "interrupted", "error": f"the store cannot be written: {error.strerror}"}})


def execute(folder: Path, spec: RunSpec, job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Drive the run and return its outcome: status, error, timings, figures, digest, what it ran on."""
    from sfumato.errors import BackendUnavailable, SfumatoError, Unsupported
    from sfumato.records import Status

    outcome: dict[str, Any] = {"status": Status.OK, "error": "", "timings": {}, "digest": "", "promise": "bits"}
    began, cpu = time.perf_counter(), time.process_time()
    try:
        outcome |= _drive(folder, spec, job, tell)
    except KeyboardInterrupt:
        outcome |= {"status": Status.INTERRUPTED, "error": KEYBOARD}
    except SystemExit as error:
        _show_traceback()
        outcome |= {"status": Status.FAILED, "error": f"a component called sys.exit({error.code!r})"}
    except Unsupported as error:
        outcome |= {"status": Status.UNSUPPORTED, "error": str(error)}
    except Exception as error:
        _show_traceback()
        outcome |= {"status": Status.FAILED, "error": f"{type(error).__name__}: {error}"}
        if isinstance(error, OSError) and (trouble := _store_trouble(error, folder)):
            outcome |= {"status": Status.INTERRUPTED, "error": trouble}
        if isinstance(error, SfumatoError) and isinstance(error, BackendUnavailable):
            outcome["exit_code"] = error.exit_code
    outcome["timings"] = {
        **outcome["timings"],
        "total_wall": time.perf_counter() - began,
        "total_cpu": time.process_time() - cpu,
    }
    return outcome


def _show_traceback() -> None:
    """Print the traceback to the error stream, which lies in the store: where that is full, the outcome still gets out."""
    with suppress(OSError):
        traceback.print_exc()
        sys.stderr.flush()


def _store_trouble(error: OSError, folder: Path) -> str:
    """Return what is wrong with the store when it, and not the run, is to blame for an error of the disk."""
    from sfumato.store import STORE_TROUBLE

    if error.errno not in STORE_TROUBLE:
        return ""
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return f"the store cannot be written: {found.strerror or errno.errorcode.get(found.errno or 0, '')}"
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return ""


def _drive(folder: Path, spec: RunSpec, job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    from sfumato import stats
    from sfumato.context import ArtifactStore, RunContext
    from sfumato.driver import drive
    from sfumato.records import Status
    from sfumato.trace import TraceFile

    gc.enable()
    device = ""
    known = None
    if spec.backend is not None:
        from sfumato import backends

        device = backends.verify_device(_registry().find("solver", spec.solver.name), backends.Choice(spec.backend, spec.device))
        known = None if spec.device.startswith("cpu") else backends.backend(spec.backend)
    targets = job.get("targets", {})
    task = _build(targets, "task", spec.task)
    solver = _build(targets, "solver", spec.solver)
    runtime = _build(targets, "runtime", spec.runtime)
    evaluators = {ref.name: _build(targets, "evaluator", ref) for ref in spec.evaluators}
    refusal = solver.supports(task, runtime)
    if refusal is not None:
        return {"status": Status.UNSUPPORTED, "error": " ".join(filter(None, (refusal.reason, refusal.advice)))}

    last = [0.0]

    def progress(fraction: float, message: str) -> None:
        if fraction >= 1 or time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            tell({"progress": fraction, "message": message})

    ctx = RunContext(
        seed=spec.seed,
        train_seed=spec.train_seed,
        indices=spec.indices,
        batch_size=spec.batch,
        backend=spec.backend,
        device=spec.device,
        dtype=spec.dtype,
        n_threads=spec.threads,
        task={"name": spec.task.name, "version": spec.task.version, "settings": dict(spec.task.settings)},
        data_dir=Path(job["data_dir"]) if job.get("data_dir") else None,
        artifacts=ArtifactStore(Path(job["artifacts"]) if job.get("artifacts") else None),
        on_progress=progress,
    )
    trace_file = TraceFile(folder / "trace.zip", int(job.get("trace_limit", 64 << 20)))
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows:

        def on_row(row: dict[str, Any]) -> None:
            rows.write(json.dumps(row) + "\n")
            rows.flush()

        try:
            result = drive(
                task, solver, runtime, evaluators, ctx,
                level=spec.level, max_steps=spec.limits.steps, concurrency=spec.concurrency, trace_file=trace_file,
                on_row=on_row, synchronise=(lambda: known.synchronise(spec.device)) if known else None,
            )  # fmt: skip
        finally:
            with suppress(OSError):  # a full disk: what was raised first says more
                trace_file.close()
        os.fsync(rows.fileno())
    return {
        "timings": result.timings,
        "figures": list(_plain(stats.figures(result.rows))),
        "digest": result.digest,
        "promise": solver.replay_promise(),
        "trace": "complete" if trace_file.complete else "digest only: the trace passed the size limit",
        "device": device,
        "data": ctx.files_used,
        "code": ctx.code_used,
        "peak_mb": _peak_mb(),
    }


def _plain(figures: Any) -> Iterator[dict[str, Any]]:
    import attrs

    for figure in figures:
        yield attrs.asdict(figure)


def _peak_mb() -> float:
    """Return the largest resident size of this process so far, MB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


_REGISTRY: list[Any] = []


def _registry() -> Any:
    """Return the plugins of this process, read once: a warm worker serves many runs."""
    from sfumato.plugins import Registry

    if not _REGISTRY:
        _REGISTRY.append(Registry())
    return _REGISTRY[0]


def _build(targets: Mapping[str, Any], kind: str, ref: ComponentRef) -> Any:
    """Construct a component. Where the submitting process said what to import, plugins need not be discovered again."""
    from sfumato import config

    target, settings = targets.get(kind) or targets.get(f"{kind} {ref.name}") or (None, None)
    if target is None:
        from sfumato import plugins

        return plugins.build(_registry().find(kind, ref.name), ref.settings, config.structure)
    cls = _resolve(target)
    if settings is None:
        return cls()
    return cls(config.structure(ref.settings, _resolve(settings), where=f"{kind} {ref.name}"))


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        from sfumato import plugins

        return plugins.resolve(target)  # the same again, with an error that says what is missing


if __name__ == "__main__":
    sys.exit(main())
