"""`sfumato compare A B`: paired differences with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from sfumato.cli.text import HIDDEN, folded, json_line
from sfumato.errors import UsageError
from sfumato.store import DEFAULT, Store

if TYPE_CHECKING:
    from sfumato.aggregate import Aggregate, Preset
    from sfumato.compare import Side


@click.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="A B [C …]")
@click.option("--metric", "metrics", multiple=True, help="Compare these metrics alone; may be given several times.")
@click.option("--task", "task", help="Compare on this task alone.")
@click.option("--preset", type=click.Choice(("routing", "return", "learning")),
              help="Show the aggregate of a field instead: optimality gap, return with standard error, interquartile mean.")
@click.option("--target", type=float, default=1.0, show_default=True, help="What the optimality gap is measured to.")
@click.option("--scale", "scales", multiple=True, metavar="TASK=LOW:HIGH", help="Values that count as 0 and 1 on a task.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--json", "as_json", is_flag=True, help="One comparison a line.")
def command(
    names: Sequence[str], metrics: Sequence[str], task: str | None, preset: str | None, target: float,
    scales: Sequence[str], store_dir: str, as_json: bool,
) -> None:  # fmt: skip
    """Compare B, C … with A, paired over common instances and seeds.

    A name is a run id, a label or a solver. Differences are B minus A; wins count for B. With `--preset learning
    --metric NAME` all tasks in common go into one figure: the interquartile mean, by a bootstrap within each task.
    """
    from sfumato.compare import compare, distinctions, holm, left_out, other_code, partners, select, sides

    if len(names) < 2:
        raise UsageError("compare wants two names or more: sfumato compare A B. 'sfumato status' lists the runs.")
    store = Store(store_dir)
    records = [select(store, name) for name in names]
    groups = [sides(store, [r for r in rs if task in (None, r.spec.task.name)], n) for n, rs in zip(names, records, strict=True)]
    met = [partners(groups[0], other) for other in groups[1:]]
    told = distinctions({(s.task, s.world) for pairs in met for s, _ in pairs})
    made: Any
    if preset is not None:
        from sfumato.aggregate import PRESETS

        made = _preset(PRESETS[preset], met, metrics, target, scales, told)
    elif scales:
        raise UsageError("--scale goes with --preset learning: paired differences are shown in the metric's own unit.")
    else:
        made = [
            attrs.evolve(c, setting=told[first.task, first.world])
            for pairs in met for first, second in pairs for c in compare(first, second, metrics or None)
            if metrics or c.metric not in HIDDEN
        ]  # fmt: skip
    if not made and task is not None:
        from sfumato.errors import did_you_mean

        known = {r.spec.task.name for rs in records for r in rs}
        if task not in known:
            raise UsageError(f"no run on task {task!r}.{did_you_mean(task, known)} There are: {', '.join(sorted(known))}.")
    if not made:
        tasks = [", ".join(sorted({r.spec.task.name for r in rs})) for rs in records]
        raise UsageError(f"nothing in common: {'; '.join(f'{n} ran on {t}' for n, t in zip(names, tasks, strict=True))}.")
    if preset is None:
        made = holm(made)  # over all that is shown
    for sentence in dict.fromkeys(s for other in groups[1:] for s in left_out(groups[0], other)):
        folded(f"Note: {sentence}.", err=True)
    if changed := other_code(pair for pairs in met for pair in pairs):
        folded(
            f"Note: the runs compared were made by different code of {', '.join(changed)}. If that made the instances, run the "
            "older ones again: 'sfumato status' shows which are stale.", err=True,
        )  # fmt: skip
    if as_json:
        for comparison in made:
            json_line(attrs.asdict(comparison))
        return
    from sfumato.cli.tables import aggregate_table, comparison_table

    aggregate_table(made) if preset is not None else comparison_table(made)


def _preset(
    preset: Preset, met: Sequence[Sequence[tuple[Side, Side]]], metrics: Sequence[str], target: float, scales: Sequence[str],
    told: Mapping[tuple[str, str], str],
) -> list[Aggregate]:
    from sfumato.aggregate import aggregate

    made: list[Aggregate] = []
    scale = dict(map(_scale, scales))
    for pairs in met:
        for together in [pairs] if preset.across else [[pair] for pair in pairs]:
            if together:
                for name in metrics or [_usual(preset, together[0])]:
                    made += aggregate(together, name, preset.statistics, target=target, scale=scale, told=told)
    return made


def _usual(preset: Preset, pair: tuple[Side, Side]) -> str:
    """Return the metric that a preset is about."""
    first, second = pair
    both = sorted(first.metrics.keys() & second.metrics.keys())
    for name in preset.metrics:
        if name in both:
            return name
    wanted = f"a metric {' or '.join(map(repr, preset.metrics))}, which {first.task} has not" if preset.metrics else "to be told the metric"
    raise UsageError(f"this preset wants {wanted}. Name one with --metric; both sides have: {', '.join(both)}.")


def _scale(text: str) -> tuple[str, tuple[float, float]]:
    """Return task, low, high of TASK=LOW:HIGH."""
    try:
        task, _, bounds = text.rpartition("=")
        low, high = (float(part) for part in bounds.split(":"))
    except ValueError:
        task, low, high = "", 0.0, 0.0
    if not task or low == high or not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"--scale wants TASK=LOW:HIGH with two different numbers, got {text!r}. Example: --scale gym/cartpole=20:500")
    return task, (low, high)
