"""PO-UCT, the search of POMCP, compiled, on the same models as VOPP: one simulation after another, UCB1 at every node.

Source: Silver and Veness, "Monte-Carlo planning in large POMDPs", NeurIPS 2010, Algorithm 1. The belief is handed in from
outside rather than kept as particles in the nodes, as for every planner here, so that planners are compared on one filter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.borrow_numba import borrow
from sfumato_vopp.config import POMCPConfig
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.counter_numba import GAMMA, episode_key, uniform
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, CompiledModel, Model
from sfumato_vopp.numba_cache import with_disk_cache
from sfumato_vopp.search_numba import child_slot, rehash
from sfumato_vopp.tree_numba import longer

__all__ = ["POMCPTree"]

BELIEF = np.dtype(
    [("parent", np.int32), ("row", np.int32), ("obs", np.int64), ("n", np.int64), ("depth", np.int32), ("unused", np.int32)]
)

_SLOTS = np.uint64(SLOTS_PER_STEP)
N_BELIEFS, N_ROWS, HASH_MASK, DONE, STEPS, BAD_ACTION = range(6)


def simulate_kernel(model: CompiledModel) -> Any:
    """Build the simulation kernel of one compiled model."""
    step, hint = model.step, model.hint

    def simulate(  # type: ignore[no-untyped-def]
        counters, S_, stream_, particles_, cumulative, weighted, n_episodes, first_episode, depth, n_actions, discount, seed,
        exploration, use_hint, ints_, floats_, table_, path, rewards,
        bel_, act_n_, act_q_, act_child_,
    ):
        S, stream, particles, ints, floats = borrow(S_), borrow(stream_), borrow(particles_), borrow(ints_), borrow(floats_)
        table, bel, act_n, act_q, act_child = (
            borrow(table_), borrow(bel_), borrow(act_n_), borrow(act_q_), borrow(act_child_)
        )
        n_beliefs, n_rows, mask = counters[N_BELIEFS], counters[N_ROWS], counters[HASH_MASK]
        steps = counters[STEPS]
        width, n_particles = particles.shape[1], particles.shape[0]
        code = 0
        while counters[DONE] < n_episodes:
            if n_beliefs + 2 > bel.size or (n_rows + 1) * n_actions > act_n.size or 2 * (n_beliefs + 2) > mask:
                code = 1
                break
            key = episode_key(seed, first_episode + counters[DONE])
            stream[0] = key
            u = uniform(stream)
            if weighted:
                low, high, x = 0, n_particles - 1, u * cumulative[n_particles - 1]
                while low < high:
                    mid = (low + high) >> 1
                    if cumulative[mid] <= x:
                        low = mid + 1
                    else:
                        high = mid
                start = low
            else:
                start = int(u * n_particles)
            for j in range(width):
                S[0, j] = particles[start, j]
            b = 0
            length = 0
            tail = 0.0
            ended = False
            while length < depth:
                stream[0] = key + (np.uint64(1) + np.uint64(length) * _SLOTS) * GAMMA
                u = uniform(stream)
                row = bel[b].row
                created = row < 0
                if created:
                    row = n_rows
                    n_rows += 1
                    bel[b].row = row
                    for a in range(row * n_actions, (row + 1) * n_actions):
                        act_n[a] = 0
                        act_q[a] = 0.0
                        act_child[a] = -1
                e = row * n_actions
                # An untried action goes first; which one is drawn evenly, so that no id is favoured.
                untried = 0
                for a in range(n_actions):
                    untried += act_n[e + a] == 0
                a = 0
                if untried > 0:
                    rank = int(u * untried)
                    for j in range(n_actions):
                        if act_n[e + j] == 0:
                            if rank == 0:
                                a = j
                                break
                            rank -= 1
                else:
                    log_n = np.log(bel[b].n)
                    best = -np.inf
                    for j in range(n_actions):
                        score = act_q[e + j] + exploration * np.sqrt(log_n / act_n[e + j])
                        if score > best:
                            best, a = score, j
                bel[b].n += 1
                o, r, ended = step(S, 0, a, stream, ints, floats)
                steps += 1
                if not np.isfinite(r):
                    counters[BAD_ACTION] = a
                    code = 2
                    break
                path[length] = e + a
                rewards[length] = r
                length += 1
                if ended:
                    break
                if created or length == depth:
                    # A new node, or the horizon: the rest is guessed by a random rollout or by the model's hint.
                    if use_hint:
                        tail = hint(S, 0, a, ints, floats)
                    else:
                        scale = 1.0
                        for d in range(length, depth):
                            stream[0] = key + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                            a = int(uniform(stream) * n_actions)
                            o, r, ended = step(S, 0, a, stream, ints, floats)
                            steps += 1
                            tail += scale * r
                            scale *= discount
                            if ended:
                                break
                    break
                child = act_child[e + a]
                if child < 0 or bel[child].obs != o:
                    p = child_slot(e + a, o, mask)
                    while True:
                        child = table[p]
                        if child < 0:
                            child = n_beliefs
                            n_beliefs += 1
                            table[p] = child
                            bel[child].parent = e + a
                            bel[child].obs = o
                            bel[child].n = 0
                            bel[child].row = -1
                            bel[child].depth = length
                            break
                        if bel[child].parent == e + a and bel[child].obs == o:
                            break
                        p = (p + 1) & mask
                    act_child[e + a] = child
                b = child
            if code != 0:
                break
            value = tail
            for d in range(length - 1, -1, -1):
                value = rewards[d] + discount * value
                e = path[d]
                act_n[e] += 1
                act_q[e] += (value - act_q[e]) / act_n[e]
            counters[DONE] += 1
        counters[N_BELIEFS], counters[N_ROWS], counters[STEPS] = n_beliefs, n_rows, steps
        return code

    return with_disk_cache(simulate, model.cache_key)


_KERNELS: dict[tuple[int, int], Any] = {}


class POMCPTree:
    """A UCT tree in arrays; same interface as VOPP's trees."""

    storage = "dense"

    def __init__(self, model: Model, compiled: CompiledModel, config: POMCPConfig) -> None:
        self._model, self._compiled, self._config = model, compiled, config
        key = (id(compiled.step), id(compiled.hint))
        if key not in _KERNELS:
            _KERNELS[key] = simulate_kernel(compiled)
        self._simulate = _KERNELS[key]
        self._A = model.n_actions
        self._counters = np.zeros(8, np.int64)
        self._scratch = np.zeros((1, model.state_width), model.state_dtype)
        self._stream = np.zeros(1, np.uint64)
        low, high = model.reward_range
        self._exploration = (high - low) if config.exploration is None else config.exploration
        self.overflow = False
        self._bel: Array = np.empty(1 << 12, BELIEF)
        rows = max(64, (1 << 16) // self._A)
        self._act: dict[str, Array] = {
            name: np.empty(rows * self._A, dtype)
            for name, dtype in (("n", np.int64), ("q", np.float64), ("child", np.int32))
        }
        self._table = np.full(1 << 14, -1, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(a.nbytes for a in [self._bel, *self._act.values(), self._table])

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return int(self._counters[N_BELIEFS])

    @property
    def n_action_nodes(self) -> int:
        """Action nodes that were tried at least once."""
        return int(np.count_nonzero(self._act["n"][: int(self._counters[N_ROWS]) * self._A]))

    @property
    def steps(self) -> int:
        """Simulated model steps since ``begin``, rollouts included."""
        return int(self._counters[STEPS])

    def begin(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        self._particles = np.ascontiguousarray(particles, self._model.state_dtype)
        self._weighted = cumulative is not None
        self._cumulative = np.ones(1) if cumulative is None else np.ascontiguousarray(cumulative, np.float64)
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._counters[:] = 0
        self._counters[N_BELIEFS] = 1
        self._set_mask(1 << 12)
        self._bel[0] = (-1, -1, -1, 0, 0, 0)
        self.overflow = False

    def _set_mask(self, size: int) -> None:
        self._counters[HASH_MASK] = size - 1
        rehash(self._table, size - 1, self.n_beliefs, self._bel)

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run n simulations of at most the given depth; returns how many were run."""
        m, counters = self._compiled, self._counters
        counters[DONE] = 0
        path, rewards = np.empty(depth, np.int64), np.empty(depth)
        while True:
            a = self._act
            code = self._simulate(
                counters, self._scratch, self._stream, self._particles, self._cumulative, self._weighted, n_episodes, first_episode,
                depth, self._A, self._model.discount, self._seed, self._exploration, self._config.leaf == "hint",
                m.ints, m.floats, self._table, path, rewards,
                self._bel, a["n"], a["q"], a["child"],
            )  # fmt: skip
            if code != 1:
                break
            if not self._grow():
                self.overflow = True
                break
        if code == 2:
            raise ModelError(
                f"expected finite rewards, got one that is not after action {int(counters[BAD_ACTION])}; check the model's step"
            )
        return int(counters[DONE])

    def _grow(self) -> bool:
        room = self._bel.size
        if self.n_beliefs + 2 > room:
            if room >= self._config.max_nodes:
                return False
            self._bel = longer(self._bel, min(2 * room, self._config.max_nodes))
        if (int(self._counters[N_ROWS]) + 1) * self._A > self._act["n"].size:
            if 2 * self._act["n"].size >= 2**31:
                return False
            self._act = {name: longer(x, 2 * x.size) for name, x in self._act.items()}
        if 2 * (self.n_beliefs + 2) > int(self._counters[HASH_MASK]):
            size = 2 * (int(self._counters[HASH_MASK]) + 1)
            if size > self._table.size:
                self._table = longer(self._table, size)
            self._set_mask(size)
        return True

    def root(self) -> tuple[Array, Array, Array, float]:
        """Return the root's mean values [A] (-inf where untried), visits [A], mean values [A] (NaN), and the best value."""
        row = int(self._bel["row"][0])
        if row < 0:
            return np.full(self._A, -np.inf), np.zeros(self._A, np.int64), np.full(self._A, np.nan), 0.0
        at = slice(row * self._A, (row + 1) * self._A)
        n, q = self._act["n"][at].copy(), self._act["q"][at].copy()
        tried = n > 0
        return np.where(tried, q, -np.inf), n, np.where(tried, q, np.nan), float(q[tried].max(initial=-np.inf))

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.bincount(self._bel["depth"][: self.n_beliefs])
