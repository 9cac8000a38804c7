"""`sfumato compare A B`: paired differences with intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import click

from sfumato.cli.text import json_line
from sfumato.store import DEFAULT, Store


@click.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="A B [C …]")
@click.option("--metric", "metrics", multiple=True, help="Compare these metrics alone; may be given several times.")
@click.option("--task", "task", help="Compare on this task alone.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--json", "as_json", is_flag=True, help="One comparison a line.")
def command(names: Sequence[str], metrics: Sequence[str], task: str | None, store_dir: str, as_json: bool) -> None:
    """Compare B, C … with A, paired over common instances and seeds.

    A name is a run id, a label or a solver. Differences are B minus A; wins count for B.
    """
    from sfumato.compare import compare, holm, select, sides
    from sfumato.errors import UsageError

    if len(names) < 2:
        raise UsageError("compare wants two names or more: sfumato compare A B. 'sfumato status' lists the runs.")
    store = Store(store_dir)
    groups = [sides(store, select(store, name), name) for name in names]
    made = []
    for other in groups[1:]:
        for first in groups[0]:
            if task is not None and first.task != task:
                continue
            alike = [s for s in other if s.task == first.task]
            partners = [s for s in alike if s.world == first.world] or alike
            made += [c for second in partners for c in compare(first, second, metrics or None)]
    if not made and task is not None:
        from sfumato.errors import did_you_mean

        known = {s.task for g in groups for s in g}
        if task not in known:
            raise UsageError(f"no run on task {task!r}.{did_you_mean(task, known)} There are: {', '.join(sorted(known))}.")
    if not made:
        tasks = [", ".join(sorted({s.task for s in g})) for g in groups]
        raise UsageError(f"nothing in common: {'; '.join(f'{n} ran on {t}' for n, t in zip(names, tasks, strict=True))}.")
    made = holm(made)
    if as_json:
        for comparison in made:
            json_line(attrs.asdict(comparison))
        return
    from sfumato.cli.tables import comparison_table

    comparison_table(made)
