"""RockSample(n, k): a rover on an n×n grid, k rocks of unknown worth, a sensor that fades with distance.

Source: Smith and Simmons, "Heuristic search value iteration for POMDPs", UAI 2004, §5; the layouts of (7,8) and (11,11) are
those used by the published comparisons of online planners.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.model import Array, CompiledModel, Model, Step, Transitions

__all__ = ["MAPS", "RockSample", "random_rocks"]

NORTH, EAST, SOUTH, WEST, SAMPLE, FIRST_CHECK = 0, 1, 2, 3, 4, 5
NONE, BAD, GOOD = 0, 1, 2

#: Published layouts: (n, k) -> rock cells (x, y).
MAPS: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (7, 8): ((2, 0), (0, 1), (3, 1), (6, 3), (2, 4), (3, 4), (5, 5), (1, 6)),
    (11, 11): ((0, 3), (0, 7), (1, 8), (2, 4), (3, 3), (3, 8), (4, 3), (5, 8), (6, 1), (9, 3), (9, 9)),
}


def random_rocks(n: int, k: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Draw k distinct cells of an n×n grid, none of them the start cell."""
    free = [cell for cell in range(n * n) if cell != (n // 2) * n]
    return tuple((int(c) % n, int(c) // n) for c in rng.choice(free, size=k, replace=False))


class RockSample(Model):
    """State: one whole number, the cell (y·n + x) in the low 16 bits and bit 16+i set when rock i is good.

    Actions: north, east, south, west, sample, check 0 … k-1. Observations: none, bad, good. A good rock sampled pays 10 and
    turns bad, a bad one costs 10, sampling elsewhere costs 100. Leaving by the east edge pays 10 and ends; any other move
    off the grid costs 100 and changes nothing. A check at distance d is right with probability (1 + 2^(-d/half))/2.

    Arguments:
        n, k: size of the grid, number of rocks (at most 46).
        rocks: k cells (x, y); the published layout when there is one. Give it for any other size.
        half_efficiency_distance: distance at which the sensor's efficiency is one half.
    """

    n_observations = 3
    state_width = 1
    state_dtype = np.int64
    reward_range = (-10.0, 10.0)
    uses_counter_draws = True

    def __init__(
        self,
        n: int = 7,
        k: int = 8,
        rocks: tuple[tuple[int, int], ...] | None = None,
        discount: float = 0.95,
        half_efficiency_distance: float = 20.0,
    ) -> None:
        if rocks is None:
            if (n, k) not in MAPS:
                raise ValueError(
                    f"expected rocks=… for RockSample({n},{k}), which has no published layout here (there are "
                    f"{sorted(MAPS)}); draw one with random_rocks(n, k, rng) and keep it with your results"
                )
            rocks = MAPS[n, k]
        if len(rocks) != k or len(set(rocks)) != k or k > 46 or not 1 <= n <= 255:
            raise ValueError(f"expected {k} (at most 46) distinct rocks on a grid of at most 255, got {len(rocks)} on {n}×{n}")
        if any(not (0 <= x < n and 0 <= y < n) for x, y in rocks):
            raise ValueError(f"expected every rock inside the {n}×{n} grid, got {rocks}")
        self.n, self.k, self.rocks, self.discount = n, k, tuple(rocks), discount
        self.half_efficiency_distance = half_efficiency_distance
        self.n_actions = FIRST_CHECK + k
        self.start_cell = (n // 2) * n
        cells = np.arange(n * n)
        self._x, self._y = cells % n, cells // n
        rock_x, rock_y = (np.array([r[axis] for r in rocks], np.int64) for axis in (0, 1))
        self._rock_at = np.full(n * n, -1, np.int64)
        self._rock_at[rock_y * n + rock_x] = np.arange(k)
        #: [k, n·n]: probability that a check of rock i from a cell is right.
        self.accuracy = 0.5 + 0.5 * 2.0 ** (
            -np.hypot(self._x[None] - rock_x[:, None], self._y[None] - rock_y[:, None]) / half_efficiency_distance
        )
        #: [k, n·n]: γ to the Manhattan distance between rock i and a cell.
        self._reach = discount ** (np.abs(self._x[None] - rock_x[:, None]) + np.abs(self._y[None] - rock_y[:, None]))
        self._exit = 10.0 * discount ** (n - 1 - self._x)
        self._rock_cells = rock_y * n + rock_x

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states, each rock good with probability one half; int64 [n, 1]."""
        return (rng.integers(0, 1 << self.k, n) << 16 | self.start_cell)[:, None]

    def _move(self, cell: Array, actions: Array) -> tuple[Array, Array, Array]:
        x, y = self._x[cell], self._y[cell]
        x2 = x + (actions == EAST) - (actions == WEST)
        y2 = y + (actions == NORTH) - (actions == SOUTH)
        leaves = x2 >= self.n
        off = (x2 < 0) | (y2 < 0) | (y2 >= self.n)
        return np.where(leaves | off, cell, y2 * self.n + x2), leaves, off

    def _sample(self, cell: Array, rocks: Array, actions: Array) -> tuple[Array, Array, Array]:
        sampling = actions == SAMPLE
        here = self._rock_at[cell]
        good = ((rocks >> np.maximum(here, 0)) & 1 == 1) & (here >= 0)
        reward = np.where(sampling, np.where(here < 0, -100.0, np.where(good, 10.0, -10.0)), 0.0)
        return sampling, np.where(sampling & good, rocks & ~(1 << np.maximum(here, 0)), rocks), reward

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch; one draw an item."""
        packed = states[:, 0]
        cell, rocks = packed & 0xFFFF, packed >> 16
        moved, leaves, off = self._move(cell, actions)
        _, left_rocks, reward = self._sample(cell, rocks, actions)
        reward = reward + np.where(leaves, 10.0, 0.0) + np.where(off, -100.0, 0.0)
        checked = np.maximum(actions - FIRST_CHECK, 0)
        right = rng.random(len(states)) < self.accuracy[checked, cell]
        good = (rocks >> checked) & 1 == 1
        reading = np.where(actions >= FIRST_CHECK, np.where(good == right, GOOD, BAD), NONE)
        return Step((left_rocks << 16 | moved)[:, None], reading, reward, leaves)

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return the log-likelihood of a reading; float64 [B]."""
        if action < FIRST_CHECK:
            return np.full(len(states), 0.0 if observation == NONE else -np.inf)
        if observation == NONE:
            return np.full(len(states), -np.inf)
        packed = next_states[:, 0]
        rock = action - FIRST_CHECK
        good = (packed >> (16 + rock)) & 1 == 1
        right = self.accuracy[rock, packed & 0xFFFF]
        with np.errstate(divide="ignore"):
            return np.log(np.where(good == (observation == GOOD), right, 1.0 - right))

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Guess 12·γ^(distance to the nearest good rock), or the way out when no rock is good; float64 [B]."""
        packed = states[:, 0]
        cell = packed & 0xFFFF
        good = (packed[:, None] >> (16 + np.arange(self.k))) & 1 == 1
        nearest = np.where(good, self._reach[:, cell].T, 0.0).max(axis=1)
        at_rock = max(12.0 * self.discount, 10.0)
        hint = np.where(nearest >= 1.0, at_rock, 12.0 * nearest)
        return np.where(nearest > 0.0, hint, self._exit[cell])

    def initial_distribution(self) -> tuple[Array, Array]:
        """List all 2^k settings of the rocks with equal probability."""
        states = (np.arange(1 << self.k, dtype=np.int64) << 16 | self.start_cell)[:, None]
        return states, np.full(1 << self.k, 0.5**self.k)

    def transitions(self, states: Array, action: int) -> Transitions:
        """List the outcomes: one for each state, for all moves are sure."""
        n = len(states)
        packed = states[:, 0]
        actions = np.full(n, action)
        cell, rocks = packed & 0xFFFF, packed >> 16
        moved, leaves, off = self._move(cell, actions)
        _, left_rocks, reward = self._sample(cell, rocks, actions)
        reward = reward + np.where(leaves, 10.0, 0.0) + np.where(off, -100.0, 0.0)
        return Transitions(np.arange(n), (left_rocks << 16 | moved)[:, None], np.ones(n), reward, leaves)

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import rocksample_numba as k

        x, y, last = self._x, self._y, self.n - 1
        moves = [np.where(y < last, self.n, 0), x < last, np.where(y > 0, -self.n, 0), np.where(x > 0, -1, 0)]
        ints = np.concatenate([[self.n, self.k], self._rock_at, *moves]).astype(np.int64)
        floats = np.concatenate(
            [[max(12.0 * self.discount, 10.0)], self._exit, self.accuracy.ravel(), self._reach.T.ravel()]
        )
        return CompiledModel(k.step, k.hint, k.log_likelihood, ints, floats, "builtin:rocksample", k.upper)

    def on_tensors(self, device: str) -> Model | None:
        """Return the same map on torch tensors; None for a subclass, whose rules may differ."""
        if type(self) is not RockSample:
            return None
        from sfumato_vopp.models.rocksample_torch import TorchRockSample

        return TorchRockSample(self.n, self.k, self.rocks, self.discount, self.half_efficiency_distance, device=device)

    def describe_state(self, state: Array) -> str:
        """Name the rover's cell and the good rocks."""
        cell, rocks = int(state[0]) & 0xFFFF, int(state[0]) >> 16
        good = [i for i in range(self.k) if rocks >> i & 1]
        return f"rover at ({cell % self.n}, {cell // self.n}), good rocks {good}"
