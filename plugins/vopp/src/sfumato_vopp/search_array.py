"""The search of VOPP on arrays, level by level: the form of the method that a GPU runs, and the oracle of the compiled one.

All episodes of an iteration advance together. At each level one batched call steps the model, and the new nodes are found
by sorting keys. Nothing here names an array library; see :mod:`sfumato_vopp.ops`.

Source: Hoerger, Sudrajat, Kurniawati, "Vectorized Online POMDP Planning", 2025 (arXiv:2510.27191), §IV; the update of the
preferences is that of Kim and Kurniawati, "Partially Observable Reference Policy Programming", IJCAI 2025.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.config import SearchConfig
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.model import Array, Model, check_step
from sfumato_vopp.ops import NumpyOps

__all__ = ["ArrayTree"]


class Table:
    """Named columns of equal length, grown by doubling."""

    def __init__(self, ops: Any, columns: dict[str, tuple[str, float]], width: int = 0) -> None:
        self._ops, self._columns, self._width = ops, columns, width
        self.size = 0
        self._room = 0
        self._data: dict[str, Any] = {}
        self._reserve(256)

    def _reserve(self, room: int) -> None:
        for name, (kind, fill) in self._columns.items():
            shape = (room, self._width) if self._width else (room,)
            fresh = self._ops.full(shape, fill, kind)
            if name in self._data:
                fresh[: self.size] = self._data[name][: self.size]
            self._data[name] = fresh
        self._room = room

    def append(self, count: int) -> None:
        """Add rows holding each column's fill value."""
        if self.size + count > self._room:
            self._reserve(max(2 * self._room, self.size + count))
        for name, (_, fill) in self._columns.items():
            self._data[name][self.size : self.size + count] = fill
        self.size += count

    def __getitem__(self, name: str) -> Any:
        return self._data[name][: self.size]

    def flat(self, name: str) -> Any:
        """Return a two-dimensional column as one line; a view."""
        return self[name].reshape(-1)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(int(a.nbytes) for a in self._data.values())


class Index:
    """A map from int64 keys to ids, kept as sorted runs of doubling size: amortised O(n log n) for n new keys."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self._runs: list[tuple[Any, Any]] = []

    def find(self, keys: Any) -> Any:
        """Return the id of each key, -1 where it is not known."""
        ops = self._ops
        found = ops.full(len(keys), -1, "ids")
        for run_keys, run_ids in self._runs:
            place = ops.searchsorted(run_keys, keys)
            place = ops.where(place < len(run_keys), place, 0)
            found = ops.where(run_keys[place] == keys, run_ids[place], found)
        return found

    def add(self, keys: Any, ids: Any) -> None:
        """Add keys that are sorted, distinct and not known yet."""
        ops = self._ops
        self._runs.append((keys, ids))
        while len(self._runs) > 1 and 2 * len(self._runs[-1][0]) > len(self._runs[-2][0]):
            k2, i2 = self._runs.pop()
            k1, i1 = self._runs.pop()
            k, i = ops.concatenate([k1, k2]), ops.concatenate([i1, i2])
            order = ops.argsort(k)
            self._runs.append((k[order], i[order]))


class ArrayTree:
    """A search tree in the arrays of one library, with dense rows of |A| preferences at expanded nodes.

    Same interface as the compiled trees: ``begin``, ``iterate``, ``root``.
    """

    storage = "dense"

    def __init__(self, model: Model, config: SearchConfig, eta: float, ops: Any = None) -> None:
        self._model, self._config, self.eta = model, config, eta
        self._ops: Any = NumpyOps() if ops is None else ops
        self._A = model.n_actions
        self._leaf = config.initial_preference == "leaf"
        self._prior = 0.0 if self._leaf else config.initial_constant
        self._log_actions = float(np.log(self._A)) / eta
        self.overflow = False

    def begin(self, particles: Any, cumulative: Any | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        ops = self._ops
        self.bel = Table(
            ops,
            {
                "parent": ("ids", -1), "obs": ("ids", -1), "n": ("ids", 0), "hint": ("floats", 0.0), "hint_n": ("ids", 0),
                "share": ("floats", 0.0), "v": ("floats", 0.0), "row": ("ids", -1), "stamp": ("ids", -1), "depth": ("ids", 0),
            },
        )
        self.row = Table(ops, {"bel": ("ids", 0), "iteration": ("ids", 0), "prior": ("floats", 0.0)})
        self.act = Table(
            ops,
            {
                "n": ("ids", 0), "end": ("ids", 0), "reward": ("floats", 0.0), "cum": ("floats", 0.0),
                "q_sum": ("floats", 0.0), "psi": ("floats", 0.0),
            },
            self._A,
        )
        self._index = Index(ops)
        self._codes = Index(ops)
        self._n_codes = 0
        self._particles, self._cumulative, self._seed = particles, cumulative, int(seed) & 0xFFFFFFFFFFFFFFFF
        self._n_roots = 1
        self._generator = np.random.default_rng(self._seed)
        self.steps = 0
        self.overflow = False
        self.bel.append(1)
        if self._leaf:
            few = particles[:256]
            hints = self._model.value_hint(few, ops.full(len(few), 0, "ids"))
            self.bel["hint"][0], self.bel["hint_n"][0] = hints.sum(), len(few)

    def begin_many(self, roots: list[tuple[Array, Array | None]], seed: int) -> None:
        """Empty the tree and set several root beliefs, nodes 0 … R-1; the episodes take turns at them."""
        sizes = np.array([len(particles) for particles, _ in roots])
        # Root r owns the part (r, r+1] of one cumulative line, so that one search draws for all roots.
        lines = [
            r + (np.arange(1, n + 1) / n if c is None else np.asarray(c) / c[-1])
            for r, (n, (_, c)) in enumerate(zip(sizes, roots, strict=True))
        ]
        self.begin(self._joined([p for p, _ in roots]), np.concatenate(lines), seed)
        ops = self._ops
        self._n_roots = len(roots)
        self.bel.append(len(roots) - 1)
        if self._leaf:
            first = 0
            for r, n in enumerate(sizes):
                few = self._particles[first : first + min(int(n), 256)]
                hints = self._model.value_hint(few, ops.full(len(few), 0, "ids"))
                self.bel["hint"][r], self.bel["hint_n"][r] = hints.sum(), len(few)
                first += int(n)

    def _joined(self, parts: list[Array]) -> Any:
        return np.concatenate(parts)

    @property
    def nbytes(self) -> int:
        """Bytes held by the tables."""
        return self.bel.nbytes + self.row.nbytes + self.act.nbytes

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return self.bel.size

    @property
    def n_action_nodes(self) -> int:
        """Action nodes that were tried at least once."""
        return int((self.act["n"] > 0).sum())

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run one iteration: n_episodes of the given length, then the backup. Returns the episodes that were run."""
        ops, bel, c = self._ops, self.bel, self._config
        if bel.size + n_episodes * depth > c.max_nodes:
            self.overflow = True
            return 0
        keys = ops.keys(self._seed, first_episode, n_episodes)
        u = ops.draws(keys, 0).random()
        nodes = ops.full(n_episodes, 0, "ids")
        actions = nodes
        if self._n_roots > 1:
            nodes = ops.arange(first_episode, first_episode + n_episodes) % self._n_roots
            start = ops.searchsorted(self._cumulative, u + nodes)
            start = ops.where(start < len(self._particles), start, len(self._particles) - 1)
        elif self._cumulative is None:
            start = ops.truncate(u * len(self._particles))
        else:
            start = ops.first_above(self._cumulative[None, :], u * self._cumulative[-1])
        states = self._particles[start]
        for d in range(depth):
            self._visit(nodes, iteration)
            draws = ops.draws(keys, 1 + d * SLOTS_PER_STEP, SLOTS_PER_STEP)
            actions = self._choose(nodes, draws.random(), iteration, d)
            out = self._model.step(states, actions, draws if self._model.uses_counter_draws else self._generator)
            self._check(out, len(keys))
            self.steps += len(keys)
            entries = bel["row"][nodes] * self._A + actions
            ops.add_at(self.act.flat("n"), entries, 1)
            ops.add_at(self.act.flat("reward"), entries, ops.floats(out.rewards))
            ops.add_at(self.act.flat("end"), entries, ops.ids(out.terminal))
            alive = ops.nonzero(~out.terminal)
            if len(alive) == 0:
                nodes = alive
                break
            states, keys, actions = out.states[alive], keys[alive], actions[alive]
            nodes = self._children(entries[alive], out.observations[alive], d + 1)
            self._hint(nodes, states, actions, iteration, last=d + 1 == depth)
        if len(nodes):
            self._visit(nodes, iteration)
        self._backup(iteration)
        return n_episodes

    def _check(self, out: Any, n: int) -> None:
        check_step(self._model, out, n)

    def _visit(self, nodes: Any, iteration: int) -> None:
        self._ops.add_at(self.bel["n"], nodes, 1)
        self.bel["stamp"][nodes] = iteration

    def _choose(self, nodes: Any, u: Any, iteration: int, d: int) -> Any:
        """Draw one action an episode from softmax(η Ψ); uniform where a node has no preferences yet."""
        ops, bel = self._ops, self.bel
        bare = ops.nonzero(bel["row"][nodes] < 0)
        if len(bare):
            fresh, _ = ops.unique(nodes[bare])
            first = self.row.size
            self.row.append(len(fresh))
            self.act.append(len(fresh))
            bel["row"][fresh] = ops.arange(first, first + len(fresh))
            self.row["bel"][first:] = fresh
            self.row["iteration"][first:] = iteration
        rows = bel["row"][nodes]
        uniform = self.row["iteration"][rows] == iteration
        if d == 0 and self._config.root_mixing > 0.0:
            epsilon = self._config.root_mixing
            mixed = u < epsilon
            u = ops.where(mixed, u / epsilon, (u - epsilon) / max(1.0 - epsilon, 1e-300))
            uniform = uniform | mixed
        cumulative = self.act["cum"][rows]
        by_weight = ops.first_above(cumulative, u * cumulative[:, -1])
        return ops.where(uniform, ops.truncate(u * self._A), by_weight)

    def _children(self, entries: Any, observations: Any, depth: int) -> Any:
        """Return the belief node of each (action entry, observation), creating those that are not there."""
        ops, bel = self._ops, self.bel
        codes = self._codes_of(observations)
        keys, inverse = ops.unique((entries << 31) + codes)
        ids = self._index.find(keys)
        missing = ops.nonzero(ids < 0)
        if len(missing):
            first = bel.size
            bel.append(len(missing))
            fresh = ops.arange(first, bel.size)
            ids[missing] = fresh
            bel["parent"][first:] = keys[missing] >> 31
            bel["depth"][first:] = depth
            self._index.add(keys[missing], fresh)
        nodes = ids[inverse]
        bel["obs"][nodes] = observations
        return nodes

    def _codes_of(self, observations: Any) -> Any:
        """Number arbitrary int64 observations from 0, so that a pair of ids makes one exact key."""
        if self._model.n_observations is not None:
            return observations
        ops = self._ops
        values, inverse = ops.unique(observations)
        codes = self._codes.find(values)
        missing = ops.nonzero(codes < 0)
        if len(missing):
            fresh = ops.arange(self._n_codes, self._n_codes + len(missing))
            codes[missing] = fresh
            self._codes.add(values[missing], fresh)
            self._n_codes += len(missing)
        return codes[inverse]

    def _hint(self, nodes: Any, states: Any, actions: Any, iteration: int, last: bool) -> None:
        """Gather leaf estimates at nodes that were not expanded before this iteration."""
        if not (self._leaf or last):
            return
        ops, bel = self._ops, self.bel
        rows = bel["row"][nodes]
        open_ = ops.nonzero((rows < 0) | (self.row["iteration"][ops.where(rows < 0, 0, rows)] == iteration))
        if len(open_):
            hints = ops.floats(self._model.value_hint(states[open_], actions[open_]))
            ops.add_at(bel["hint"], nodes[open_], hints)
            ops.add_at(bel["hint_n"], nodes[open_], 1)

    def _backup(self, iteration: int) -> None:
        ops, bel = self._ops, self.bel
        if self._config.backup == "tree":
            chosen = ops.arange(0, bel.size)
        else:
            chosen = ops.nonzero(bel["stamp"] == iteration)
        depths = bel["depth"][chosen]
        for level in range(int(depths.max()), -1, -1):
            nodes = chosen[ops.nonzero(depths == level)]
            if len(nodes):
                self._backup_level(nodes, iteration, level)

    def _backup_level(self, nodes: Any, iteration: int, level: int) -> None:
        ops, bel = self._ops, self.bel
        rows = bel["row"][nodes]
        count = bel["hint_n"][nodes]
        v = ops.where(count > 0, bel["hint"][nodes] / ops.where(count > 0, count, 1), 0.0)
        inner = ops.nonzero(rows >= 0)
        if len(inner):
            v[inner] = self._update_preferences(nodes[inner], rows[inner], v[inner], iteration)
        bel["v"][nodes] = v
        if level > 0:
            share = bel["n"][nodes] * v
            ops.add_at(self.act.flat("q_sum"), bel["parent"][nodes], share - bel["share"][nodes])
            bel["share"][nodes] = share

    def _update_preferences(self, nodes: Any, rows: Any, leaf: Any, iteration: int) -> Any:
        """Ψ(b,a) += Q(e) - V_old(b) at m nodes; returns V(b) [m]."""
        ops: Any = self._ops
        act, c = self.act, self._config
        fresh = self.row["iteration"][rows] == iteration
        start = leaf - self._log_actions if self._leaf else ops.full(len(rows), self._prior, "floats")
        psi = ops.where(fresh[:, None], start[:, None], act["psi"][rows])
        old = ops.where(fresh, start + self._log_actions, self.bel["v"][nodes])
        n, end = act["n"][rows], act["end"][rows]
        tried = n > 0
        if c.log_sum == "children":
            old = self._log_sum(psi, tried)
        below = n - end if c.denominator == "survivors" else n
        q = act["reward"][rows] / ops.where(tried, n, 1) + self._model.discount * ops.where(
            below > 0, act["q_sum"][rows] / ops.where(below > 0, below, 1), 0.0
        )
        untried = psi - old[:, None] if c.subtract == "all" else psi
        psi = ops.where(tried, psi + q - old[:, None], untried)
        best = ops.max_rows(psi)
        psi = ops.maximum(psi, (best - c.clip / self.eta)[:, None])
        weights = ops.exp(self.eta * (psi - best[:, None]))
        act["psi"][rows] = psi
        act["cum"][rows] = ops.floats(ops.cumsum(weights, 1))
        counted = weights * tried if c.log_sum == "children" else weights
        return best + ops.log(counted.sum(1)) / self.eta

    def _log_sum(self, psi: Any, tried: Any) -> Any:
        ops = self._ops
        masked = ops.where(tried, psi, -np.inf)
        best = ops.max_rows(masked)
        return best + ops.log(ops.exp(self.eta * (masked - best[:, None])).sum(1)) / self.eta

    def root(self, which: int = 0) -> tuple[Array, Array, Array, float]:
        """Return a root's preferences [A], visits [A], mean values [A] (NaN where untried), and value."""
        ops = self._ops
        row = int(self.bel["row"][which])
        value = float(self.bel["v"][which])
        if row < 0:
            return np.zeros(self._A), np.zeros(self._A, np.int64), np.full(self._A, np.nan), value
        n, end = ops.to_numpy(self.act["n"][row]), ops.to_numpy(self.act["end"][row])
        below = n - end if self._config.denominator == "survivors" else n
        with np.errstate(invalid="ignore", divide="ignore"):
            q = ops.to_numpy(self.act["reward"][row]) / n + self._model.discount * np.where(
                below > 0, ops.to_numpy(self.act["q_sum"][row]) / np.maximum(below, 1), 0.0
            )
        return ops.to_numpy(self.act["psi"][row]).copy(), n.copy(), q, value

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.bincount(self._ops.to_numpy(self.bel["depth"]))
