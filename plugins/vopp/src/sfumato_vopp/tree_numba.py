"""The tree of the fused CPU search: arrays grown by doubling, and what a planner asks of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp import search_numba as k
from sfumato_vopp.config import SearchConfig
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, CompiledModel, Model

__all__ = ["NumbaTree", "longer"]

_KERNELS: dict[tuple[int, int], Any] = {}


def longer(array: Array, size: int) -> Array:
    """Return an array of the given size that begins with the old content."""
    out = np.empty(size, array.dtype)
    out[: array.size] = array
    return out


def apart(rows: int, width: int, dtype: Any) -> Array:
    """Return zeros [rows, width] with a cache line or two to themselves on either side.

    What a kernel writes at every draw must not share a line with the like of another thread's tree: small arrays made one
    after the other lie side by side, and each write would then take the line away from the other core.
    """
    aside = -(-256 // (width * np.dtype(dtype).itemsize))
    return np.zeros((rows + 2 * aside, width), dtype)[aside : aside + rows]


class NumbaTree:
    """A tree in arrays and the two kernels that work on it.

    One search uses it at a time. ``begin`` empties it without giving memory back, so a robot's later decisions allocate
    nothing.
    """

    #: Visits from which a belief gets an index of cumulative weights.
    ROW_VISITS = 6

    def __init__(self, model: Model, compiled: CompiledModel, config: SearchConfig, eta: float, storage: str = "dense") -> None:
        self._model, self._compiled, self._config, self.eta, self.storage = model, compiled, config, eta, storage
        key = (id(compiled.step), id(compiled.hint))
        if key not in _KERNELS:
            _KERNELS[key] = k.forward_kernel(compiled)
        self._forward = _KERNELS[key]
        self._A = model.n_actions
        self._counters = apart(16, 1, np.int64)[:, 0]
        self._scratch = apart(1, model.state_width, model.state_dtype)
        self._stream = apart(1, 1, np.uint64)[:, 0]
        self._leaf = config.initial_preference == "leaf"
        self._prior = 0.0 if self._leaf else config.initial_constant
        self.overflow = False
        self._allocate(min(1 << 16, config.max_nodes))

    def _allocate(self, beliefs: int) -> None:
        self._bel, self._act = np.zeros(beliefs, k.BELIEF), np.zeros(beliefs, k.ACTION)
        self._visited = np.zeros(beliefs, np.int32)
        self._table = np.zeros(1 << (4 * beliefs - 1).bit_length(), np.int32)
        self._row_start, self._row_size, self._row_room = (np.zeros(max(16, beliefs // 8), np.int64) for _ in range(3))
        slots = max(4 * self._A, beliefs)
        self._cum, self._slot_act, self._slot_id = np.zeros(slots), np.zeros(slots, np.int32), np.zeros(slots, np.int32)

    def _arrays(self) -> tuple[Array, ...]:
        return (
            self._bel, self._act, self._visited, self._table, self._row_start, self._row_size, self._row_room,
            self._cum, self._slot_act, self._slot_id,
        )  # fmt: skip

    def reserve(self, beliefs: int) -> None:
        """Make room for this many nodes and touch the memory, so that no later decision waits for it."""
        if beliefs > self._bel.size:
            self._allocate(min(beliefs, self._config.max_nodes))
        for array in self._arrays():
            array.view(np.uint8)[:: 4096] = 0

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(a.nbytes for a in self._arrays())

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return int(self._counters[k.N_BELIEFS])

    @property
    def n_action_nodes(self) -> int:
        """Action nodes, each tried at least once."""
        return int(self._counters[k.N_ACTIONS])

    @property
    def steps(self) -> int:
        """Simulated model steps since ``begin``."""
        return int(self._counters[k.STEPS])

    def begin(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        self._set_root(particles, cumulative, seed)
        self._counters[:] = 0
        self._counters[k.N_BELIEFS] = 1
        self._set_mask(min(1 << 12, self._table.size))
        root = self._bel
        for name, value in (("parent", -1), ("n", 0), ("obs", -1), ("hint", 0), ("share", 0), ("v", 0), ("untried", 0)):
            root[name][0] = value
        for name, value in (("hint_n", 0), ("row", k.LEAF), ("stamp", -1), ("first", -1)):
            root[name][0] = value
        if self._leaf:
            # The root is never arrived at, so its leaf estimate comes from its particles.
            few = self._particles[:256]
            root["hint"][0] = float(np.sum(self._model.value_hint(few, np.zeros(len(few), np.int64))))
            root["hint_n"][0] = len(few)

    def _set_root(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        self.overflow = False
        self._particles = np.ascontiguousarray(particles, self._model.state_dtype)
        self._weighted = cumulative is not None
        self._cumulative = np.ones(1) if cumulative is None else np.ascontiguousarray(cumulative, np.float64)
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)

    def reroot(self, action: int, observation: int, particles: Array, cumulative: Array | None, seed: int) -> int:
        """Keep the subtree below an action and an observation, and make it the tree; returns the belief nodes kept.

        Returns 0, and leaves a tree that has to be begun anew, where the search never came that way. The particles have to
        follow the same history, or the kept averages are those of another belief.
        """
        e = int(self._bel["first"][0]) if self._bel["row"][0] != k.LEAF else -1
        while e >= 0 and int(self._act["id"][e]) != action:
            e = int(self._act["next"][e])
        if e < 0:
            return 0
        b = int(k.find_child(e, observation, int(self._counters[k.HASH_MASK]), self._table, self._bel))
        if b < 0 or self._bel["row"][b] == k.LEAF:
            return 0
        n_beliefs, n_acts = self.n_beliefs, self.n_action_nodes
        kept, kept_acts = k.compact(
            b, n_beliefs, n_acts, self._bel, self._act, np.empty(n_beliefs, np.int64), np.empty(n_acts, np.int64)
        )
        self._set_root(particles, cumulative, seed)
        mask = int(self._counters[k.HASH_MASK])
        self._counters[:] = 0
        self._counters[k.N_BELIEFS], self._counters[k.N_ACTIONS] = kept, kept_acts
        self._set_mask(mask + 1)
        return int(kept)

    def _set_mask(self, size: int) -> None:
        self._counters[k.HASH_MASK] = size - 1
        k.rehash(self._table, size - 1, self.n_beliefs, self._bel)

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run one iteration: n_episodes of the given length, then the backup. Returns the episodes that were run.

        Raises:
            ModelError: a reward or a state that is not finite, or an observation that is not whole or out of range.
        """
        c, m, counters = self._config, self._compiled, self._counters
        counters[k.EPISODE] = 0
        n_observations = -1 if self._model.n_observations is None else self._model.n_observations
        dense = self.storage == "dense"
        while True:
            code = self._forward(
                counters, self._scratch, self._stream, self._particles, self._cumulative, self._weighted, n_episodes,
                first_episode, depth, self._A, n_observations, self._seed, iteration, self._leaf, c.root_mixing, dense,
                m.ints, m.floats, self._table, self._visited, self._bel, self._act,
                self._row_start, self._row_size, self._cum, self._slot_act, self._slot_id,
            )  # fmt: skip
            if code != k.FULL:
                break
            if not self._grow(depth):
                self.overflow = True
                break
        if code == k.BAD_REWARD:
            raise ModelError(
                f"expected finite rewards, got one that is not after action {int(counters[k.WHICH_ACTION])}; "
                "check the model's step"
            )
        if code == k.BAD_OBSERVATION:
            raise ModelError(
                f"expected observations in 0 … {n_observations - 1}, got {int(counters[k.WHICH_OBSERVATION])} after action "
                f"{int(counters[k.WHICH_ACTION])}; set n_observations = None when any number may come"
            )
        if code == k.NOT_WHOLE:
            raise ModelError(
                f"expected whole-number observations, got another after action {int(counters[k.WHICH_ACTION])}; let step return "
                "an integer"
            )
        if code == k.BAD_STATE:
            raise ModelError(
                f"expected finite states, got NaN or infinity after action {int(counters[k.WHICH_ACTION])}; check the model's step"
            )
        k.backup(
            counters, self._visited, c.backup == "tree", iteration, self._A, self.eta, self._model.discount,
            self._leaf, self._prior, c.denominator == "survivors", c.log_sum == "children", c.subtract == "all", c.clip,
            dense, self.ROW_VISITS, self._bel, self._act,
            self._row_start, self._row_size, self._row_room, self._cum, self._slot_act, self._slot_id,
        )  # fmt: skip
        self._grow_index()
        return int(counters[k.EPISODE])

    def _grow(self, depth: int) -> bool:
        """Make room for at least one more episode; False when the limit of the settings is reached."""
        beliefs, acts, limit = self.n_beliefs + depth + 1, self.n_action_nodes + depth, self._config.max_nodes
        if beliefs > self._bel.size or acts > self._act.size:
            if beliefs > self._bel.size >= limit or acts > self._act.size >= 2 * limit:
                return False
            if beliefs > self._bel.size:
                room = max(min(2 * self._bel.size, limit), beliefs)
                self._bel, self._visited = longer(self._bel, room), longer(self._visited, room)
            if acts > self._act.size:
                self._act = longer(self._act, max(min(2 * self._act.size, 2 * limit), acts))
        mask = int(self._counters[k.HASH_MASK])
        if 2 * beliefs > mask:
            size = mask + 1
            while 2 * beliefs > size - 1:
                size *= 2
            if size > self._table.size:
                self._table = np.empty(size, np.int32)
            self._set_mask(size)
        return True

    def _grow_index(self) -> None:
        """Keep half of the index free; a belief that finds no room is walked as a list, which is slower but the same."""
        if 2 * int(self._counters[k.N_ROWS]) > self._row_start.size:
            size = 2 * self._row_start.size
            self._row_start, self._row_size, self._row_room = (
                longer(x, size) for x in (self._row_start, self._row_size, self._row_room)
            )
        if 2 * int(self._counters[k.N_SLOTS]) > self._cum.size:
            size = 2 * self._cum.size
            self._cum, self._slot_act, self._slot_id = (longer(x, size) for x in (self._cum, self._slot_act, self._slot_id))

    def root(self) -> tuple[Array, Array, Array, float]:
        """Return the root's preferences [A], visits [A], mean values [A] (NaN where untried), and value."""
        psi = np.full(self._A, float(self._bel["hint"][0]) if self._bel["row"][0] != k.LEAF else 0.0)
        visits, q = np.zeros(self._A, np.int64), np.full(self._A, np.nan)
        e = int(self._bel["first"][0]) if self._bel["row"][0] != k.LEAF else -1
        while e >= 0:
            node = self._act[e]
            n, a = int(node["n"]), int(node["id"])
            below = n - int(node["end"]) if self._config.denominator == "survivors" else n
            psi[a], visits[a] = node["psi"], n
            q[a] = node["reward"] / n + self._model.discount * (node["q_sum"] / below if below > 0 else 0.0)
            e = int(node["next"])
        return psi, visits, q, float(self._bel["v"][0])

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.bincount(k.depths(self.n_beliefs, self._bel, self._act))
