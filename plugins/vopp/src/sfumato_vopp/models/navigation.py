"""Navigation in a partially known map: find the gate in a wall, and the way through obstacles known and unknown.

Source: Hoerger, Sudrajat, Kurniawati, "Vectorized Online POMDP Planning", 2025 (arXiv:2510.27191), §V.
"""

from __future__ import annotations

import numpy as np

from sfumato_vopp.model import Array, CompiledModel
from sfumato_vopp.scalar import ScalarModel

__all__ = ["Navigation"]

SIZE, WALL, GOAL = 13, 6, (12, 6)
GATES = (3, 9)


class Navigation(ScalarModel):
    """A 13×13 grid, (row x, column y). State: four words of map bits (four rows of 13 bits a word), then 13·x + y.

    Row 6 is a wall with one gate, at column 3 or 9 with equal probability. 31 obstacles are known to the planner; each other
    free cell is an obstacle with probability 0.1, but never in the gate's column in rows 5 to 7. The robot starts on a free
    cell of row 0 and does not know which. Actions: eight compass moves, stay; with probability 0.03 a move becomes stay.
    Rewards: -0.1 a move, -0.2 to stay, -1 for a move that did not go through (a stay by noise costs 0.1); the goal (12, 6)
    pays 20 and ends. Observation: eight bits, whether each neighbour is occupied, each wrong with probability 0.03; beyond
    the map reads free.
    """

    n_actions = 9
    n_observations = 256
    state_width = 5
    reward_range = (-1.0, 2.0)

    def __init__(self, layout_seed: int = 0, discount: float = 0.983) -> None:
        self.discount = discount
        free = [
            (x, y) for x in range(SIZE) for y in range(SIZE) if x != WALL and (x, y) != GOAL
        ]  # fmt: skip
        rng = np.random.default_rng(layout_seed)
        known = np.zeros((SIZE, SIZE), bool)
        for i in rng.choice(len(free), 31, replace=False):
            known[free[int(i)]] = True
        if known[0].all():
            raise ValueError(f"layout_seed {layout_seed} leaves no free cell in row 0; choose another")
        self.known = known
        self._ints = np.zeros(1, np.int64)
        powers = discount ** np.arange(200)
        self._floats = -0.1 * (1 - powers) / (1 - discount) + 20.0 * powers
        unknown = ~known
        unknown[WALL] = False
        unknown[GOAL] = False
        self._unknown = np.argwhere(unknown)

    def _maps(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        maps = np.broadcast_to(self.known, (n, SIZE, SIZE)).copy()
        drawn = rng.random((n, len(self._unknown))) < 0.1
        maps[:, self._unknown[:, 0], self._unknown[:, 1]] = drawn
        maps[:, WALL] = True
        gate = np.array(GATES)[rng.integers(0, 2, n)]
        for row in (WALL - 1, WALL, WALL + 1):
            maps[np.arange(n), row, gate] = False
        # The robot stands somewhere in row 0, so a row without a free cell cannot be; such maps open a known-free cell.
        closed = maps[:, 0].all(axis=1)
        maps[closed, 0, int(np.flatnonzero(~self.known[0])[0])] = False
        return maps, gate

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n maps and start cells; int64 [n, 5]."""
        maps, _ = self._maps(n, rng)
        scores = np.where(maps[:, 0], -1.0, rng.random((n, SIZE)))
        return np.column_stack([self._pack(maps), scores.argmax(axis=1)])

    @staticmethod
    def _pack(maps: Array) -> Array:
        words = np.zeros((len(maps), 4), np.int64)
        for x in range(SIZE):
            for y in range(SIZE):
                words[:, x >> 2] |= maps[:, x, y].astype(np.int64) << (13 * (x & 3) + y)
        return words

    @staticmethod
    def unpack(states: Array) -> Array:
        """Return the maps of states [N, 5]; bool [N, 13, 13]."""
        x, y = np.divmod(np.arange(SIZE * SIZE), SIZE)
        return (states[:, x >> 2] >> (13 * (x & 3) + y) & 1 == 1).reshape(-1, SIZE, SIZE)

    def reinvigorate(self, prior: Array, action: int, observation: int, posterior: Array, rng: np.random.Generator) -> Array:
        """Flip each cell that is not known to be occupied, gates excepted, with probability 0.001, to keep variety."""
        if len(posterior) == 0:
            return posterior
        out = posterior.copy()
        n, cells = len(out), len(self._unknown)
        flips = rng.binomial(n * cells, 0.001)
        which = rng.integers(0, n, flips)
        x, y = self._unknown[rng.integers(0, cells, flips)].T
        standing = out[which, 4] == SIZE * x + y
        which, x, y = which[~standing], x[~standing], y[~standing]
        np.bitwise_xor.at(out, (which, x >> 2), np.left_shift(1, 13 * (x & 3) + y))
        return out

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import navigation_numba as k

        return CompiledModel(k.step, k.hint, k.log_likelihood, self._ints, self._floats, "builtin:navigation")

    def describe_state(self, state: Array) -> str:
        """Draw the map; R is the robot, G the goal, # an obstacle."""
        grid = np.where(self.unpack(state[None])[0], "#", ".")
        grid[GOAL] = "G"
        grid[divmod(int(state[4]), SIZE)] = "R"
        return "\n".join("".join(row) for row in grid)
