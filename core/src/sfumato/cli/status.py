"""`sfumato status`: the runs of a store and how they stand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import attrs
import click

from sfumato.cli.text import columns, folded, json_text
from sfumato.index import Index, Summary
from sfumato.staleness import Staleness
from sfumato.store import DEFAULT, Store

STANDINGS = ("ok", "failed", "timeout", "killed", "unsupported", "interrupted", "running", "waiting", "damaged")


@click.command("status")
@click.option("--status", type=click.Choice(STANDINGS), help="Only runs that stand so.")
@click.option("--task", help="Only runs of this task.")
@click.option("--solver", help="Only runs of this solver.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the N that ended last.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(file_okay=False), envvar="SFUMATO_STORE")
@click.option("--data-dir", type=click.Path(file_okay=False), envvar="SFUMATO_DATA", help="Where data files lie.")
@click.option("--json", "as_json", is_flag=True, help="One run record a line; a stale one says why.")
def command(
    status: str | None,
    task: str | None,
    solver: str | None,
    last: int | None,
    store_dir: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Show the runs of a store and how they stand. A damaged record is named, and the others are shown.

    `stale`: the code of its plugins or a data file that it read has changed since, as said below the table; running
    the experiment again does it anew.
    """
    store = Store(store_dir)
    with Index(store) as index:
        found = list(index.summaries(status=status, task=task, solver=solver))
        if last is not None:
            found = sorted(found, key=lambda s: s.ended)[-last:]
        if as_json:
            texts = index.texts({s.run_id for s in found})
            teller = Staleness(index, data_dir)
            out = [_marked(_valid(texts.get(s.run_id) or json_text(_short(s))), teller.because(s)) for s in found]
            if out:
                click.echo("\n".join(out))
        elif found:
            teller = Staleness(index, data_dir)
            stale = {s.run_id: because for s in found if (because := teller.because(s))}
            columns(
                (
                    (
                        s.run_id,
                        s.status + (" stale" if s.run_id in stale else ""),
                        "" if s.wall is None else f"{s.wall:.1f} s",
                        s.error if s.status == "damaged" else s.label or s.error,
                    )
                    for s in found
                ),
                head=("run", "status", "time", "what"),
            )
            counts = Counter(s.status for s in found) + Counter({"stale": len(stale)})
            folded(", ".join(f"{n} {s}" for s, n in sorted(counts.items())))
            for because, n in Counter(stale.values()).most_common():
                folded(f"stale, {n} of them: {because}")
        else:
            click.echo(f"no such runs in {store.root}. 'sfumato run' makes some; --store DIR names another folder.", err=True)
    if any(s.status == "damaged" for s in found):
        click.get_current_context().exit(1)


def _valid(text: str) -> str:
    """Return a record's text without the words NaN and Infinity, which are no JSON."""
    return json_text(json.loads(text)) if "NaN" in text or "Infinity" in text else text


def _marked(text: str, because: str) -> str:
    """Return a record's text with the reason why it is stale, as `stale`, where it is."""
    return f'{text.rstrip()[:-1]}, "stale": {json.dumps(because)}}}' if because else text


def _short(summary: Summary) -> dict[str, object]:
    plain = {f.name: getattr(summary, f.name) for f in attrs.fields(Summary)}
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in plain.items() if v}
