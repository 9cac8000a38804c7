"""`sfumato doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, entry_points, version

import attrs
import click

from sfumato import backends, plugins
from sfumato.cli.text import columns, json_line, said
from sfumato.records import Finding


@click.command("doctor")
@click.argument("plugin", required=False)
@click.option("--json", "as_json", is_flag=True)
@click.option("--devices/--no-devices", default=True, help="Import the installed array libraries to see their devices.")
def command(plugin: str | None, as_json: bool, devices: bool) -> None:
    """Check plugins, backends, devices and data. Exit status 1 when anything is in error."""
    registry = plugins.Registry()
    plugin = plugin and registry.spelled(plugin)
    if plugin is not None and registry.load(plugin) is None:
        from sfumato.errors import UnknownName, did_you_mean

        blocked = [f for f in registry.findings if f.subject == plugin]
        if not blocked:
            raise UnknownName(f"no plugin {plugin!r} is installed.{did_you_mean(plugin, registry.plugins)}")
    findings = [f for f in _findings(registry, devices) if plugin is None or f.subject.split("/")[0] == plugin]
    if as_json:
        for finding in findings:
            json_line(attrs.asdict(finding))
    else:
        columns((f.level, f.subject, said(f)) for f in findings)
    if any(f.level == "error" for f in findings):
        click.get_current_context().exit(1)


def _findings(registry: plugins.Registry, devices: bool) -> list[Finding]:
    found = [Finding("ok", "python", sys.version.split()[0])]
    for point in entry_points(group=backends.GROUP):
        known = backends.backend(point.name)
        if known is None:
            continue
        try:
            seen = version(known.distributions[0])
        except PackageNotFoundError:
            found.append(Finding("ok", point.name, "not installed: components that need it say so when run"))
            continue
        if not devices:
            found.append(Finding("ok", point.name, seen))
            continue
        try:
            listed = ", ".join(f"{device} ({what})" for device, what in known.devices().items())
            found.append(Finding("ok", point.name, f"{seen}: {listed}"))
        except Exception as error:  # a broken library may raise anything
            found.append(Finding("error", point.name, f"{seen} cannot be used: {error}", "Reinstall it."))
    broken = registry.all_findings()
    bad = {f.subject for f in broken if f.level == "error"}
    for name, plugin in sorted(registry.plugins.items()):
        if name not in bad:
            found.append(Finding("ok", name, f"{plugin.distribution} {plugin.version}: {len(plugin.components)} components"))
    found.extend(broken)
    found.extend(item for _, item in registry.hook("sfumato_doctor"))
    return found
