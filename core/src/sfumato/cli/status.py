"""`sfumato status`: the runs of a store and how they stand."""

from __future__ import annotations

from collections import Counter

import click

from sfumato import config
from sfumato.cli.text import columns, json_line
from sfumato.errors import StoreError
from sfumato.store import DEFAULT, Store


@click.command("status")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--json", "as_json", is_flag=True, help="One run record a line.")
def command(store_dir: str, as_json: bool) -> None:
    """Show the runs of a store and how they stand. A damaged record is named, and the others are shown."""
    store = Store(store_dir)
    counts: Counter[str] = Counter()
    rows = []
    damaged = []
    for run_id in store.ids():
        try:
            status = store.status(run_id)
            record = store.record(run_id)
        except StoreError as error:
            counts["damaged"] += 1
            damaged.append(str(error))
            rows.append((run_id, "damaged", "", str(error)))
            continue
        counts[status] += 1
        if as_json:
            json_line(config.unstructure(record) if record else {"run_id": run_id, "status": status})
        seconds = f"{record.timings.get('total_wall', 0.0):.1f} s" if record else ""
        rows.append((run_id, status, seconds, (record.label or record.error) if record else ""))
    if as_json:
        for text in damaged:
            json_line({"status": "damaged", "error": text})
    elif rows:
        columns(rows, head=("run", "status", "time", "what"))
        click.echo(", ".join(f"{n} {s}" for s, n in sorted(counts.items())))
    else:
        click.echo(f"no runs in {store.root}. 'sfumato run' makes some; --store DIR names another folder.", err=True)
    if damaged:
        click.get_current_context().exit(1)
