"""Paired comparison of two or more sets of runs over common instances and seeds.

Statistics come from SciPy (extra `stats`); this module pairs rows, refuses what cannot be paired, and aggregates as each
field reports: a metric's own reduction (`mean`, `iqm`, …) over its items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from sfumato import config, seeding, stats
from sfumato.errors import UnknownName, UsageError, did_you_mean
from sfumato.index import Index
from sfumato.records import ComponentRef, Limits, RunRecord, RunSpec, Status
from sfumato.store import Store, canonical

N_RESAMPLES = 4000
N_PERMUTATIONS = 99_999
MOST_PERMUTED = 2000
"""Pairs beyond which tied differences take the normal approximation, as those that are not tied do beyond 50."""

MOST_NAMED = 6
"""Worlds that a note names; of more it says how many."""


@attrs.frozen
class Values:
    """One metric of one side: its values by item index."""

    name: str
    unit: str
    direction: str
    reduce: str
    by_item: Mapping[int, float]
    per_item: bool = True  # False: one value for a whole batch, kept under the batch's first item


@attrs.frozen
class Side:
    """What is compared: the runs of one solver (settings and runtime included) on one task."""

    label: str
    task: str
    world: str  # all that decides the instances: task, its settings, seed
    run_ids: tuple[str, ...]
    metrics: Mapping[str, Values]
    data: Mapping[str, str] = attrs.field(factory=dict)  # the data files that they read, with their SHA-256
    code: Mapping[str, str] = attrs.field(factory=dict)  # the packages that made them, with the digests of their code


@attrs.frozen
class Comparison:
    """A paired comparison on one metric: `difference` is second minus first, in the metric's unit.

    `wins` counts items where the second is better; with direction "none" it counts where it is larger.
    `effect` is the matched-pairs rank-biserial correlation (Kerby 2014), -1 to 1, positive where the second is better.
    `p` is the two-sided Wilcoxon signed-rank test (zeros dropped; by permutation where differences are tied, as those of
    successes and failures are), `p_holm` corrected over the `n_family` comparisons that have a `p`: None where every pair
    ties, where a value is no finite number, and of one pair.
    """

    task: str
    metric: str
    unit: str
    direction: str
    reduce: str
    first: str
    second: str
    n: int
    value_first: float
    value_second: float
    difference: float
    low: float | None
    high: float | None
    sd: float | None
    wins: int
    ties: int
    losses: int
    effect: float | None
    p: float | None
    p_holm: float | None = None
    n_family: int | None = None  # lines over which p_holm is corrected: those that have a p
    n_not_finite: int = 0  # pairs, of the n, in which a side is no finite number
    setting: str = ""  # where a task was met in several worlds: what sets this one apart, as "rounds = 2000"


def select(store: Store, name: str) -> list[RunRecord]:
    """Return the finished runs that a name means: a run id (or its beginning), a label, or a solver.

    Raises UnknownName, suggesting the nearest, when nothing fits.
    """
    with Index(store) as index:
        runs = list(index.summaries(status=Status.OK.value))
    meanings = (
        [s for s in runs if s.run_id.startswith(name) and len(name) >= 4],
        [s for s in runs if s.label == name],
        [s for s in runs if s.solver == name],
        [s for s in runs if name in s.label.split()],
    )
    for found in meanings:
        if found:
            return [record for s in found if (record := store.record(s.run_id)) is not None]
    known = sorted({s.solver for s in runs} | {s.label for s in runs})
    if not known:
        raise UnknownName(f"{store.root} holds no finished run. 'sfumato run' makes some; --store DIR names another folder.")
    raise UnknownName(f"no finished run named {name!r} in {store.root}.{did_you_mean(name, known)} Known: {', '.join(known)}.")


def sides(store: Store, records: Iterable[RunRecord], label: str) -> list[Side]:
    """Group the shards of each (task, world, solver settings) into a side.

    Raises UsageError when one name means several settings of a solver on one task: which is meant cannot be guessed.
    """
    import json

    groups: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    for record in records:
        spec = record.spec
        world = world_of(spec)
        rest = attrs.evolve(spec, task=ComponentRef(spec.task.name), instances="", seed=0, limits=Limits(), data={})
        method = canonical([config.unstructure(rest), dict(record.code)])
        groups.setdefault((spec.task.name, world), {}).setdefault(method, []).append(record)
    made = []
    for (task, world), methods in groups.items():
        if len(methods) > 1:
            plain = [{**rest, "code": code} for rest, code in map(json.loads, methods)]
            told = "; ".join(
                f"{', '.join(r.run_id for r in runs)} with {text.replace('.settings.', '.')}"
                for text, runs in zip(apart(plain), methods.values(), strict=True)
            )
            raise UsageError(f"{label!r} means {len(methods)} different methods on {task}: runs {told}. Name one run by its id.")
        (runs,) = methods.values()
        data = {name: digest for r in runs for name, digest in r.provenance.get("data", {}).items()}
        made.append(Side(label, task, world, tuple(r.run_id for r in runs), _values(store, runs), data, dict(runs[0].code)))
    return made


def world_of(spec: RunSpec) -> str:
    """Return all that decides which instances a run met, but for which of them it took: task, its settings, seed, step limit, data."""
    return canonical(
        [spec.task.name, spec.task.version, dict(spec.task.settings), spec.seed, spec.limits.steps, dict(spec.data)]
    )


def partners(ours: Sequence[Side], theirs: Sequence[Side]) -> list[tuple[Side, Side]]:
    """Return the sides that meet, by task: those of the worlds in common; where a task has none in common, all of it."""
    found = []
    for task in sorted({s.task for s in ours} & {s.task for s in theirs}):
        pairs = [(a, b) for a in ours for b in theirs if a.task == b.task == task]
        found += [(a, b) for a, b in pairs if a.world == b.world] or pairs
    return found


def left_out(ours: Sequence[Side], theirs: Sequence[Side]) -> list[str]:
    """Return sentences on the worlds that one side alone met, of the tasks on which there is a world in common."""
    told = distinctions((s.task, s.world) for s in (*ours, *theirs))
    sentences = []
    for mine, others in ((ours, theirs), (theirs, ours)):
        there = {(s.task, s.world) for s in others}
        for task in sorted({s.task for s in mine if (s.task, s.world) in there}):
            alone = [s for s in mine if s.task == task and (task, s.world) not in there]
            if alone:
                named = "; ".join(sorted(told[task, s.world] for s in alone)[:MOST_NAMED])
                more = f"; and {len(alone) - MOST_NAMED} more" if len(alone) > MOST_NAMED else ""
                sentences.append(f"{alone[0].label} alone met {task} with {named}{more}: left out")
    return sentences


def _values(store: Store, runs: Sequence[RunRecord]) -> dict[str, Values]:
    found: dict[str, dict[int, float]] = {}
    about: dict[str, Mapping[str, Any]] = {}
    whole: set[str] = set()
    for record in runs:
        for row in store.rows(record.run_id):
            first, last = row["items"]
            for metric in row["metrics"]:
                each = len(metric["values"]) == last - first
                items = range(first, last) if each else (first,)
                if not each:
                    whole.add(metric["name"])
                column = found.setdefault(metric["name"], {})
                about.setdefault(metric["name"], metric)
                for k, value in zip(items, metric["values"], strict=True):
                    if each and k in column and column[k] != value and value == value:
                        raise UsageError(
                            f"{record.label!r}: two of its runs hold instance {k} and differ in {metric['name']!r}: "
                            f"{column[k]:g} and {value:g}. Name one run by its id."
                        )
                    column[k] = value
    return {
        n: Values(n, about[n]["unit"], about[n]["direction"], about[n]["reduce"], column, n not in whole)
        for n, column in found.items()
    }


def compare(first: Side, second: Side, metrics: Sequence[str] | None = None) -> list[Comparison]:
    """Compare two sides metric by metric, paired by item.

    Raises UsageError when they ran on different tasks, worlds or items, naming which.
    """
    check_world(first, second)
    made = []
    for name in metrics or [m for m in first.metrics if m in second.metrics]:
        a, b = first.metrics.get(name), second.metrics.get(name)
        whole = a is not None and b is not None and not (a.per_item and b.per_item)
        if metrics is None and whole and a.by_item.keys() != b.by_item.keys():  # type: ignore[union-attr]
            continue  # a time for each batch, and the batches were cut differently
        about, x, y = aligned(first, second, name)
        made.append(paired(first, second, about, x, y))
    return made


def check_world(first: Side, second: Side) -> None:
    """Raise UsageError when two sides did not meet the same instances, or read different versions of a data file."""
    if first.world != second.world:
        raise UsageError(
            f"{first.label!r} and {second.label!r} did not meet the same instances: {_difference(first.world, second.world)}. "
            "Run both with the same task settings and seed."
        )
    if other := sorted(f for f, digest in first.data.items() if second.data.get(f, digest) != digest):
        raise UsageError(
            f"{first.label!r} and {second.label!r} read different versions of the data file {', '.join(other)}. Run the older "
            "one again: 'sfumato status' shows which is stale."
        )


def other_code(pairs: Iterable[tuple[Side, Side]]) -> list[str]:
    """Return the packages by whose different code the two sides of a pair were made, sorted.

    The instances of such runs are the same if what was changed does not make them, which nobody can tell from here.
    """
    return sorted({p for a, b in pairs for p, digest in a.code.items() if b.code.get(p, digest) != digest})


def aligned(first: Side, second: Side, name: str) -> tuple[Values, list[float], list[float]]:
    """Return what a metric is, and its values [n] on both sides, item by item in the same order.

    Raises UsageError when they are not one figure over one set of items, naming what differs.
    """
    check_world(first, second)
    a, b = first.metrics.get(name), second.metrics.get(name)
    if a is None or b is None:
        lacking = first.label if a is None else second.label
        known = set(first.metrics) & set(second.metrics)
        raise UsageError(f"{lacking!r} has no metric {name!r}.{did_you_mean(name, known)} Both have: {', '.join(sorted(known))}.")
    if (a.unit, a.direction, a.reduce) != (b.unit, b.direction, b.reduce):
        raise UsageError(
            f"{name!r} is {a.unit}, {a.direction}, {a.reduce} for {first.label!r} and {b.unit}, {b.direction}, {b.reduce} "
            f"for {second.label!r}: not one figure."
        )
    if a.by_item.keys() != b.by_item.keys():
        only_a, only_b = sorted(a.by_item.keys() - b.by_item.keys()), sorted(b.by_item.keys() - a.by_item.keys())
        raise UsageError(
            f"{name!r}: {first.label!r} and {second.label!r} ran on different instances: "
            + "; ".join(f"only {who} has {_ranges(k)}" for who, k in ((first.label, only_a), (second.label, only_b)) if k)
            + ". Run both over the same --instances."
        )
    items = sorted(a.by_item)
    return a, [a.by_item[k] for k in items], [b.by_item[k] for k in items]


def paired(first: Side, second: Side, about: Values, x: Sequence[float], y: Sequence[float]) -> Comparison:
    """Return the comparison of paired values x, y [n]; NaN pairs make the figures NaN and no test is made."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    broken = int((~np.isfinite(a) | ~np.isfinite(b)).sum())
    with np.errstate(invalid="ignore"):  # two infinities differ by NaN, which is what is shown
        gap = b - a
        sd = float(np.std(gap, ddof=1)) if len(gap) > 1 else None
    sign = -1.0 if about.direction == "min" else 1.0
    reduction = stats.REDUCTIONS[about.reduce]
    low, high, p, effect = None, None, None, None
    if not broken and len(gap) >= 2:
        low, high = _bootstrap(a, b, reduction) if about.reduce not in ("max", "min", "sum") else (None, None)
        p, effect = _wilcoxon(sign * gap)
    better = sign * gap
    with np.errstate(invalid="ignore"):
        one, other = float(reduction(a)), float(reduction(b))
    return Comparison(
        task=first.task, metric=about.name, unit=about.unit, direction=about.direction, reduce=about.reduce,
        first=first.label, second=second.label, n=len(gap),
        value_first=one, value_second=other, difference=other - one, low=low, high=high, sd=sd,
        wins=int((better > 0).sum()), ties=int((better == 0).sum()), losses=int((better < 0).sum()), effect=effect, p=p,
        n_not_finite=broken,
    )  # fmt: skip


def _bootstrap(a: np.ndarray, b: np.ndarray, reduction: Any) -> tuple[float | None, float | None]:
    """Percentile interval of the difference of reductions, resampling pairs."""
    bootstrap = scipy_stats().bootstrap
    if np.ptp(b - a) == 0:
        return float(b[0] - a[0]), float(b[0] - a[0])
    result = bootstrap(
        (a, b),
        lambda x, y, axis=-1: reduction(y, axis=axis) - reduction(x, axis=axis),
        paired=True,
        n_resamples=N_RESAMPLES,
        batch=max(1, 1_000_000 // len(a)),
        method="percentile",
        rng=seeding.stream(0, "bootstrap"),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _wilcoxon(gap: np.ndarray) -> tuple[float | None, float | None]:
    """Return (two-sided p, rank-biserial effect); (None, 0) when every pair ties: there is nothing to test."""
    moved = gap[gap != 0]
    if len(moved) == 0:
        return None, 0.0
    library = scipy_stats()
    sizes = np.abs(moved)
    tied = len(np.unique(sizes)) < len(sizes)
    method: Any = "auto"
    if tied and len(moved) <= MOST_PERMUTED:
        # SciPy's own choice for ties, the normal approximation, says 0.025 for 15 successes more and 5 fewer, where the
        # exact figure is 0.041. All permutations where there are that few, else a sample of them.
        method = library.PermutationMethod(
            n_resamples=N_PERMUTATIONS if len(moved) <= 200 else N_PERMUTATIONS // 10,
            batch=max(1, 1_000_000 // len(moved)),
            rng=seeding.stream(0, "permutations"),
        )
    p = float(library.wilcoxon(moved, method=method).pvalue)
    ranks = library.rankdata(sizes)
    total = ranks.sum()
    return p, float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / total)


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p values corrected by Holm's step-down method (Holm 1979) over those that have one.

    A line in which every pair ties is no member of the family: whatever the signs of its differences, its p could be no
    less than 1, and what cannot be rejected costs nothing to leave out (Tarone 1990). Two lines that say one thing, as a
    return that is minus the objective, are two members: that makes the correction dearer than it need be, never too cheap.
    """
    order = sorted((c.p, k) for k, c in enumerate(comparisons) if c.p is not None)
    corrected: dict[int, float] = {}
    worst = 0.0
    for rank, (p, k) in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p))
        corrected[k] = worst
    return [attrs.evolve(c, p_holm=corrected.get(k), n_family=len(order)) for k, c in enumerate(comparisons)]


def scipy_stats() -> Any:
    """Return SciPy's statistics; raises UsageError, naming the extra, when it is not installed."""
    try:
        from scipy import stats as library
    except ImportError as error:
        raise UsageError("compare needs SciPy, which is not installed. Install it: pip install 'sfumato[stats]'") from error
    return library


def distinctions(worlds: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return for each (task, world) what sets it apart from the other worlds of its task; "" where there is no other."""
    import json

    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for task, world in worlds:
        _, version, settings, seed, steps, data = json.loads(world)
        data = {name: digest[:12] for name, digest in data.items()}
        tasks.setdefault(task, {})[world] = {"version": version, **settings, "seed": seed, "step limit": steps, "data files": data}
    told = {}
    for task, settings in tasks.items():
        for world, text in zip(settings, apart(list(settings.values())), strict=True):
            told[task, world] = text
    return told


def apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several settings, as "name = value, …", the ones that are not the same in all; "" where there are none.

    A table within settings is told by its parts: `model.depth = 3`.
    """
    import json

    flat = [_flat(each) for each in settings]
    names = dict.fromkeys(name for values in flat for name in values)
    different = [name for name in names if len({json.dumps(values.get(name)) for values in flat}) > 1]
    return [", ".join(f"{name} = {json.dumps(values.get(name))}" for name in different) for values in flat]


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in table.items():
        made |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) and value else {before + name: value}
    return made


def _difference(a: str, b: str) -> str:
    import json

    names = ("task", "task version", "task settings", "seed", "step limit", "data files")
    parts = [
        f"{name} {json.dumps(x)} against {json.dumps(y)}"
        for name, x, y in zip(names, json.loads(a), json.loads(b), strict=True)
        if x != y
    ]
    return "; ".join(parts)


def _ranges(items: Sequence[int]) -> str:
    """Return item indices as short ranges: 0-4, 7."""
    parts: list[list[int]] = []
    for k in items:
        if parts and parts[-1][1] == k - 1:
            parts[-1][1] = k
        else:
            parts.append([k, k])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in parts[:6]]
    return "instances " + ", ".join(shown) + (" …" if len(parts) > 6 else "")
