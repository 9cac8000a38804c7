"""Tag: a robot chases an opponent that it sees only when they stand on one cell.

Source: Pineau, Gordon, Thrun, "Point-based value iteration: an anytime algorithm for POMDPs", IJCAI 2003, §6. Blocked mass of
the opponent's move stays where it is, as in the published comparisons of online planners.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from sfumato_vopp.model import Array, CompiledModel, Transitions
from sfumato_vopp.scalar import ScalarModel

__all__ = ["TAG", "Tag", "chase_hint", "free_cells", "opponent_table"]

TAG = 4
#: x, y steps of north, east, south, west.
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def free_cells() -> list[tuple[int, int]]:
    """Return the 29 cells (x, y): two full rows of ten below, three rows of three above columns 5 to 7."""
    return [(x, y) for y in range(2) for x in range(10)] + [(x, y) for y in range(2, 5) for x in range(5, 8)]


def opponent_table(cells: list[tuple[int, int]]) -> tuple[Array, Array]:
    """Return, for each (robot, opponent) pair, five next cells and their cumulative probabilities; both [C, C, 5].

    It stays with 0.2; it moves away from the robot along each axis with 0.4, or 0.2 each way where they are level.
    """
    number = {cell: i for i, cell in enumerate(cells)}
    n = len(cells)
    target, p = np.zeros((n, n, 5), np.int64), np.zeros((n, n, 5))
    for r, (rx, ry) in enumerate(cells):
        for o, (ox, oy) in enumerate(cells):
            moves: list[tuple[int, int, float]] = []
            for dx, dy, away in ((1, 0, ox - rx), (0, 1, oy - ry)):
                if away == 0:
                    moves += [(dx, dy, 0.2), (-dx, -dy, 0.2)]
                else:
                    sign = 1 if away > 0 else -1
                    moves += [(sign * dx, sign * dy, 0.4), (0, 0, 0.0)]
            for j, (dx, dy, q) in enumerate([*moves, (0, 0, 0.2)]):
                target[r, o, j], p[r, o, j] = number.get((ox + dx, oy + dy), o), q
    return target, np.cumsum(p, axis=-1)


def path_lengths(cells: list[tuple[int, int]]) -> Array:
    """Return the number of moves between any two cells; int64 [C, C], a large number where there is no way."""
    number = {cell: i for i, cell in enumerate(cells)}
    out = np.full((len(cells), len(cells)), 10_000, np.int64)
    for start in range(len(cells)):
        out[start, start] = 0
        queue = deque([start])
        while queue:
            c = queue.popleft()
            for dx, dy in MOVES:
                n = number.get((cells[c][0] + dx, cells[c][1] + dy))
                if n is not None and out[start, n] == 10_000:
                    out[start, n] = out[start, c] + 1
                    queue.append(n)
    return out


def chase_hint(path: Array, discount: float, weight: float) -> Array:
    """Return a guess of the value at each distance in moves: between two bounds, ``weight`` on the upper one.

    The upper one walks straight to an opponent that stands still and is seen, -(1-γ^d)/(1-γ) + 10γ^d; the lower one walks
    for ever. An agent that has lost its opponent is nearer to the lower one, and a hint that forgets this makes losing it
    look harmless: measured on Tag, a decision lost about half as much at a weight of 0.6 as at 1.
    """
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"expected 0 < hint_weight <= 1, got {weight}")
    if discount >= 1:
        return 10.0 - path / weight
    g = discount ** np.minimum(path, 1000)
    return weight * (-(1 - g) / (1 - discount) + 10.0 * g) - (1.0 - weight) * (path > 0) / (1 - discount)


class Tag(ScalarModel):
    """State: 29·robot + opponent. Actions: north, east, south, west, tag. Observations: the robot's cell, or 29 "same cell".

    A move costs 1 and is sure (blocked: stay). A tag on the same cell pays 10 and ends; elsewhere it costs 10. The opponent
    decides from the positions before the robot's move, and moves during a failed tag too.

    Arguments:
        hint_weight: see :func:`chase_hint`.
    """

    n_actions = 5
    n_observations = 30
    reward_range = (-1.0, 10.0)  # a tag in vain is no sensible action

    def __init__(self, discount: float = 0.95, hint_weight: float = 0.6) -> None:
        self.discount = discount
        self.cells = free_cells()
        self.n_cells = len(self.cells)
        number = {cell: i for i, cell in enumerate(self.cells)}
        self._moved = np.array(
            [[number.get((x + dx, y + dy), i) for dx, dy in (*MOVES, (0, 0))] for i, (x, y) in enumerate(self.cells)]
        )
        self._target, self._cum = opponent_table(self.cells)
        self._path = path_lengths(self.cells)
        hint = chase_hint(self._path, discount, hint_weight)
        self._ints = np.concatenate([[self.n_cells], self._moved.ravel(), self._target.ravel()]).astype(np.int64)
        self._floats = np.concatenate([self._cum.ravel(), hint.ravel()])

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states, robot and opponent uniform and independent; int64 [n, 1]."""
        return rng.integers(0, self.n_cells**2, (n, 1))

    def initial_distribution(self) -> tuple[Array, Array]:
        """List all pairs."""
        n = self.n_cells**2
        return np.arange(n)[:, None], np.full(n, 1.0 / n)

    def transitions(self, states: Array, action: int) -> Transitions:
        """List the opponent's moves."""
        robot, opponent = states[:, 0] // self.n_cells, states[:, 0] % self.n_cells
        p = np.diff(self._cum[robot, opponent], axis=1, prepend=0.0)
        tagged = (robot == opponent) & (action == TAG)
        p[tagged] = (1.0, 0.0, 0.0, 0.0, 0.0)
        source, move = np.nonzero(p > 1e-12)
        following = self._moved[robot, action][source] * self.n_cells + self._target[robot, opponent][source, move]
        reward = np.where(tagged, 10.0, -10.0 if action == TAG else -1.0)
        return Transitions(source, following[:, None], p[source, move], reward[source], tagged[source])

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import tag_numba as k

        return CompiledModel(k.step, k.hint, k.log_likelihood, self._ints, self._floats, "builtin:tag")

    def describe_state(self, state: Array) -> str:
        """Name both cells."""
        return f"robot at {self.cells[state[0] // self.n_cells]}, opponent at {self.cells[state[0] % self.n_cells]}"
