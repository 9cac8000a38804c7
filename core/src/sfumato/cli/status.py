"""`sfumato status`: the runs of a store and how they stand."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache

import attrs
import click

from sfumato.cli.text import columns
from sfumato.index import Index, Summary
from sfumato.provenance import code_digest
from sfumato.store import DEFAULT, Store

STANDINGS = ("ok", "failed", "timeout", "killed", "unsupported", "interrupted", "running", "waiting", "damaged")


@click.command("status")
@click.option("--status", type=click.Choice(STANDINGS), help="Only runs that stand so.")
@click.option("--task", help="Only runs of this task.")
@click.option("--solver", help="Only runs of this solver.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the N that ended last.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(file_okay=False), envvar="SFUMATO_STORE")
@click.option("--json", "as_json", is_flag=True, help="One run record a line.")
def command(
    status: str | None, task: str | None, solver: str | None, last: int | None, store_dir: str, as_json: bool
) -> None:
    """Show the runs of a store and how they stand. A damaged record is named, and the others are shown.

    `stale`: made by code of its plugins that has changed since; running the experiment again does it anew.
    """
    store = Store(store_dir)
    with Index(store) as index:
        found = list(index.summaries(status=status, task=task, solver=solver))
        if last is not None:
            found = sorted(found, key=lambda s: s.ended)[-last:]
        if as_json:
            texts = index.texts({s.run_id for s in found})
            out = [texts.get(s.run_id) or json.dumps(_short(s), sort_keys=True) for s in found]
            if out:
                click.echo("\n".join(out))
        elif found:
            stale = [s for s in found if is_stale(s)]
            marks = {s.run_id for s in stale}
            columns(
                (
                    (
                        s.run_id,
                        s.status + (" stale" if s.run_id in marks else ""),
                        "" if s.wall is None else f"{s.wall:.1f} s",
                        s.error if s.status == "damaged" else s.label or s.error,
                    )
                    for s in found
                ),
                head=("run", "status", "time", "what"),
            )
            counts = Counter(s.status for s in found) + Counter({"stale": len(stale)})
            click.echo(", ".join(f"{n} {s}" for s, n in sorted(counts.items())))
        else:
            click.echo(f"no such runs in {store.root}. 'sfumato run' makes some; --store DIR names another folder.", err=True)
    if any(s.status == "damaged" for s in found):
        click.get_current_context().exit(1)


def _short(summary: Summary) -> dict[str, object]:
    return {k: v for k, v in attrs.asdict(summary).items() if v not in ("", None, {}, 0)}


def is_stale(summary: Summary) -> bool:
    """Return whether a finished run's code has changed; a package that is no longer installed tells nothing."""
    if summary.status not in ("ok", "unsupported"):
        return False
    now = {package: _digest(package) for package in summary.code}
    return any(now[p] and now[p] != then for p, then in summary.code.items())


@lru_cache(maxsize=64)
def _digest(package: str) -> str:
    try:
        return code_digest(package)
    except (ImportError, ValueError):
        return ""
