"""Rounds in which every applicant's score is seen, counted by grid cell.

With K grid thresholds there are K + 1 cells: cell c holds scores at or above exactly c thresholds, so a person in
cell c is accepted at grid level k when c > k. Counts by cell are all that any threshold on the grid can
ever depend on.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.binomial import UniformBlocks
from sfumato_ofs.loops import ClosedLoop

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@attrs.frozen
class Cells:
    """One round by grid cell, int arrays [B, G, K + 1].

    Attributes:
        applicants: everybody who applied.
        labelled: people whose outcome is known (those accepted); 0 in cells that were rejected.
        good: labelled people with a good outcome.
    """

    applicants: IntArray
    labelled: IntArray
    good: IntArray


class CellSampler:
    """Draws every applicant's group, cell and outcome: the individual-level simulator.

    Costs O(n log K) a round and item, against O(1) for the binomial counts, with which it agrees in law.
    """

    def __init__(self, loop: ClosedLoop, generators: list[np.random.Generator]) -> None:
        self._loop = loop
        self._uniforms = UniformBlocks(generators, 2 * loop.n, block=16)
        self._n_cells = len(loop.grid) + 1

    def draw(self, state: FloatArray, arm: IntArray) -> Cells:
        """Draw one round under arms [B]."""
        loop = self._loop
        n_items, n_groups, n_cells = len(state), loop.n_groups, self._n_cells
        above, good = loop.profile(state)
        edge = np.ones((n_items, n_groups, 1))
        tail = np.concatenate([edge, above, 0.0 * edge], axis=2)
        good_tail = np.concatenate([loop.base_good(state)[:, :, None], good, 0.0 * edge], axis=2)
        mass = np.maximum(-np.diff(tail, axis=2), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            quality = np.clip(np.where(mass > 0, -np.diff(good_tail, axis=2) / mass, 0.0), 0.0, 1.0)
        joint = (loop.shares(state)[:, :, None] * mass).reshape(n_items, -1)
        cumulative = np.cumsum(joint, axis=1)
        cumulative /= cumulative[:, -1:]

        u = self._uniforms.next().reshape(n_items, 2, loop.n)
        # All items in one search: row b's bounds are shifted by b.
        shift = np.arange(n_items)[:, None]
        where = np.searchsorted((cumulative + shift).ravel(), (u[:, 0] + shift).ravel(), side="right")
        where = np.minimum(where, (np.repeat(np.arange(n_items), loop.n) + 1) * joint.shape[1] - 1)
        size = n_items * joint.shape[1]
        applicants = np.bincount(where, minlength=size).reshape(n_items, n_groups, n_cells)
        is_good = u[:, 1].ravel() < quality.ravel()[where]
        n_good = np.bincount(where[is_good], minlength=size).reshape(n_items, n_groups, n_cells)
        accepted = np.arange(n_cells) > loop.levels[arm][:, :, None]
        return Cells(applicants, applicants * accepted, n_good * accepted)
