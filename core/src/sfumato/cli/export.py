"""`sfumato export`: the runs of a store as one table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sfumato.errors import UsageError
from sfumato.store import DEFAULT, Store

SHOWN = 20
"""So many damaged runs are named."""


@click.command("export")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="FILE.csv or FILE.parquet; default: CSV to the output stream.")
@click.option("--items", "per_item", is_flag=True, help="A row for each metric of each instance, instead of each run.")
@click.option("--status", help="Only runs that ended so.")
@click.option("--task", help="Only runs of this task.")
@click.option("--solver", help="Only runs of this solver.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(file_okay=False), envvar="SFUMATO_STORE")
def command(
    output: str | None, per_item: bool, status: str | None, task: str | None, solver: str | None, store_dir: str
) -> None:
    """Write the runs of a store to one table, a row for each figure of each run.

    Runs whose record or rows are damaged are left out and named on the error stream; the exit status is then 1. In
    Parquet a seed of more than 64 bits turns the columns of seeds into text.
    """
    from sfumato.export import FIGURE, ITEM, RUN, damage, export, figures, items, write_csv

    store = Store(store_dir)
    filters = {"status": status, "task": task, "solver": solver}
    damaged: list[str] = []
    if output is None:
        damaged += damage(store)
        rows = items(store, damaged, **filters) if per_item else figures(store, **filters)
        write_csv(rows, list(ITEM if per_item else {**RUN, **FIGURE}), sys.stdout)
    else:
        path = Path(output)
        if path.suffix not in (".csv", ".parquet"):
            raise UsageError(f"-o wants a file that ends in .csv or .parquet, got {output!r}.")
        click.echo(f"{export(store, path, per_item, damaged, **filters)} rows: {path}", err=True)
    if damaged:
        runs = "1 run is" if len(damaged) == 1 else f"{len(damaged)} runs are"
        click.echo(f"{runs} damaged and left out:", err=True)
        for what in damaged[:SHOWN]:
            click.echo(f"  {what}", err=True)
        if len(damaged) > SHOWN:
            click.echo(f"  and {len(damaged) - SHOWN} more; 'sfumato status --status damaged' names them.", err=True)
        click.get_current_context().exit(1)
