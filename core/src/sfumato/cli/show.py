"""`sfumato show RUN`: all that is known of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import click

from sfumato import config
from sfumato.cli.text import columns, folded, json_line
from sfumato.records import RunRecord, Status
from sfumato.store import DEFAULT, Store

STDERR_LINES = 30
MOST_NAMED = 6


@click.command("show")
@click.argument("run")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--rows", is_flag=True, help="Show the rows, one an episode, as JSON lines.")
@click.option("--json", "as_json", is_flag=True)
def command(run: str, store_dir: str, rows: bool, as_json: bool) -> None:
    """Show one run (any unambiguous beginning of its id): settings, figures, error, provenance."""
    store = Store(store_dir)
    run_id = store.find(run)
    if rows:
        for row in store.rows(run_id):
            json_line(row)
        return
    record = store.record(run_id)
    if record is None:
        owner = store.owner(run_id)
        state = {"run_id": run_id, "status": store.status(run_id), "owner": owner and {"host": owner.host, "pid": owner.pid}}
        json_line(state) if as_json else click.echo(f"{run_id}: {state['status']} (owner: {state['owner']})")
        return
    if as_json:
        json_line(config.unstructure(record))
        return
    from sfumato.cli.tables import figures_table

    spec = record.spec
    folded(f"run {run_id}  {record.status.value}  {record.label}")
    if record.error:
        folded(f"  {record.error}")
        folded(f"  {record.advice}")
    for kind, ref in (("task", spec.task), ("solver", spec.solver), ("runtime", spec.runtime)):
        folded(f"  {kind:7s}  {ref.name} v{ref.version}  {json.dumps(dict(ref.settings))}")
    backend = f"{spec.backend or 'numpy'} on {spec.device}"
    folded(f"  instances {spec.instances}, seed {spec.seed}, train seed {spec.train_seed}, {backend}")
    folded(f"  {record.started} to {record.ended}, attempt {record.attempt}, digest {record.digest[:16]}, promise {record.promise}, trace {record.trace}")
    if record.figures:
        figures_table([record])
        for line in _not_finite(store, record):
            folded(f"  {line}")
    columns((f"  {k}", f"{v:.4g} s") for k, v in sorted(record.timings.items()))
    for key, value in sorted(record.provenance.items()):
        folded(f"  {key}: {json.dumps(value)}")
    for earlier in store.earlier(run_id):
        folded(f"  attempt {earlier.attempt}: {earlier.status.value}: {earlier.error}")
    errors = store.folder(run_id) / "stderr.txt"
    if record.status is not Status.OK and errors.exists():
        lines = errors.read_text(errors="replace").splitlines()[-STDERR_LINES:]
        click.echo("\n".join(["error stream, last lines:", *(f"  {line}" for line in lines)]))


def _not_finite(store: Store, record: RunRecord) -> Iterator[str]:
    """Yield for each figure that values which are no finite numbers went into how many those are, and of which items."""
    from sfumato.stats import item_values

    for figure in record.figures:
        if not math.isfinite(figure.value + (figure.sd or 0.0)):  # a trimmed mean may be finite where values are not
            broken = [k for k, value in item_values(store.rows(record.run_id), figure.name) if not math.isfinite(value)]
            named = ", ".join(map(str, broken[:MOST_NAMED])) + (", …" if len(broken) > MOST_NAMED else "")
            if broken:
                yield f"{figure.name}: {len(broken)} of {figure.n} values not finite (item{'s' * (len(broken) > 1)} {named})"
