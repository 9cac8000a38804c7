"""`sfumato report -o DIR`: pages that open from disk."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.store import DEFAULT, Store


@click.command("report")
@click.option("-o", "--output", "out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), envvar="SFUMATO_DATA", help="Where data files lie.")
@click.option("--overwrite", is_flag=True, help="Replace a report that is there already.")
def command(out: Path, store_dir: str, data_dir: Path | None, overwrite: bool) -> None:
    """Write a self-contained HTML report of a store: tables, plots, a page a run."""
    from sfumato.report.site import build

    start, count = build(Store(store_dir), out, overwrite=overwrite, data_dir=data_dir)
    click.echo(start)
    click.echo(f"{count} runs", err=True)
