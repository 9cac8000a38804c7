"""Measures one claim, in a process of its own: `python -m sfumato.measure CLAIM.json OUT.json`.

The claim's callable, or its task and solver through the driver, gives value, low, high, n and details; or why it could not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfumato import config, plugins, seeding, stats
from sfumato.errors import SfumatoError
from sfumato.ledger import How
from sfumato.provenance import provenance


class NotMeasured(Exception):
    """Raised when a claim's runs do not give its figure; the message says why, so that nobody needs the traceback."""


def measure(how: How, store: str, data_dir: str | None) -> dict[str, Any]:
    """Return what the claim's run gives: value, low, high, n, details."""
    if how.call is not None:
        return dict(plugins.resolve(how.call)(**how.settings))
    ours = values(how, how.solver or "", how.solver_settings, store, data_dir)
    if how.against is None:
        bounds = stats.interval(ours, "mean")
        return {"value": float(ours.mean()), "low": bounds and bounds[0], "high": bounds and bounds[1], "n": len(ours)}
    theirs = values(how, how.against, how.against_settings, store, data_dir)
    picks = seeding.stream(0, "bootstrap").integers(0, len(ours), (stats.N_RESAMPLES, len(ours)))
    if how.combine == "ratio":
        value, draws = ours.mean() / theirs.mean(), ours[picks].mean(axis=1) / theirs[picks].mean(axis=1)
    else:
        value, draws = ours.mean() - theirs.mean(), ours[picks].mean(axis=1) - theirs[picks].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975]) if len(ours) > 1 else (None, None)
    details = {how.solver or "": float(ours.mean()), how.against: float(theirs.mean())}
    return {"value": float(value), "low": low, "high": high, "n": len(ours), "details": details}


def values(how: How, solver: str, settings: Mapping[str, Any], store: str, data_dir: str | None) -> np.ndarray:
    """Return the metric's values by item, from runs of the store (made now if they are missing)."""
    import threading

    from sfumato.cli.tables import progress_listener
    from sfumato.executors import executor
    from sfumato.experiment import Experiment, Settings, Use
    from sfumato.records import Status
    from sfumato.runner import plan, sweep
    from sfumato.store import Store

    registry = plugins.Registry()
    experiment = Experiment(
        (Use(how.task or "", how.task_settings),),
        (Use(solver, settings),),
        (Use(how.runtime, how.runtime_settings),),
        config.structure({"seeds": how.seeds}, Settings, where="claim"),
    )
    place = Store(store)
    place.prepare()
    planned = plan(place, experiment.jobs(registry, data_dir), retry=frozenset(s.value for s in Status))
    with progress_listener(planned, registry, quiet=True) as listener:
        records = sweep(place, planned, executor("local", n_jobs=1), listener, threading.Event())
    found: list[float] = []
    for record in records:
        if record.status is not Status.OK:
            raise NotMeasured(f"{record.label}: {record.status.value}: {record.error}")
        for row in place.rows(record.run_id):
            for metric in row["metrics"]:
                if metric["name"] == how.metric:
                    found += metric["values"]
    if not found:
        names = sorted({f.name for r in records for f in r.figures})
        raise NotMeasured(f"{how.task} gave no metric {how.metric!r}; it gave {', '.join(names)}")
    return np.asarray(found, float)


def main() -> None:
    """Read the job, measure, write the answer."""
    job = json.loads(Path(sys.argv[1]).read_text())
    how = config.structure(job["run"], How, where="claim")
    try:
        answer = measure(how, job["store"], job["data_dir"])
    except NotMeasured as error:
        answer = {"failed": str(error)}
    except SfumatoError as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    answer["provenance"] = provenance()
    Path(sys.argv[2]).write_text(json.dumps(answer, default=lambda v: v.item() if hasattr(v, "item") else str(v)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
