"""Sweep a logged score file before anybody goes live: is any threshold feasible at all?

What a threshold would have done to the people in the file: each group's acceptance, the residuals with confidence
bounds, and the reward estimated from those whose outcome is known. The population is taken as it was logged; how it
would answer is what a closed loop is for.
"""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.batches import check_batch
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError, need

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@attrs.frozen
class Logged:
    """People of a score file: scores [n], group index [n], outcomes [n] (NaN unknown), and the groups' names."""

    scores: FloatArray
    groups: NDArray[np.int64]
    labels: FloatArray
    names: tuple[str, ...]


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
    path: str | Path, *, score: str = "score", group: str = "group", label: str | None = "label"
) -> Logged:
    """Read a CSV or Parquet file with one person a row.

    Arguments: column names of the score in [0, 1], the group (any values, sorted), and the outcome 0/1 (empty: unknown);
    label None for no outcomes.

    Raises: OfsError naming the column; MissingPackage when a Parquet file is given without pyarrow.
    """
    path = Path(path)
    columns = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    wanted = [score, group, *([label] if label is not None else [])]
    for name in wanted:
        if name not in columns:
            raise OfsError(f"column {name!r} is not in {path.name}; it has {', '.join(map(repr, columns))}")
    names = tuple(sorted({str(v) for v in columns[group]}))
    if len(names) < 2:
        raise OfsError(
            f"column {group!r} has one group only ({names}): parity is undefined. Name another column"
        )
    scores = _floats(columns[score], score)
    labels = np.full(len(scores), np.nan) if label is None else _floats(columns[label], label, blank=True)
    index = {name: a for a, name in enumerate(names)}
    groups = np.array([index[str(v)] for v in columns[group]], dtype=np.int64)
    check_batch(
        groups=groups,
        accepted=np.ones(len(scores), dtype=bool),
        labels=labels,
        scores=scores,
        n_groups=len(names),
    )
    return Logged(scores, groups, labels, names)


def _csv(path: Path) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise need("pyarrow", "parquet", f"reading {path.name}") from error
    columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
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
        except ValueError as error:
            raise OfsError(f"column {name!r} must hold numbers, got {value!r} in row {row + 1}") from error
    return out


def _reward_by_cell(people: Logged, grid: FloatArray, known: BoolArray, loss: float) -> FloatArray:
    """Return the reward a person of every threshold [M], NaN where outcomes of those it accepts are not known."""
    cell = np.searchsorted(grid, people.scores, side="right")  # cell j + 1: accepted at grid[j], not at grid[j + 1]
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

    Notes: Hoeffding over all thresholds and groups at once. The reward needs outcomes of the people a threshold accepts.
    Known outcomes stand for the unknown ones between the same two grid points only, where scores are alike: a log holds
    outcomes of people whom the old threshold accepted, and what became of them says nothing of the people below. Where no
    outcome is known between two grid points, lower thresholds have no known reward, unless such people are at most
    `MAX_UNKNOWN` of those accepted; then they count as bad.
    """
    if constraints.n_groups != len(people.names):
        raise OfsError(
            f"constraints are for {constraints.n_groups} groups, and the file has {len(people.names)}"
        )
    n_groups = constraints.n_groups
    accepted = people.scores[None, :] >= grid[:, None]
    counts = np.bincount(people.groups, minlength=n_groups)
    rates = np.stack([accepted[:, people.groups == a].mean(axis=1) for a in range(n_groups)], axis=1)
    overall = accepted.mean(axis=1)
    residuals = constraints.residuals(rates, overall)
    term = math.log(2.0 * len(grid) * (n_groups + 1) / delta)
    radius = np.sqrt(term / (2.0 * counts))
    everybody = math.sqrt(term / (2.0 * len(people.scores)))
    if constraints.gap == "to-overall":
        slack = [radius[a] + everybody for a in range(n_groups) for _ in range(2)]
    else:
        slack = [radius[a] + radius[b] for a, b in constraints.pairs]
    width = np.array([*slack, *[everybody] * (constraints.size - constraints.n_parity)])
    known = ~np.isnan(people.labels)
    labelled = (accepted & known).sum(axis=1)
    reward = _reward_by_cell(people, np.asarray(grid, dtype=np.float64), known, loss)
    return LoggedSweep(
        np.asarray(grid, dtype=np.float64), rates, overall, residuals, residuals - width, residuals + width, reward,
        labelled, counts,
    )  # fmt: skip
