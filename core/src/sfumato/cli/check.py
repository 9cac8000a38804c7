"""`sfumato check PLUGIN`: does a plugin keep the promises of the protocols?"""

from __future__ import annotations

import attrs
import click

from sfumato.cli.text import json_line


@click.command("check")
@click.argument("plugin")
@click.option("--promise", "promises", multiple=True, help="Check these promises alone.")
@click.option("--json", "as_json", is_flag=True, help="One finding a line.")
def command(plugin: str, promises: tuple[str, ...], as_json: bool) -> None:
    """Check a plugin, promise by promise. Exit status 1 when one is broken."""
    from sfumato.errors import UnknownName, did_you_mean
    from sfumato.testing.promises import PROMISES, Subject

    for name in promises:
        if name not in PROMISES:
            raise UnknownName(f"no promise {name!r}.{did_you_mean(name, PROMISES)} There are: {', '.join(PROMISES)}.")
    subject = Subject(plugin)
    found = []
    for name in promises or PROMISES:
        broken = list(PROMISES[name](subject))
        found += broken
        if not as_json:
            click.echo(f"{'broken' if broken else 'kept':7s} {name:20s} {(PROMISES[name].__doc__ or '').splitlines()[0]}")
            for each in broken:
                click.echo(f"        {each.call}: {each.found}\n        -> {each.mend}")
    if as_json:
        for each in found:
            json_line(attrs.asdict(each))
    else:
        for name, reason in subject.skipped.items():
            click.echo(f"not tried: {name}: {reason}", err=True)
    if found:
        click.get_current_context().exit(1)
