"""Sweep a logged score file before anybody goes live: is any threshold feasible at all?

What a threshold would have done to the people in the file: each group's acceptance, the residuals with confidence
bounds, and the reward estimated from those whose outcome is known. The population is taken as it was logged; how it
would answer is what a closed loop is for.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.batches import check_batch
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError, need
from sfumato_ofs.inputs import number, whole
from sfumato_ofs.loops import check_grid

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@attrs.frozen
class Logged:
    """People of a score file.

    Attributes:
        scores [n]; groups: index [n], or 0/1 memberships [n, G] where groups overlap or somebody is in none; labels: outcomes
        [n], NaN unknown; names of the groups.
        left_out: names and sizes of groups too small to be compared. Their people still count for reward and service.
    """

    scores: FloatArray
    groups: NDArray[Any]
    labels: FloatArray
    names: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def membership(self) -> FloatArray:
        """Memberships [n, G]."""
        if self.groups.ndim == 2:
            return np.asarray(self.groups, dtype=np.float64)
        value: FloatArray = np.eye(len(self.names))[self.groups]
        return value


MAX_UNKNOWN = 0.01
"""Share of the people whom a threshold accepts that may lie where no outcome is known."""


@attrs.frozen
class LoggedSweep:
    """One row a threshold.

    Attributes:
        grid [M]; rates [M, G]; overall [M]; residuals, lower, upper [M, I] (bounds hold together for all thresholds
        and groups with probability 1 - delta); reward [M] a person, NaN where outcomes of those accepted are not known; labelled
        [M] people behind it; counts [G] people a group.
    """

    grid: FloatArray
    rates: FloatArray
    overall: FloatArray
    residuals: FloatArray
    lower: FloatArray
    upper: FloatArray
    reward: FloatArray
    labelled: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def holds(self) -> BoolArray:
        """Whether each threshold's estimated residuals are at or below 0 [M]."""
        return np.asarray((self.residuals <= 0.0).all(axis=1))

    @property
    def certified(self) -> BoolArray:
        """Whether each threshold's upper bounds are at or below 0 [M]."""
        return np.asarray((self.upper <= 0.0).all(axis=1))

    @property
    def possible(self) -> BoolArray:
        """Whether each threshold's lower bounds are at or below 0: the data do not rule it out [M]."""
        return np.asarray((self.lower <= 0.0).all(axis=1))

    @property
    def best(self) -> int | None:
        """The threshold with the largest known reward among those that hold; None when none does."""
        known = self.holds & ~np.isnan(self.reward)
        return int(np.argmax(np.where(known, self.reward, -np.inf))) if known.any() else None


def read_scores(
    path: str | Path,
    *,
    score: str = "score",
    group: str | Sequence[str] = "group",
    label: str | None = "label",
    overlapping: bool = False,
    min_count: int = 1,
) -> Logged:
    """Read a CSV or Parquet file with one person a row.

    Arguments:
        score, label: columns of the score in [0, 1] and the outcome 0/1 (empty: unknown); label None for no outcomes.
        group: column of the group (any values, sorted). With several columns each combination of their values is a group
            ("north & f"), or with `overlapping` each value of each column ("region=north", "sex=f"), so that everybody is
            in one group a column.
        min_count: groups of fewer people are left out of the comparison and named in `left_out`.

    Raises: OfsError naming the column; MissingPackage when a Parquet file is given without pyarrow.
    """
    path = Path(path)
    min_count = whole("min_count", min_count, least=1)
    by = [group] if isinstance(group, str) else list(group)
    if not by:
        raise OfsError("group must name at least one column")
    columns = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    for name in [score, *by, *([label] if label is not None else [])]:
        if name not in columns:
            raise OfsError(f"column {name!r} is not in {path.name}; it has {', '.join(map(repr, columns))}")
    scores = _floats(columns[score], score)
    labels = np.full(len(scores), np.nan) if label is None else _floats(columns[label], label, blank=True)
    words = [_words(columns[name], name) for name in by]
    if overlapping:
        each = [[f"{name}={w}" for w in column] for name, column in zip(by, words, strict=True)]
    else:
        each = [[" & ".join(parts) for parts in zip(*words, strict=True)]]
    found = {name: np.array([w == name for w in column]) for column in each for name in sorted(set(column))}
    sizes = {name: int(who.sum()) for name, who in found.items()}
    names = tuple(name for name in found if sizes[name] >= min_count)
    left_out = tuple((name, sizes[name]) for name in found if sizes[name] < min_count)
    if len(names) < 2:
        small = f", after leaving out {len(left_out)} of fewer than {min_count} people" if left_out else ""
        raise OfsError(
            f"column {', '.join(map(repr, by))} has {'one group only' if names else 'no group'} ({', '.join(names)}){small}: parity is "
            "undefined. Name another column"
        )
    membership = np.stack([found[name] for name in names], axis=1).astype(np.float64)
    check_batch(
        groups=membership,
        accepted=np.ones(len(scores), dtype=bool),
        labels=labels,
        scores=scores,
        n_groups=len(names),
    )
    certain = not left_out and not overlapping
    return Logged(scores, membership.argmax(axis=1) if certain else membership, labels, names, left_out)


def _words(values: list[Any], name: str) -> list[str]:
    out = ["" if value is None else str(value).strip() for value in values]
    if "" in out:
        raise OfsError(
            f"column {name!r} is empty in row {out.index('') + 1}; give people of no known group a value of their own"
        )
    return out


def _csv(path: Path) -> dict[str, list[Any]]:
    try:
        # Spreadsheets put a byte order mark before the first column's name; utf-8-sig takes it away.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise OfsError(f"file {path.name} must be CSV in UTF-8: {error}") from error


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise need("pyarrow", "parquet", f"reading {path.name}") from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (ValueError, OSError) as error:  # pyarrow's own errors derive from these
        raise OfsError(f"file {path.name} must be Parquet: {error}") from error
    return columns


def _floats(values: list[Any], name: str, blank: bool = False) -> FloatArray:
    out = np.empty(len(values))
    for row, value in enumerate(values):
        if value is None or value == "":
            if not blank:
                raise OfsError(f"column {name!r} is empty in row {row + 1}")
            out[row] = np.nan
            continue
        try:
            out[row] = float(value)
        except (TypeError, ValueError) as error:
            raise OfsError(f"column {name!r} must hold numbers, got {value!r} in row {row + 1}") from error
    return out


def _reward_by_cell(people: Logged, grid: FloatArray, known: BoolArray, loss: float) -> FloatArray:
    """Return the reward a person of every threshold [M], NaN where outcomes of those it accepts are not known."""
    cell = np.searchsorted(
        grid, people.scores, side="right"
    )  # cell j + 1: accepted at grid[j], not at grid[j + 1]
    n_cells = len(grid) + 1
    n = np.bincount(cell, minlength=n_cells).astype(np.float64)
    n_known = np.bincount(cell[known], minlength=n_cells)
    n_good = np.bincount(cell[people.labels == 1], minlength=n_cells)
    quality = np.where(n_known > 0, n_good / np.maximum(n_known, 1), 0.0)
    gain = n * ((1.0 + loss) * quality - loss)

    def from_above(values: FloatArray) -> FloatArray:
        return np.asarray(np.cumsum(values[::-1])[::-1][1:])

    n_accepted, n_unknown = from_above(n), from_above(np.where(n_known > 0, 0.0, n))
    reward = from_above(gain) / len(people.scores)
    return np.where(n_unknown <= MAX_UNKNOWN * n_accepted, reward, np.nan)


def sweep_scores(
    people: Logged, constraints: Constraints, grid: FloatArray, *, loss: float = 1.0, delta: float = 0.05
) -> LoggedSweep:
    """Return rates, residuals with bounds, and reward of every threshold on logged people.

    Notes: Hoeffding over all thresholds and constraints at once, for one look at the file. The reward needs outcomes of the people a threshold accepts.
    Known outcomes stand for the unknown ones between the same two grid points only, where scores are alike: a log holds
    outcomes of people whom the old threshold accepted, and what became of them says nothing of the people below. Where no
    outcome is known between two grid points, lower thresholds have no known reward, unless such people are at most
    `MAX_UNKNOWN` of those accepted; then they count as bad.
    """
    if constraints.n_groups != len(people.names):
        raise OfsError(
            f"constraints are for {constraints.n_groups} groups, and the file has {len(people.names)}"
        )
    loss = number("loss", loss, least=0.0)
    delta = number("delta", delta, above=0.0, most=1.0)
    grid = check_grid(grid)
    membership, n = people.membership, len(people.scores)
    counts = membership.sum(axis=0)
    cell = np.searchsorted(grid, people.scores, side="right")
    rates = np.stack([_above(cell, len(grid), m) for m in membership.T], axis=1) / counts
    overall = _above(cell, len(grid)) / n
    residuals = constraints.residuals(rates, overall)
    spread = membership.T @ membership / np.outer(counts, counts)
    width = constraints.slack(spread, 1.0 / n, len(grid), delta)
    known = ~np.isnan(people.labels)
    labelled = _above(cell[known], len(grid)).astype(np.int64)
    reward = _reward_by_cell(people, grid, known, loss)
    return LoggedSweep(
        grid, rates, overall, residuals, residuals - width, residuals + width, reward, labelled, counts.astype(np.int64)
    )  # fmt: skip


def _above(cell: NDArray[np.int64], n_thresholds: int, weight: FloatArray | None = None) -> FloatArray:
    """Return the people, or their weight, whom each threshold accepts [M], from cells in which j counts thresholds passed."""
    held = np.bincount(cell, weights=weight, minlength=n_thresholds + 1)
    return np.asarray(np.cumsum(held[::-1])[::-1][1:], dtype=np.float64)
