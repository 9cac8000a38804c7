"""`sfumato info NAME`: one component, its settings with defaults, its backends and source."""

from __future__ import annotations

from typing import Any

import attrs
import click

from sfumato import backends, plugins
from sfumato.cli.text import columns, json_line
from sfumato.errors import UnknownName, did_you_mean


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True)
def command(name: str, as_json: bool) -> None:
    """Show one component or plugin: what it is, its settings, backends and source."""
    registry = plugins.Registry()
    found = [c for c in registry.components() if c.name == name]
    if not found and name in registry.plugins:
        found = list(registry.plugins[name].components.values())
    if not found:
        known = [c.name for c in registry.components()] + list(registry.plugins)
        raise UnknownName(f"nothing named {name!r} is installed.{did_you_mean(name, known)} 'sfumato list' shows all.")
    for component in found:
        owner = registry.owner(component)
        settings = _settings(component.config)
        if as_json:
            json_line({**attrs.asdict(component), "settings": settings, "distribution": owner.distribution})
            continue
        click.echo(f"{component.kind} {component.name} (version {component.version}, {owner.distribution} {owner.version})")
        click.echo(f"  {component.summary}")
        if component.source:
            click.echo(f"  source: {component.source}")
        for spec in component.backends:
            absent = backends.missing(spec)
            state = f"missing {', '.join(absent)}" if absent else "installed"
            click.echo(f"  backend {spec.name} on {', '.join(spec.devices)}: {state}")
        if component.evaluators:
            click.echo(f"  scored by: {', '.join(component.evaluators)}")
        if settings:
            click.echo("  settings:")
            columns((f"    {s['name']}", s["type"], f"{s['default']}", s["help"]) for s in settings)


def _settings(target: str | None) -> list[dict[str, Any]]:
    if target is None:
        return []
    rows = []
    for field in attrs.fields(plugins.resolve(target)):
        default: Any = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory() if not default.takes_self else "(computed)"
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        rows.append(
            {"name": field.name, "type": str(kind), "default": default, "help": str(field.metadata.get("help", ""))}
        )
    return rows
