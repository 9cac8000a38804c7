"""Plain aligned tables for commands that must start at once (no rich)."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sfumato.records import Finding

HIDDEN = frozenset({"decision_cpu_seconds", "act_seconds_max"})
"""Metrics of every run that tables and comparisons leave out unless they are named."""


NO_PLUGIN = """No plugin is installed. Install one, or write one:
  pip install sfumato-ofs
  pip install -e plugins/ofs       (from a checkout)
  sfumato new-plugin NAME"""


def said(finding: Finding) -> str:
    """Return what a finding says and advises, as sentences."""
    stop = "" if not finding.advice or finding.message.endswith((".", "!", "?", ":")) else "."
    return f"{finding.message}{stop} {finding.advice}".strip()


def columns(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> None:
    """Print rows with aligned columns; the last column is cut to the terminal's width."""
    table = [list(map(str, row)) for row in rows]
    if not table:
        return
    every = [list(head), *table] if head else table
    widths = [max(len(row[k]) for row in every) for k in range(len(every[0]) - 1)]
    room = max(width() - sum(widths) - 2 * len(widths), 20)
    for row in every:
        last = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        click.echo("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), last]).rstrip())


def width() -> int:
    """Return the columns that there are: the terminal's, or what COLUMNS says, or 100."""
    return shutil.get_terminal_size((100, 24)).columns


def folded(text: str, indent: str = "    ", err: bool = False) -> None:
    """Print a line, broken between words where it is wider than there are columns; `indent` begins what follows."""
    lines = textwrap.wrap(text, max(width(), 20), subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True)
    click.echo("\n".join(lines), err=err)


def json_line(value: Any) -> None:
    """Print one JSON object on one line, see `json_text`."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """Return JSON that every reader takes: NaN is null, infinities are the texts "Infinity" and "-Infinity".

    Python alone writes and reads the bare words NaN and Infinity.
    """
    try:
        return json.dumps(value, sort_keys=True, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), sort_keys=True, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
