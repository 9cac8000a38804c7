"""`sfumato check PLUGIN`: does a plugin keep the promises of the protocols?"""

from __future__ import annotations

import attrs
import click

from sfumato.cli.text import json_line


@click.command("check")
@click.argument("plugin")
@click.option("--promise", "promises", multiple=True, help="Check these promises alone.")
@click.option("--json", "as_json", is_flag=True, help="One promise a line, with its verdict and what was found.")
def command(plugin: str, promises: tuple[str, ...], as_json: bool) -> None:
    """Check a plugin, promise by promise: kept, broken, or not tried, with the reason. Exit status 1 when one is broken.

    `kept` means that it was put to the test, on as many components as could be; on which it could not is said as well.
    """
    from sfumato.errors import UnknownName, did_you_mean
    from sfumato.testing.promises import PROMISES, Subject

    for name in promises:
        if name not in PROMISES:
            raise UnknownName(f"no promise {name!r}.{did_you_mean(name, PROMISES)} There are: {', '.join(PROMISES)}.")
    subject = Subject(plugin)
    anything = False
    for name in promises or PROMISES:
        broken = list(PROMISES[name](subject))
        anything |= bool(broken)
        verdict = "broken" if broken else "kept" if subject.tried[name] else "not tried"
        reasons = subject.why_not(name)
        if as_json:
            found = [attrs.asdict(each) for each in broken]
            json_line({"promise": name, "verdict": verdict, "tried": subject.tried[name], "broken": found, "not_tried": reasons})
            continue
        click.echo(f"{verdict:9s} {name:20s} {(PROMISES[name].__doc__ or '').splitlines()[0]}")
        for each in broken:
            click.echo(f"          {each.call}: {each.found}\n          -> {each.mend}")
        for reason in reasons:
            click.echo(f"          not tried on {reason}" if verdict != "not tried" else f"          {reason}")
    if not as_json:
        for name, reason in subject.skipped.items():
            click.echo(f"not tried: {name}: {reason}", err=True)
    if anything:
        click.get_current_context().exit(1)
