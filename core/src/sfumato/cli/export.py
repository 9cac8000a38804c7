"""`sfumato export`: the runs of a store as one table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sfumato.errors import UsageError
from sfumato.store import DEFAULT, Store


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
    """Write the runs of a store to one table, a row for each figure of each run."""
    from sfumato.export import FIGURE, ITEM, RUN, export, figures, items, write_csv

    store = Store(store_dir)
    filters = {"status": status, "task": task, "solver": solver}
    if output is None:
        rows, columns = (items(store, **filters), ITEM) if per_item else (figures(store, **filters), {**RUN, **FIGURE})
        write_csv(rows, list(columns), sys.stdout)
        return
    path = Path(output)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"-o wants a file that ends in .csv or .parquet, got {output!r}.")
    click.echo(f"{export(store, path, per_item, **filters)} rows: {path}", err=True)
