"""Discovery in three tiers: metadata, the plugin's light module, the implementation in the worker that needs it.

A plugin that cannot be loaded is a finding, never a crash.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import attrs
import pluggy

from sfumato import hookspecs
from sfumato.errors import PluginError, UnknownName, did_you_mean, not_installed
from sfumato.records import CommandSpec, ComponentSpec, Finding

GROUP = "sfumato"
BUILTIN = "sfumato"


@attrs.define
class Plugin:
    """One installed plugin, loaded or not."""

    name: str
    distribution: str
    version: str
    module: str
    components: dict[tuple[str, str], ComponentSpec] = attrs.field(factory=dict)
    findings: list[Finding] = attrs.field(factory=list)
    loaded: bool = False


def disabled() -> frozenset[str]:
    """Return the plugin names that SFUMATO_DISABLE blocks (comma separated)."""
    names = os.environ.get("SFUMATO_DISABLE", "").split(",")
    return frozenset(n.strip() for n in names if n.strip())


@cache
def reserved() -> Mapping[str, str]:
    """Return the prefixes of the core's own components, each with one that has it: no plugin may be called so."""
    from sfumato.builtin import sfumato_components

    return {BUILTIN: BUILTIN, **{spec.name.partition("/")[0]: spec.name for spec in sfumato_components()}}


class Registry:
    """All installed plugins and what they offer.

    Loading is by name: asking for `ofs/compas` imports the light module of `ofs` alone.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self.findings: list[Finding] = []
        self.plugins: dict[str, Plugin] = {}
        self._manager = pluggy.PluginManager("sfumato")
        self._manager.add_hookspecs(hookspecs)
        if os.environ.get("SFUMATO_TRACE", "") not in ("", "0"):
            self._manager.trace.root.setwriter(sys.stderr.write)
            self._manager.enable_tracing()
        self._blocked = disabled()
        self._points: dict[str, EntryPoint] = {}
        self._read_metadata(entry_points(group=GROUP) if points is None else points)

    # ------------------------------------------------------------------ tier 1: metadata

    def _read_metadata(self, points: Iterable[EntryPoint]) -> None:
        self.plugins[BUILTIN] = Plugin(BUILTIN, "sfumato", _core_version(), "sfumato.builtin")
        owners: dict[str, str] = {}
        for point in sorted(set(points), key=lambda p: (p.name, _distribution(p)[0])):
            distribution, version = _distribution(point)
            if point.name in self._blocked:
                self.findings.append(
                    Finding("warning", point.name, "blocked by SFUMATO_DISABLE", "Unset SFUMATO_DISABLE to use it.")
                )
                continue
            if point.name in reserved():
                self.findings.append(
                    Finding(
                        "error",
                        point.name,
                        f"{distribution!r} offers a plugin named {point.name!r}, a name of the core's own "
                        f"({reserved()[point.name]!r}); it is not used, and the core's components stay",
                        "Give its entry point another name, and its components that prefix, or uninstall it: pip uninstall "
                        f"{distribution}.",
                    )
                )
                continue
            if point.name in owners and owners[point.name] != distribution:
                self.plugins.pop(point.name, None)
                self._points.pop(point.name, None)
                self.findings.append(
                    Finding(
                        "error",
                        point.name,
                        f"the plugin name {point.name!r} is claimed by two distributions, {owners[point.name]!r} "
                        f"and {distribution!r}; neither is used",
                        f"Uninstall one of them: pip uninstall {owners[point.name]} or pip uninstall {distribution}.",
                    )
                )
                continue
            owners.setdefault(point.name, distribution)
            self._points[point.name] = point
            self.plugins[point.name] = Plugin(point.name, distribution, version, point.value)

    # ------------------------------------------------------------------ tier 2: the light module

    def spelled(self, name: str) -> str:
        """Return a plugin's name as it is registered: `runtime_stateless`, as its folder is called, has a dash there."""
        return dashed if name not in self.plugins and (dashed := name.replace("_", "-")) in self.plugins else name

    def load(self, name: str) -> Plugin | None:
        """Import the light module of one plugin, once; return None when no such plugin is installed."""
        plugin = self.plugins.get(name)
        if plugin is None or plugin.loaded:
            return plugin
        plugin.loaded = True
        point = self._points.get(name)
        try:
            module: ModuleType = import_module(plugin.module) if point is None else point.load()
        except (Exception, SystemExit) as error:  # an import may raise anything; that is its finding, not our crash
            self._complain(plugin, f"cannot be imported: {type(error).__name__}: {error}", _reinstall(plugin))
            return plugin
        api = getattr(module, "PLUGIN_API", None)
        if api != hookspecs.PLUGIN_API:
            self._complain(
                plugin,
                f"was written for plugin API {api!r}, this sfumato speaks {hookspecs.PLUGIN_API}",
                f"Upgrade both: pip install -U sfumato {plugin.distribution}.",
            )
            return plugin
        try:
            self._manager.register(module, name)
        except pluggy.PluginValidationError as error:
            self._complain(plugin, f"has a hook that does not fit: {error}", "Compare it with sfumato/hookspecs.py.")
            return plugin
        self._warn_of_unknown_hooks(plugin, module)
        for spec in self._guarded(plugin, "sfumato_components"):
            if isinstance(spec, ComponentSpec):
                self._add(plugin, spec)
            else:
                self._complain(plugin, f"sfumato_components yielded {spec!r}, expected a ComponentSpec", _reinstall(plugin))
        return plugin

    def _warn_of_unknown_hooks(self, plugin: Plugin, module: ModuleType) -> None:
        known = {n for n in vars(hookspecs) if n.startswith("sfumato_")}
        for name, thing in vars(module).items():
            if getattr(thing, "sfumato_impl", None) is not None and name not in known:
                plugin.findings.append(
                    Finding("warning", plugin.name, f"implements a hook {name!r} that this sfumato does not have")
                )

    def _add(self, plugin: Plugin, spec: ComponentSpec) -> None:
        key = (spec.kind, spec.name)
        prefix = spec.name.partition("/")[0]
        if plugin.name != BUILTIN and prefix in reserved():
            self._complain(plugin, f"offers the {spec.kind} {spec.name!r} under a name of the core's own", "Rename it.")
            return
        if prefix in self.plugins and prefix != plugin.name and prefix in self._points:
            # It could only be found after that plugin, and might take the name of one of its components.
            self._complain(plugin, f"offers the {spec.kind} {spec.name!r} under the name of plugin {prefix!r}", "Rename it.")
            return
        for other in self.plugins.values():
            if key in other.components:
                self._complain(
                    plugin,
                    f"offers the {spec.kind} {spec.name!r}, which {other.distribution!r} offers already; neither is used",
                    f"Uninstall {plugin.distribution} or {other.distribution}.",
                )
                del other.components[key]
                return
        plugin.components[key] = spec

    def _guarded(self, plugin: Plugin, hook: str, **kwargs: Any) -> Iterator[Any]:
        """Yield what one plugin's hook yields; an exception becomes that plugin's finding."""
        others = [p for n, p in self._manager.list_name_plugin() if n != plugin.name and p is not None]
        caller = self._manager.subset_hook_caller(hook, others)
        try:
            for result in caller(**kwargs):
                yield from result or ()
        except Exception as error:
            self._complain(plugin, f"{hook} raised {type(error).__name__}: {error}", _reinstall(plugin))

    def _complain(self, plugin: Plugin, message: str, advice: str) -> None:
        plugin.findings.append(Finding("error", plugin.name, message, advice))

    def load_all(self) -> None:
        """Import every plugin's light module."""
        for name in list(self.plugins):
            self.load(name)

    # ------------------------------------------------------------------ queries

    def components(self, kind: str | None = None) -> list[ComponentSpec]:
        """Return every offer, of one kind or all, by kind and name."""
        self.load_all()
        found = [c for p in self.plugins.values() for c in p.components.values() if kind in (None, c.kind)]
        return sorted(found, key=lambda c: (c.kind, c.name))

    def owner(self, spec: ComponentSpec) -> Plugin:
        """Return the plugin that offers a component."""
        return next(p for p in self.plugins.values() if p.components.get((spec.kind, spec.name)) == spec)

    def find(self, kind: str, name: str) -> ComponentSpec:
        """Return the component; raises UnknownName with the nearest names, or with how a plugin that is absent is
        installed, and PluginError when its plugin is broken.
        """
        prefix = name.split("/", 1)[0]
        for owner in (BUILTIN, prefix):
            plugin = self.load(owner)
            if plugin and (kind, name) in plugin.components:
                return plugin.components[kind, name]
        plugin = self.plugins.get(prefix)
        if plugin and any(f.level == "error" for f in plugin.findings):
            finding = next(f for f in plugin.findings if f.level == "error")
            raise PluginError(f"the {kind} {name!r} is not to be had: plugin {prefix!r} {finding.message}. {finding.advice}")
        for finding in self.findings:
            if finding.subject == prefix and finding.level == "error":
                raise PluginError(f"the {kind} {name!r} is not to be had: {finding.message}. {finding.advice}")
        if prefix in self._blocked:
            raise PluginError(f"the {kind} {name!r} belongs to plugin {prefix!r}, which SFUMATO_DISABLE blocks. Unset it.")
        # A plugin may offer a component under another prefix; look everywhere before giving up.
        known = [c.name for c in self.components(kind)]
        for component in self.components(kind):
            if component.name == name:
                return component
        prefixes = {*self.plugins, *(c.name.partition("/")[0] for c in self.components())}
        if "/" in name and prefix not in prefixes:
            near = get_close_matches(prefix, prefixes, n=1)
            hint = did_you_mean(name, [k for k in known if k.partition("/")[0] in near])
            raise UnknownName(f"no {kind} {name!r}: {not_installed(prefix)}.{hint} 'sfumato list' shows what there is.")
        elsewhere = [c.kind for c in self.components() if c.name == name]
        hint = f" There is a {elsewhere[0]} of that name." if elsewhere else did_you_mean(name, known)
        raise UnknownName(f"no {kind} named {name!r} is installed.{hint} 'sfumato list' shows all.")

    def plugin_commands(self, name: str) -> list[CommandSpec]:
        """Return the commands of one plugin."""
        plugin = self.load(name)
        return list(self._guarded(plugin, "sfumato_commands")) if plugin else []

    def hook(self, name: str, **kwargs: Any) -> list[tuple[str, Any]]:
        """Call a hook in every plugin, each guarded; return (plugin, item) pairs."""
        self.load_all()
        return [(p.name, item) for p in list(self.plugins.values()) for item in self._guarded(p, name, **kwargs)]

    def all_findings(self) -> list[Finding]:
        """Return what is wrong with the installed plugins."""
        self.load_all()
        return self.findings + [f for p in self.plugins.values() for f in p.findings]


# ---------------------------------------------------------------------- tier 3: the implementation


def resolve(target: str) -> Any:
    """Import `module:name`; raises PluginError saying which part is missing."""
    module_name, _, attribute = target.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise PluginError(
            f"cannot import {module_name!r} (wanted for {target!r}): {error}. Install what is missing, or run "
            "'sfumato doctor'."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise PluginError(f"module {module_name!r} has no {attribute!r} (wanted for {target!r}).") from error


def build(spec: ComponentSpec, settings: Mapping[str, Any], structure: Callable[..., Any]) -> Any:
    """Construct a component from its settings: `Target(config)`, or `Target()` when it declares no config."""
    target = resolve(spec.target)
    if spec.config is None:
        if settings:
            raise PluginError(f"{spec.kind} {spec.name!r} takes no settings, got {', '.join(map(repr, settings))}.")
        return target()
    return target(structure(settings, resolve(spec.config), where=f"{spec.kind} {spec.name}"))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    dist = getattr(point, "dist", None)
    return (dist.name, dist.version) if dist is not None else ("unknown", "?")


def _core_version() -> str:
    from sfumato import __version__

    return __version__


def _reinstall(plugin: Plugin) -> str:
    return f"Reinstall it (pip install --force-reinstall {plugin.distribution}) or block it (SFUMATO_DISABLE={plugin.name})."
