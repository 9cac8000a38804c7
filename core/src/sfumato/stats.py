"""How rows become figures: reductions by name, spread, and a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sfumato import seeding
from sfumato.records import Figure

N_RESAMPLES = 2000


def interquartile_mean(values: np.ndarray, axis: int | None = None) -> Any:
    """Return the mean of the middle half, ties to the nearest whole count (25 % trimmed from each end)."""
    ordered = np.sort(values, axis=axis)
    if axis is None:
        ordered, axis = ordered.ravel(), 0
    n = ordered.shape[axis]
    cut = int(0.25 * n)
    return np.take(ordered, range(cut, n - cut), axis=axis).mean(axis=axis)


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "p95": lambda v, axis=None: np.quantile(v, 0.95, axis=axis),
    "iqm": interquartile_mean,
    "sum": np.sum,
}


def interval(values: np.ndarray, reduce: str, level: float = 0.95) -> tuple[float, float] | None:
    """Return a percentile-bootstrap interval for a reduction, None where resampling says nothing (n < 2, max, min).

    Resamples come from a stream of their own, so equal rows give equal intervals. Work is done in blocks: memory
    stays under about 8 MB whatever the number of rows.
    """
    if len(values) < 2 or reduce in ("max", "min", "sum"):
        return None
    rng = seeding.stream(0, "bootstrap")
    block = max(1, min(N_RESAMPLES, 1_000_000 // len(values)))
    draws = []
    for first in range(0, N_RESAMPLES, block):
        picks = rng.integers(0, len(values), size=(min(block, N_RESAMPLES - first), len(values)))
        draws.append(REDUCTIONS[reduce](values[picks], axis=1))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def item_values(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[int, float]]:
    """Yield (item, value) of a metric, in the rows' order; a figure of a whole batch stands with its first item."""
    for row in rows:
        first, last = row["items"]
        for metric in row["metrics"]:
            if metric["name"] == name:
                values = metric["values"]
                yield from zip(range(first, last) if len(values) == last - first else (first,), values, strict=False)


def figure(name: str, values: np.ndarray, unit: str, direction: Any, reduce: Any) -> Figure:
    """Return the figure of a metric over all its rows; NaN rows count in n and make the figure NaN."""
    bounds = interval(values, reduce) if np.isfinite(values).all() else None
    low, high = bounds if bounds else (None, None)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Figure(name, float(REDUCTIONS[reduce](values)), unit, direction, reduce, len(values), sd, low, high)


def figures(rows: Iterable[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """Return the figures of a run (or of several shards together) from its rows."""
    columns: dict[str, tuple[list[float], Mapping[str, Any]]] = {}
    for row in rows:
        for metric in row["metrics"]:
            columns.setdefault(metric["name"], ([], metric))[0].extend(metric["values"])
    return tuple(
        figure(name, np.asarray(values), first["unit"], first["direction"], first["reduce"])
        for name, (values, first) in columns.items()
        if values
    )
