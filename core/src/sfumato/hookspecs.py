"""Every hook, on one page. A plugin implements those it needs; all are called once per process, on demand.

An entry point in group `sfumato` names a light module holding `@hookimpl` functions and `PLUGIN_API = 1`.
That module may import `sfumato` and attrs, and nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from sfumato.records import CommandSpec, ComponentSpec, Finding, ReportSection, RunRecord, RunSpec

PLUGIN_API = 1
"""The version of these hooks. A plugin declares the one it was written for."""

hookspec = pluggy.HookspecMarker("sfumato")
hookimpl = pluggy.HookimplMarker("sfumato")


@hookspec
def sfumato_components() -> Iterable[ComponentSpec]:
    """Yield what the plugin offers: tasks, solvers, runtimes, evaluators."""
    raise AssertionError("a specification is never called")


@hookspec
def sfumato_commands() -> Iterable[CommandSpec]:
    """Yield commands, mounted as `sfumato <plugin> <name>`."""
    raise AssertionError("a specification is never called")


@hookspec
def sfumato_doctor() -> Iterable[Finding]:
    """Yield findings about this machine: packages, data, devices, versions."""
    raise AssertionError("a specification is never called")


@hookspec
def sfumato_run_started(spec: RunSpec, run_id: str) -> None:
    """Called in the submitting process when a run has been claimed."""


@hookspec
def sfumato_run_finished(record: RunRecord) -> None:
    """Called in the submitting process when a run's record is in place."""


@hookspec
def sfumato_report_sections() -> Iterable[ReportSection]:
    """Yield sections for the report's pages, bound to the tasks they fit."""
    raise AssertionError("a specification is never called")
