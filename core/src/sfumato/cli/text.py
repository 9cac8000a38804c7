"""Plain aligned tables for commands that must start at once (no rich)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import click


def columns(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> None:
    """Print rows with aligned columns; the last column is cut to the terminal's width."""
    table = [list(map(str, row)) for row in rows]
    if not table:
        return
    every = [list(head), *table] if head else table
    widths = [max(len(row[k]) for row in every) for k in range(len(every[0]) - 1)]
    room = max(shutil.get_terminal_size((100, 24)).columns - sum(widths) - 2 * len(widths), 20)
    for row in every:
        last = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        click.echo("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), last]).rstrip())


def json_line(value: Any) -> None:
    """Print one JSON object on one line."""
    click.echo(json.dumps(value, sort_keys=True, default=str))
