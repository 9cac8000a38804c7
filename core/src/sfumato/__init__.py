"""sfumato: decisions and optimisation under partial information.

Light names for a plugin's `plugin.py`; everything else is imported from its own module.
"""

from sfumato.hookspecs import PLUGIN_API, hookimpl
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
