"""Bring your own simulator: one state at a time, or with readings that are real numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, Model, Step

__all__ = ["ContinuousModel", "MedianCells", "ScalarSimulator"]


class ScalarSimulator(Model):
    """A model from a simulator that steps one state at a time, say a C++ one bound to Python, run by several threads.

    Threads only help where the simulator gives the interpreter lock back (pybind's ``gil_scoped_release``); pure Python gains
    nothing from them. Each chunk of a batch has a generator of its own, so results do not depend on the number of threads.

    Arguments:
        initial: ``initial(rng) -> state [d]``.
        step: ``step(state [d], action, rng) -> (next state [d], observation, reward, terminal)``.
        log_likelihood: ``log_likelihood(observation, state, action, next_state) -> float``.
        n_actions, state_width, reward_range, discount, n_observations, state_dtype: as in :class:`Model`.
        value_hint: ``value_hint(state, action) -> float``; zero when not given.
        n_threads: threads that step; chunk: states a task.
    """

    def __init__(
        self,
        *,
        initial: Callable[[np.random.Generator], Any],
        step: Callable[[Array, int, np.random.Generator], tuple[Any, int, float, bool]],
        log_likelihood: Callable[[int, Array, int, Array], float],
        n_actions: int,
        state_width: int,
        reward_range: tuple[float, float],
        discount: float = 0.95,
        n_observations: int | None = None,
        state_dtype: Any = np.float64,
        value_hint: Callable[[Array, int], float] | None = None,
        n_threads: int = 1,
        chunk: int = 64,
    ) -> None:
        if n_threads < 1 or chunk < 1:
            raise ValueError(f"expected n_threads >= 1 and chunk >= 1, got {n_threads} and {chunk}")
        self.n_actions, self.state_width, self.discount = n_actions, state_width, discount
        self.reward_range, self.n_observations, self.state_dtype = reward_range, n_observations, state_dtype
        self._initial, self._step, self._likelihood, self._hint = initial, step, log_likelihood, value_hint
        self._chunk = chunk
        self._pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states, one call each."""
        return np.array([self._initial(rng) for _ in range(n)], self.state_dtype).reshape(n, self.state_width)

    def _run(self, states: Array, actions: Array, rng: np.random.Generator) -> list[tuple[Any, int, float, bool]]:
        return [self._step(states[i], int(actions[i]), rng) for i in range(len(states))]

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch, in chunks spread over the threads."""
        n = len(states)
        starts = range(0, n, self._chunk)
        seeds = rng.integers(0, 2**63, len(starts))
        jobs = [
            (states[i : i + self._chunk], actions[i : i + self._chunk], np.random.default_rng(int(s)))
            for i, s in zip(starts, seeds, strict=True)
        ]
        if self._pool is None:
            parts = [self._run(*job) for job in jobs]
        else:
            parts = list(self._pool.map(lambda job: self._run(*job), jobs))
        rows = [row for part in parts for row in part]
        following = np.array([row[0] for row in rows], self.state_dtype).reshape(n, -1)
        return Step(
            following,
            np.array([row[1] for row in rows], np.int64).reshape(n),
            np.array([row[2] for row in rows], np.float64).reshape(n),
            np.array([row[3] for row in rows], np.bool_).reshape(n),
        )

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return the likelihood of each row, one call each."""
        pairs = zip(states, next_states, strict=True)
        return np.array([self._likelihood(observation, s, action, t) for s, t in pairs], np.float64).reshape(len(states))

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Return the hint of each row, one call each."""
        if self._hint is None:
            return np.zeros(len(states))
        return np.array([self._hint(s, int(a)) for s, a in zip(states, actions, strict=True)], np.float64)


class MedianCells:
    """Cells of readings of about equal probability, from a sample: split at the median of the component that spreads most.

    Each component is measured in units of its standard deviation. Encoding B readings costs O(B log cells).

    Arguments:
        sample: float64 [N, k], finite.
        n_cells: rounded down to a power of two.
    """

    def __init__(self, sample: Array, n_cells: int) -> None:
        if n_cells < 1:
            raise ModelError(f"expected n_cells >= 1, got {n_cells}")
        if not np.all(np.isfinite(sample)):
            raise ModelError("expected finite readings, got NaN or infinity; check the sensor or the model")
        depth = n_cells.bit_length() - 1
        self._component, self._threshold = np.zeros((1 << depth) - 1, np.int64), np.zeros((1 << depth) - 1)
        self._first_leaf = len(self._component)
        scale = np.maximum(sample.std(axis=0), 1e-12)
        parts = {0: sample}
        self._middle: dict[int, Array] = {}
        for node in range(2 * self._first_leaf + 1):
            part = parts.pop(node)
            if node >= self._first_leaf:
                self._middle[node - self._first_leaf] = part.mean(axis=0) if len(part) else sample.mean(axis=0)
                continue
            spread = part.std(axis=0) / scale if len(part) else np.zeros(sample.shape[1])
            self._component[node] = component = int(np.argmax(spread))
            self._threshold[node] = threshold = float(np.median(part[:, component])) if len(part) else 0.0
            above = part[:, component] > threshold
            parts[2 * node + 1], parts[2 * node + 2] = part[~above], part[above]

    def encode(self, readings: Array) -> Array:
        """Return the cell of each reading [B, k]; int64 [B], 0 … cells-1."""
        rows = np.arange(len(readings))
        node = np.zeros(len(readings), np.int64)
        while len(node) and node[0] < self._first_leaf:
            node = 2 * node + 1 + (readings[rows, self._component[node]] > self._threshold[node])
        return node - self._first_leaf

    def middle(self, cell: int) -> Array | None:
        """Return the mean reading [k] of a cell, or None where there is no such cell."""
        return self._middle.get(cell)


class ContinuousModel(Model):
    """A model whose observations are vectors of real numbers, planned with on cells of readings.

    The tree branches on the cell of a reading; the filter keeps using the exact density of the reading itself. ``update``
    therefore takes what the sensor said: see :meth:`remember`.

    Subclasses write ``initial``, ``step_continuous`` and ``log_density``. Cells are a grid where ``cell`` is set. Where it is
    None the library makes them: before the first use it simulates, and splits the readings it saw at medians until there are
    ``n_cells`` of about equal probability. Many components, a lidar say, need that: on a grid every reading is new, and the
    tree never grows deeper than one step.

    Attributes:
        cell: width of a grid cell in each component of a reading, [k]; None: cells are fitted.
        n_cells: how many cells to fit, at most.
    """

    n_observations = None
    cell: Sequence[float] | None = (1.0,)
    n_cells: int = 16
    _kept: dict[int, Array]
    _splits: MedianCells | None = None

    def step_continuous(self, states: Array, actions: Array, rng: Any) -> tuple[Array, Array, Array, Array]:
        """Advance a batch; returns (states [B, d], readings float64 [B, k], rewards [B], terminal bool [B])."""
        raise NotImplementedError

    def log_density(self, reading: Array, states: Array, action: int, next_states: Array) -> Array:
        """Return the log-density of a reading [k] for each row; float64 [B]."""
        raise NotImplementedError

    def encode(self, readings: Array) -> Array:
        """Return the code of each reading [B, k]; int64 [B].

        Raises:
            ModelError: a reading that is not finite, or lies more than 2^(62/k - 1) cells from zero.
        """
        readings = np.asarray(readings, np.float64)
        if not np.all(np.isfinite(readings)):
            raise ModelError("expected finite readings, got NaN or infinity; check the sensor or the model")
        if self.cell is None:
            return self._fitted().encode(readings)
        width = np.asarray(self.cell, np.float64)
        readings = readings.reshape(-1, len(width))
        bits = 62 // len(width)
        scaled = np.floor(readings / width)
        if np.any(np.abs(scaled) >= 1 << (bits - 1)):
            raise ModelError(f"expected readings within {1 << (bits - 1)} cells of zero, got one beyond; widen 'cell'")
        cells = scaled.astype(np.int64) + (1 << (bits - 1))
        code = np.zeros(len(cells), np.int64)
        for column in range(len(width)):
            code = code << bits | cells[:, column]
        return code

    def _fitted(self) -> MedianCells:
        if self._splits is None:
            rng = np.random.default_rng(0)
            states, seen = self.initial(1024, rng), []
            for _ in range(8):
                actions = rng.integers(0, self.n_actions, len(states))
                following, readings, _, terminal = self.step_continuous(states, actions, rng)
                seen.append(np.asarray(readings, np.float64).reshape(len(states), -1))
                states = np.where(terminal[:, None], self.initial(len(states), rng), following)
            self._splits = MedianCells(np.concatenate(seen), self.n_cells)
        return self._splits

    def remember(self, reading: Array) -> int:
        """Return the code of one reading [k] for ``update``, and keep the reading, so that its exact density is used."""
        code = int(self.encode(np.asarray(reading)[None])[0])
        if not hasattr(self, "_kept"):
            self._kept = {}
        self._kept[code] = np.asarray(reading, np.float64)
        return code

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch; observations are the codes of the readings' cells."""
        following, readings, rewards, terminal = self.step_continuous(states, actions, rng)
        return Step(following, self.encode(readings), rewards, terminal)

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return the log-density at the reading remembered under this code, or at the middle of its cell."""
        reading = getattr(self, "_kept", {}).get(observation)
        if reading is None and self.cell is None:
            reading = self._fitted().middle(observation)
        if reading is None:
            width = np.asarray(self.cell, np.float64)
            bits = 62 // len(width)
            cells = [(observation >> bits * i & ((1 << bits) - 1)) - (1 << (bits - 1)) for i in range(len(width))]
            reading = (np.array(cells[::-1]) + 0.5) * width
        return self.log_density(reading, states, action, next_states)
