"""Aggregates as each field reports them, paired, with intervals: over the items of a task, or over several tasks at once.

Source: R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville, M. G. Bellemare (2021), Deep Reinforcement Learning at the
Edge of the Statistical Precipice, sections 4.1 and 4.3: interquartile mean, optimality gap, stratified bootstrap. The
statistics are SciPy's (extra `stats`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from sfumato import seeding
from sfumato.compare import Side, aligned, scipy_stats
from sfumato.errors import UsageError, did_you_mean

N_RESAMPLES = 4000
LEVEL = 0.95


@attrs.frozen
class Preset:
    """What a field reports: the first of `metrics` that both sides have (none: it must be named), and how it is put
    together. `across`: all tasks in one figure; else one figure a task."""

    metrics: tuple[str, ...]
    statistics: tuple[str, ...]
    across: bool
    about: str


PRESETS = {
    "routing": Preset(("gap",), ("mean",), False, "optimality gap to the reference solution: the mean of the items' ratios"),
    "return": Preset(("discounted_return", "return"), ("mean",), False, "mean return of an episode, with its standard error"),
    "learning": Preset(
        (), ("iqm", "mean", "optimality gap"), True, "interquartile mean over all tasks and items, resampled within each task"
    ),
}


@attrs.frozen
class Aggregate:
    """One figure of both sides and their difference (second minus first), with 95 % intervals over `n` items.

    `error_*` are standard errors: of the mean of one task s / sqrt(n), else of the bootstrap's distribution. Intervals
    resample items within each task (stratified), the same items for both sides (paired), percentile method; None where
    a task has one item alone or a value is no finite number.
    """

    tasks: tuple[str, ...]
    metric: str
    unit: str
    direction: str
    statistic: str
    first: str
    second: str
    n: int
    value_first: float
    error_first: float | None
    low_first: float | None
    high_first: float | None
    value_second: float
    error_second: float | None
    low_second: float | None
    high_second: float | None
    difference: float
    low: float | None
    high: float | None
    settings: tuple[str, ...] = ()  # for each task, where it was met in several worlds: what sets this one apart
    n_not_finite: int = 0  # items, of the n, in which a side is no finite number


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Return the mean of the middle half along an axis: a quarter, rounded down, is cut at each end."""
    return scipy_stats().trim_mean(values, 0.25, axis=axis)


def optimality_gap(values: np.ndarray, target: float, sign: float = 1.0, axis: int = -1) -> Any:
    """Return by how much values [..., n] fall short of a target, on average; what is beyond it counts 0.

    `sign`: 1 where larger is better, -1 where smaller is.
    """
    return np.maximum(sign * (target - values), 0.0).mean(axis=axis)


def aggregate(
    pairs: Sequence[tuple[Side, Side]],
    metric: str,
    statistics: Sequence[str],
    *,
    target: float = 1.0,
    scale: Mapping[str, tuple[float, float]] | None = None,
    told: Mapping[tuple[str, str], str] | None = None,
) -> list[Aggregate]:
    """Return each statistic of a metric over all pairs of sides together; each pair is one task (a stratum).

    `scale` maps a task to the values that count as 0 and 1 (a random and an expert's score, say); then every task needs
    one, and larger is better. `target` is what the optimality gap is measured to, `told` what sets each (task, world)
    apart (see `sfumato.compare.distinctions`). Raises UsageError for tasks whose
    metrics are not one figure, or with unequal numbers of items: those would weigh more.
    """
    told = told or {}
    strata = []
    kinds = set()
    for first, second in pairs:
        about, a, b = aligned(first, second, metric)
        x, y = np.asarray(a, float), np.asarray(b, float)
        if scale:
            if first.task not in scale:
                hint = did_you_mean(first.task, scale)
                raise UsageError(f"no scale for task {first.task!r}.{hint} Give one: --scale {first.task}=LOW:HIGH")
            low, high = scale[first.task]
            x, y = (x - low) / (high - low), (y - low) / (high - low)
            kinds.add(("normalised", "max"))
        else:
            kinds.add((about.unit, about.direction))
        strata.append((x, y))
    if len(kinds) > 1:
        said = "; ".join(f"{unit}, {direction}" for unit, direction in sorted(kinds))
        raise UsageError(f"{metric!r} is not one figure over these tasks ({said}). Put them on one scale: --scale TASK=LOW:HIGH")
    tasks = [first.task for first, _ in pairs]
    sizes = [len(x) for x, _ in strata]
    if len(set(sizes)) > 1:
        said = ", ".join(f"{task}: {n}" for task, n in zip(tasks, sizes, strict=True))
        raise UsageError(f"the tasks have unequal numbers of items ({said}), and would not weigh alike. Run all with the same --seeds.")
    ((unit, direction),) = kinds
    settings = tuple(told.get((side.task, side.world), "") for side, _ in pairs)
    broken = sum(int((~np.isfinite(x) | ~np.isfinite(y)).sum()) for x, y in strata)
    first, second = pairs[0]
    made = []
    for statistic in statistics:
        of = _statistic(statistic, target, -1.0 if direction == "min" else 1.0)
        ours = _figures(strata, of, plain_mean=statistic == "mean")
        name = f"optimality gap to {target:g}" if statistic == "optimality gap" else statistic
        kept = "min" if statistic == "optimality gap" else direction
        one = Aggregate(tuple(tasks), metric, unit, kept, name, first.label, second.label, sum(sizes), *ours)
        made.append(attrs.evolve(one, settings=settings, n_not_finite=broken))
    return made


def _statistic(name: str, target: float, sign: float) -> Callable[..., Any]:
    known: dict[str, Callable[..., Any]] = {
        "iqm": interquartile_mean,
        "mean": lambda v, axis=-1: np.mean(v, axis=axis),
        "optimality gap": lambda v, axis=-1: optimality_gap(v, target, sign, axis),
    }
    if name not in known:
        raise UsageError(f"no statistic {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    return known[name]


def _figures(strata: Sequence[tuple[np.ndarray, np.ndarray]], of: Callable[..., Any], plain_mean: bool) -> tuple[Any, ...]:
    """Return value, error, low, high of the first side and the second, then difference, low, high."""
    a, b = (np.concatenate([s[side] for s in strata]) for side in (0, 1))
    values = float(of(a)), float(of(b))
    if min(len(x) for x, _ in strata) < 2 or not np.isfinite([a, b]).all():
        return (values[0], None, None, None, values[1], None, None, None, values[1] - values[0], None, None)

    def take(side: int, picks: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([s[side][p] for s, p in zip(strata, picks, strict=True)], axis=-1)

    # What is resampled are the items' numbers: within each task, and the same ones for both sides.
    results = [
        scipy_stats().bootstrap(
            tuple(np.arange(len(x)) for x, _ in strata),
            statistic,
            vectorized=True,
            paired=False,
            n_resamples=N_RESAMPLES,
            batch=max(1, 2_000_000 // len(a)),
            confidence_level=LEVEL,
            method="percentile",
            rng=seeding.stream(0, "bootstrap"),
        )
        for statistic in (
            lambda *picks, axis=-1: of(take(0, picks), axis=-1),
            lambda *picks, axis=-1: of(take(1, picks), axis=-1),
            lambda *picks, axis=-1: of(take(1, picks), axis=-1) - of(take(0, picks), axis=-1),
        )
    ]
    sides = []
    for value, side, result in zip(values, (a, b), results, strict=False):
        error = float(np.std(side, ddof=1) / np.sqrt(len(side))) if plain_mean and len(strata) == 1 else float(result.standard_error)
        sides += [value, error, *map(float, result.confidence_interval)]
    return (*sides, values[1] - values[0], *map(float, results[2].confidence_interval))
