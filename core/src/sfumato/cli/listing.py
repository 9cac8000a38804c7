"""`sfumato list`: every component, without importing any implementation."""

from __future__ import annotations

import attrs
import click

from sfumato.cli.text import NO_PLUGIN, columns, json_line, said
from sfumato.plugins import BUILTIN, Registry

KINDS = ("task", "solver", "runtime", "evaluator")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="One component a line, as JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """Show every task, solver, runtime and evaluator that is installed."""
    registry = Registry()
    components = registry.components(kind)
    if as_json:
        for component in components:
            owner = registry.owner(component)
            json_line({**attrs.asdict(component), "distribution": owner.distribution, "distribution_version": owner.version})
        for finding in registry.all_findings():
            json_line({"kind": "finding", **attrs.asdict(finding)})
        return
    for each in KINDS:
        rows = [
            (f"  {c.name}", ",".join(b.name for b in c.backends) or "-", c.summary) for c in components if c.kind == each
        ]
        if rows:
            click.echo(f"{each}s")
            columns(rows)
    for finding in registry.all_findings():
        click.echo(f"{finding.level}: {finding.subject}: {said(finding)}", err=True)
    if registry.plugins.keys() == {BUILTIN}:
        click.echo(NO_PLUGIN, err=True)
