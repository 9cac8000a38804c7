"""sfumato: decisions and optimisation under partial information.

Light names for a plugin's `plugin.py`; everything else is imported from its own module.
"""

from typing import TYPE_CHECKING, Any

from sfumato.records import (
    BackendSpec,
    CommandSpec,
    ComponentSpec,
    Finding,
    Metric,
    Refusal,
    ReportSection,
    Start,
    Step,
    Trace,
)

if TYPE_CHECKING:
    from sfumato.hookspecs import PLUGIN_API, hookimpl

__version__ = "0.1.0"
__all__ = [
    "PLUGIN_API",
    "BackendSpec",
    "CommandSpec",
    "ComponentSpec",
    "Finding",
    "Metric",
    "Refusal",
    "ReportSection",
    "Start",
    "Step",
    "Trace",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    """Import what stands on pluggy only for those who write a plugin: a worker starts without it."""
    if name in ("PLUGIN_API", "hookimpl"):
        from sfumato import hookspecs

        return getattr(hookspecs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
