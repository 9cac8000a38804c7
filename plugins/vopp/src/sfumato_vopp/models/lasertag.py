"""LaserTag: Tag on a 7×11 grid with random obstacles, the robot lost, and eight noisy laser beams instead of eyes.

Source: Somani, Ye, Hsu, Lee, "DESPOT: online POMDP planning with regularization", NeurIPS 2013, §6; Sunberg and Kochenderfer,
"Online algorithms for POMDPs with continuous state, action, and observation spaces", ICAPS 2018 (same problem).
"""

from __future__ import annotations

import math

import numpy as np

from sfumato_vopp.model import Array, CompiledModel
from sfumato_vopp.models.tag import MOVES, chase_hint, opponent_table, path_lengths
from sfumato_vopp.scalar import ScalarModel

__all__ = ["SAME_CELL", "LaserTag", "reading_table"]

#: Beam directions (x, y); odd ones are diagonal.
BEAMS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
#: Observation when robot and opponent share a cell.
SAME_CELL = 1 << 32
SIGMA = 2.5


def reading_table(longest: int) -> Array:
    """Return log P(reading k | steps m) for straight and diagonal beams; float64 [2, longest+1, 16], -inf where impossible.

    A beam of length d reads the whole number k < d with P(k) = 2[Φ((min(d,k+1)-d)/σ) - Φ((k-d)/σ)]; zero takes the tail.
    """
    out = np.full((2, longest + 1, 16), -np.inf)
    for diagonal in range(2):
        for m in range(1, longest + 1):
            d = m * (math.sqrt(2.0) if diagonal else 1.0)
            for k in range(min(16, math.ceil(d))):
                high = math.erfc((d - min(d, k + 1)) / SIGMA / math.sqrt(2.0))
                low = math.erfc((d - k) / SIGMA / math.sqrt(2.0)) if k > 0 else 0.0
                out[diagonal, m, k] = math.log(high - low)
    return out


class LaserTag(ScalarModel):
    """State: cells·robot + opponent over the free cells. Actions: north, east, south, west, tag.

    Observation: eight readings, four bits each, packed in one number; or ``SAME_CELL``. Rewards and motion as in Tag.

    Arguments:
        obstacles: cells (x, y) of a 7-row, 11-column grid; eight drawn from ``layout_seed`` when not given.
        hint_weight: see :func:`sfumato_vopp.models.tag.chase_hint`.
    """

    n_actions = 5
    n_observations = None
    reward_range = (-1.0, 10.0)  # a tag in vain is no sensible action

    def __init__(
        self,
        obstacles: tuple[tuple[int, int], ...] | None = None,
        layout_seed: int = 0,
        discount: float = 0.95,
        hint_weight: float = 0.6,
    ) -> None:
        width, height = 11, 7
        if obstacles is None:
            drawn = np.random.default_rng(layout_seed).choice(width * height, 8, replace=False)
            obstacles = tuple((int(c) % width, int(c) // width) for c in drawn)
        self.discount, self.obstacles = discount, tuple(obstacles)
        self.cells = [(x, y) for y in range(height) for x in range(width) if (x, y) not in obstacles]
        n = self.n_cells = len(self.cells)
        number = {cell: i for i, cell in enumerate(self.cells)}
        moved = [[number.get((x + dx, y + dy), i) for dx, dy in (*MOVES, (0, 0))] for i, (x, y) in enumerate(self.cells)]
        target, cum = opponent_table(self.cells)
        runs = np.zeros((n, 8), np.int64)
        ray = np.full((n, n), -1, np.int64)  # 16·beam + steps at which the robot's beam meets the opponent
        for i, (x, y) in enumerate(self.cells):
            for beam, (dx, dy) in enumerate(BEAMS):
                m = 1
                while (x + m * dx, y + m * dy) in number:
                    ray[i, number[x + m * dx, y + m * dy]] = 16 * beam + m
                    m += 1
                runs[i, beam] = m
        path = path_lengths(self.cells)
        hint = chase_hint(path, discount, hint_weight)
        table = reading_table(12)
        self._ints = np.concatenate([[n], np.ravel(moved), target.ravel(), runs.ravel(), ray.ravel()]).astype(np.int64)
        self._floats = np.concatenate([cum.ravel(), hint.ravel(), table.ravel()])

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states, robot and opponent uniform and independent; int64 [n, 1]."""
        return rng.integers(0, self.n_cells**2, (n, 1))

    def initial_distribution(self) -> tuple[Array, Array]:
        """List all pairs."""
        n = self.n_cells**2
        return np.arange(n)[:, None], np.full(n, 1.0 / n)

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import lasertag_numba as k

        return CompiledModel(k.step, k.hint, k.log_likelihood, self._ints, self._floats, "builtin:lasertag")

    def describe_state(self, state: Array) -> str:
        """Name both cells."""
        return f"robot at {self.cells[state[0] // self.n_cells]}, opponent at {self.cells[state[0] % self.n_cells]}"
