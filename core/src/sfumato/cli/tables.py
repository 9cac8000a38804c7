"""Tables and progress for people, drawn with rich; imported by commands that have work to do."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from sfumato.aggregate import Aggregate
from sfumato.cli.text import HIDDEN, width
from sfumato.compare import Comparison
from sfumato.ledger import Result
from sfumato.plugins import Registry
from sfumato.records import Figure, RunRecord
from sfumato.runner import Planned
from sfumato.supervisor import Job

NARROW = 96
"""Columns below which tables leave something to `--json` or put it on a line of its own."""


def console(stderr: bool = False) -> Console:
    """Return a console that shows text as it is, markup and names of emoji too; where the stream is no terminal as wide as
    COLUMNS says, or 100."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else width(), highlight=False, markup=False, emoji=False)


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure with so many significant digits."""
    if value is None:
        return ""
    if value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return f"{value:.{digits - 2}e}"


def spread(figure: Figure) -> str:
    """Return the interval, or nothing when there is none."""
    return f"[{number(figure.low)}, {number(figure.high)}]" if figure.low is not None else ""


def figures_table(records: Sequence[RunRecord], most: int | None = None) -> None:
    """Print the figures of the records, the first `most` of each or all: value, 95 % interval, count, unit.

    A column says which run a figure is of; where there is no room for one, a line above each run's figures.
    """
    out = console()
    narrow = out.width < NARROW
    table = _figures(not narrow)
    for record in records:
        label = record.label or record.run_id
        if narrow:
            out.print(label)
            table = _figures(False)
        shown = [f for f in record.figures if f.name not in HIDDEN]
        rows = [_figure_row(f) for f in shown] or [(record.status.value, "", "", "", "")]
        left_out = 0 if most is None or len(shown) <= most + 1 else len(shown) - most  # never a line to save a line
        rows = rows[: len(rows) - left_out]
        for k, row in enumerate(rows):
            table.add_row(*(() if narrow else ("" if k else label,)), *row)
        if narrow:
            out.print(table)
        if left_out:  # in the column of figures it would be folded, or widen the column for all
            said, where = f"… {left_out} more", f"sfumato show {record.run_id[:8]}" if record.run_id else "--all-figures"
            out.print(f"{said}: {where}") if narrow else table.add_row(where, said, "", "", "", "")
    if not narrow:
        out.print(table)


def _figures(with_run: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*(("run",) if with_run else ()), "figure"):
        table.add_column(name, overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    return table


def _figure_row(figure: Figure) -> tuple[str, ...]:
    name = figure.name if figure.reduce == "mean" else f"{figure.name} ({figure.reduce})"
    return name, number(figure.value), spread(figure), str(figure.n), figure.unit


def comparison_table(made: Sequence[Comparison]) -> None:
    """Print paired differences, a block for each task and pair."""
    out = console()
    narrow = out.width < NARROW
    blocks: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for c in made:
        blocks.setdefault((c.task, c.first, c.second, c.setting), []).append(c)
    for (task, first, second, setting), rows in blocks.items():
        out.print(f"{task}{f' ({setting})' if setting else ''}: {second} minus {first}, n = {rows[0].n} pairs")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("figure", overflow="fold")
        wanted = ("first", "second", "difference", "95 % interval", "w/t/l", "effect", "p (Holm)")
        for name in (n for n in wanted if not (narrow and n in ("95 % interval", "effect"))):
            table.add_column(name, justify="left" if name == "95 % interval" else "right", no_wrap=True)
        for c in rows:
            between = f"[{number(c.low, 3)}, {number(c.high, 3)}]" if c.low is not None else ""
            p = "" if c.p_holm is None else "<.0001" if c.p_holm < 1e-4 else f"{c.p_holm:.4f}"
            mark = {"max": "↑", "min": "↓", "none": ""}[c.direction]
            about = f"({c.unit}{'' if c.n == rows[0].n else f', n={c.n}'})"
            wins, gap = f"{c.wins}/{c.ties}/{c.losses}", number(c.difference, 3)
            means = number(c.value_first, 3), number(c.value_second, 3)
            if narrow:  # the unit and the interval below what they belong to
                table.add_row(f"{c.metric}{mark}\n{about}", *means, f"{gap}\n{between}", wins, p)
            else:
                table.add_row(f"{c.metric}{mark} {about}", *means, gap, between, wins, number(c.effect, 2), p)
        out.print(table)
    for c in made:
        if c.n_not_finite:
            where = f" ({c.second} minus {c.first}{f', {c.setting}' if c.setting else ''})" if len(blocks) > 1 else ""
            said = _not_finite(c.n_not_finite, c.n, "pair")
            out.print(f"{c.metric}{where}: {said}, so it has no test; 'sfumato show RUN --rows' has the values.")
    if narrow:
        out.print("Below each difference: its 95 % interval.")
    out.print("↑ larger is better, ↓ smaller is better; w/t/l: items where the second is better, equal, worse;")
    tested = made[0].n_family if made else None
    family = "no line has one" if not tested else f"Holm over the {tested} lines that have one" if tested > 1 else "one line has one"
    out.print(f"p: Wilcoxon signed-rank, {family} (none where all pairs tie);")
    wider = f", shown from {NARROW} columns on and by --json" if narrow else ""
    out.print(f"effect: matched-pairs rank-biserial{wider}.")


def _not_finite(broken: int, n: int, what: str) -> str:
    return f"{broken} of {n} {what}{'s' * (n != 1)} {'is' if broken == 1 else 'are'} not finite"


def aggregate_table(made: Sequence[Aggregate]) -> None:
    """Print aggregates of two sides with standard errors and intervals, a block for each pair."""
    out = console()
    blocks: dict[tuple[Any, ...], list[Aggregate]] = {}
    for a in made:
        blocks.setdefault((a.tasks, a.settings, a.first, a.second, a.n), []).append(a)
    for (tasks, settings, first, second, n), rows in blocks.items():
        items = f"n = {n} items" + (f" of {len(tasks)} tasks, {n // len(tasks)} each" if len(tasks) > 1 else "")
        named = [f"{task} ({setting})" if setting else task for task, setting in zip(tasks, settings or [""] * len(tasks), strict=True)]
        out.print(f"{', '.join(named)}: {second} minus {first}, {items}")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("figure", overflow="fold")
        for name in ("first ± s.e.", "second ± s.e.", "difference"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
        for a in rows:
            mark = {"max": "↑", "min": "↓", "none": ""}[a.direction]
            sides = [
                number(value) + ("" if error is None else f" ± {number(error, 2)}")
                for value, error in ((a.value_first, a.error_first), (a.value_second, a.error_second))
            ]
            between = "" if a.low is None else f"[{number(a.low, 3)}, {number(a.high, 3)}]"
            table.add_row(f"{a.metric}, {a.statistic}{mark} ({a.unit})", *sides, number(a.difference, 3), between)
        out.print(table)
        for metric, broken in {a.metric: a.n_not_finite for a in rows if a.n_not_finite}.items():
            out.print(f"{metric}: {_not_finite(broken, n, 'item')}, so it has no interval; 'sfumato show RUN --rows' has the values.")
    out.print("↑ larger is better, ↓ smaller is better; s.e.: standard error; intervals by a paired bootstrap within each task.")


def ledger_table(results: Sequence[Result]) -> None:
    """Print the paper's figure beside ours, with interval, count and verdict, a block for each plugin."""
    out = console()
    for plugin in dict.fromkeys(r.plugin for r in results):
        table = Table(title=plugin, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("claim", overflow="fold", ratio=3)
        for name in ("paper", "here", "n"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold", ratio=2)
        for r in (r for r in results if r.plugin == plugin):
            between = f"[{number(r.low, 3)}, {number(r.high, 3)}]" if r.low is not None and r.high is not None else ""
            here = number(r.value) + (between and ("\n" if out.width < NARROW else " ") + between)
            unit = "" if r.unit == "1" else f" ({r.unit})"
            verdict = r.said
            table.add_row(r.title + unit, number(r.paper) or "-", here, str(r.n or ""), verdict)
        out.print(table)
    counts = Counter(r.verdict for r in results)
    out.print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))


class ProgressListener:
    """Shows a bar a sweep on the error stream; where that is no terminal it says only what a run waits for."""

    def __init__(self, planned: Sequence[Planned], registry: Registry, bar: Progress | None) -> None:
        self._registry = registry
        self._bar = bar
        self._done = 0
        self._parts: dict[str, float] = {}
        self._task: TaskID | None = None
        if bar is not None:
            self._task = bar.add_task("runs", total=float(max(sum(p.to_run for p in planned), 1)))

    def started(self, job: Job) -> None:
        self._registry.hook("sfumato_run_started", spec=job.spec, run_id=job.run_id)
        self.progress(job, 0.0, "starting")

    def progress(self, job: Job, fraction: float, message: str) -> None:
        self._parts[job.run_id] = fraction
        if self._bar is None and message.startswith("waits"):  # said under --quiet too: it may take hours
            click.echo(f"{job.run_id} {job.label} {message}", err=True)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=self._done + sum(self._parts.values()), description=f"{job.label} {message}"[:60]
            )

    def finished(self, job: Job, record: RunRecord) -> None:
        self._parts.pop(job.run_id, None)
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done + sum(self._parts.values()), description=job.label[:60])
        self._registry.hook("sfumato_run_finished", record=record)


@contextlib.contextmanager
def progress_listener(planned: Sequence[Planned], registry: Registry, quiet: bool) -> Iterator[ProgressListener]:
    """Yield a listener with a bar, rate and time left when the error stream is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield ProgressListener(planned, registry, None)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.completed:.1f}/{task.total:.0f} runs"),
        TimeRemainingColumn(),
        console=console(stderr=True),
    )
    with bar:
        yield ProgressListener(planned, registry, bar)
