"""Errors that say what was expected, what was got, and what to do. Each carries its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SfumatoError(Exception):
    """Raised for anything the user can mend; printed without a traceback."""

    exit_code = 2


class UsageError(SfumatoError):
    """Raised when a command or reference is wrong."""


class ConfigError(SfumatoError):
    """Raised when a setting is unknown, of the wrong type or out of range; names file, table and key."""


class UnknownName(UsageError):
    """Raised when a task, solver, runtime, evaluator, plugin or run is not known; suggests the nearest."""


class DataMissing(SfumatoError):
    """Raised when a data file is not where it was looked for; names the command that fetches it."""


class DataMismatch(SfumatoError):
    """Raised when a data file's SHA-256 is not the expected one."""


class BackendUnavailable(SfumatoError):
    """Raised when a component needs an array library or device that this machine lacks."""

    exit_code = 3


class Unsupported(SfumatoError):
    """Raised by `Solver.solve` where only then it shows that the task is not for it; the run ends as if `supports` had refused."""


class PluginError(SfumatoError):
    """Raised when a plugin cannot be used: import failure, duplicate name, API mismatch."""


class StoreError(SfumatoError):
    """Raised when the store cannot be read or written; nothing is lost."""


class ProtocolError(SfumatoError):
    """Raised when a component breaks a promise of the protocols: says which, and by which call."""

    exit_code = 1


def not_installed(plugin: str) -> str:
    """Return that there is no such plugin, and how plugins that keep to the usual name are installed."""
    folder = plugin.replace("-", "_")
    return f"no plugin {plugin!r} is installed (pip install sfumato-{plugin}, or from a checkout: pip install -e plugins/{folder})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean …?' for the nearest known names, or an empty string."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    if not near and "/" in name:
        tail = name.split("/", 1)[1]
        near = [k for k in known if k.endswith("/" + tail)][:2]
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
