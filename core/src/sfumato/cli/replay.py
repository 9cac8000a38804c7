"""`sfumato replay RUN`: prove that a run comes out again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
import click

from sfumato.cli.text import json_line
from sfumato.store import DEFAULT, Store


def _say_why(fraction: float, message: str) -> None:
    """Tell what is waited for; how far the run has come is not shown."""
    if message.startswith("waits"):
        click.echo(f"the replay {message}", err=True)


@click.command("replay")
@click.argument("run")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(file_okay=False), envvar="SFUMATO_STORE")
@click.option("--data-dir", type=click.Path(file_okay=False), envvar="SFUMATO_DATA", help="Where data files lie.")
@click.option("--rtol", type=click.FloatRange(0), default=1e-4, show_default=True, help="For the promise 'tolerance'.")
@click.option("--atol", type=click.FloatRange(0), default=1e-6, show_default=True, help="For the promise 'tolerance'.")
@click.option("--json", "as_json", is_flag=True)
def command(run: str, store_dir: str, data_dir: str | None, rtol: float, atol: float, as_json: bool) -> None:
    """Run a finished run again and compare the traces. The store is left as it is.

    Where bits cannot be promised, the solver says `tolerance` or `statistical`, and that is checked instead. Exit
    status 0 when the promise is kept, 1 when it is not or when it cannot be told.
    """
    from sfumato.replay import replay

    store = Store(store_dir)
    with tempfile.TemporaryDirectory(prefix="sfumato-replay-") as scratch:
        result = replay(
            store, store.find(run), Path(scratch), data_dir=data_dir, rtol=rtol, atol=atol, on_progress=_say_why
        )
    if as_json:
        json_line(attrs.asdict(result))
    else:
        verdict = {True: "kept", False: "broken", None: "undecided"}[result.kept]
        click.echo(f"{result.run_id}: promise '{result.promise}' {verdict}: {result.found}")
        for line in result.differences:
            click.echo(f"  {line}")
    for line in result.warnings:
        click.echo(f"note: {line}", err=True)
    if not result.kept:
        click.get_current_context().exit(1)
