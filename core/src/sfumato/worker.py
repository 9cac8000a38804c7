"""One run, in a process of its own: `python -m sfumato.worker FOLDER`.

Reads `spec.json` and `job.json`, drives the run, appends a row an episode to `rows.jsonl`, and puts `outcome.json` in
place. Speaks to its supervisor through the file descriptor that was its standard output: one JSON object a line.
What components print goes to the error stream.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato import backends, config, plugins
from sfumato.errors import BackendUnavailable, SfumatoError
from sfumato.records import ComponentRef, RunSpec, Status


def main(argv: list[str] | None = None) -> int:
    """Run the folder named on the command line; the exit status is 0 whenever an outcome was written."""
    folder = Path((argv or sys.argv[1:])[0])
    channel = _take_stdout()
    spec = config.structure(json.loads((folder / "spec.json").read_text()), RunSpec, where=str(folder / "spec.json"))
    job = json.loads((folder / "job.json").read_text())
    outcome = execute(folder, spec, job, channel)
    from sfumato.store import write_atomic

    write_atomic(folder / "outcome.json", json.dumps(outcome, indent=1, default=str))
    return 0


def _take_stdout() -> Any:
    """Return the channel to the supervisor; from here on, fd 1 is the error stream."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return channel


def execute(folder: Path, spec: RunSpec, job: Mapping[str, Any], channel: Any) -> dict[str, Any]:
    """Drive the run and return its outcome: status, error, timings, digest, provenance."""
    outcome: dict[str, Any] = {"status": Status.OK, "error": "", "timings": {}, "digest": "", "promise": "bits"}
    began = time.perf_counter()
    try:
        outcome |= _drive(folder, spec, job, channel)
    except SfumatoError as error:
        outcome |= {"status": Status.FAILED, "error": f"{type(error).__name__}: {error}"}
        if isinstance(error, BackendUnavailable):
            outcome["exit_code"] = error.exit_code
        traceback.print_exc()
    except KeyboardInterrupt:
        outcome |= {"status": Status.INTERRUPTED, "error": "interrupted from the keyboard"}
    except Exception as error:
        traceback.print_exc()
        outcome |= {"status": Status.FAILED, "error": f"{type(error).__name__}: {error}"}
    outcome["timings"] = {**outcome["timings"], "total_wall": time.perf_counter() - began, "total_cpu": time.process_time()}
    return outcome


def _drive(folder: Path, spec: RunSpec, job: Mapping[str, Any], channel: Any) -> dict[str, Any]:
    # Heavy imports are the run's own, not the supervisor's.
    from sfumato.context import ArtifactStore, RunContext
    from sfumato.driver import drive
    from sfumato.provenance import provenance
    from sfumato.trace import TraceFile

    registry = plugins.Registry()
    solver_spec = registry.find("solver", spec.solver.name)
    device = ""
    if spec.backend is not None:
        device = backends.verify_device(solver_spec, backends.Choice(spec.backend, spec.device))
    task = _build(registry, "task", spec.task)
    solver = _build(registry, "solver", spec.solver)
    runtime = _build(registry, "runtime", spec.runtime)
    evaluators = {ref.name: _build(registry, "evaluator", ref) for ref in spec.evaluators}
    refusal = solver.supports(task, runtime)
    if refusal is not None:
        return {"status": Status.UNSUPPORTED, "error": " ".join(filter(None, (refusal.reason, refusal.advice)))}

    last = [0.0]

    def tell(fraction: float, message: str) -> None:
        if fraction >= 1 or time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            _say(channel, {"progress": fraction, "message": message})

    ctx = RunContext(
        seed=spec.seed,
        train_seed=spec.train_seed,
        indices=spec.indices,
        batch_size=spec.batch,
        backend=spec.backend,
        device=spec.device,
        dtype=spec.dtype,
        n_threads=spec.threads,
        data_dir=Path(job["data_dir"]) if job.get("data_dir") else None,
        artifacts=ArtifactStore(Path(job["artifacts"]) if job.get("artifacts") else None),
        on_progress=tell,
    )
    known = backends.backend(spec.backend) if spec.backend and not spec.device.startswith("cpu") else None
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
            trace_file.close()
        os.fsync(rows.fileno())
    return {
        "timings": result.timings,
        "digest": result.digest,
        "promise": solver.replay_promise(),
        "trace": "complete" if trace_file.complete else "digest only: the trace passed the size limit",
        "provenance": provenance(device, ctx.files_used),
    }


def _build(registry: plugins.Registry, kind: str, ref: ComponentRef) -> Any:
    return plugins.build(registry.find(kind, ref.name), ref.settings, config.structure)


def _say(channel: Any, message: Mapping[str, Any]) -> None:
    try:
        channel.write(json.dumps(message) + "\n")
    except (BrokenPipeError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main())
