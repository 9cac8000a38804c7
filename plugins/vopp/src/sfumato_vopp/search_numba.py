"""The fused CPU search: one compiled kernel walks the episodes, one backs the tree up. Dense rows of |A|.

Per-episode order gives the same tree as level order, because the policy is fixed within an iteration and the random
numbers belong to places, not to the order of the work; ``search_array`` is the oracle for that.

A belief node's id is larger than its parent's, so a sweep by falling id needs no level index. What mattered for speed,
measured: plain local arrays in one large kernel (a tuple of arrays handed to small helpers was 20 times slower), and
cumulative weights stored at backup, so that drawing an action needs no exponential.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit

from sfumato_vopp import counter_numba
from sfumato_vopp.config import SearchConfig
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.counter_numba import GAMMA, episode_key, uniform
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, CompiledModel, Model

__all__ = ["DenseTree", "child_slot", "dense_kernels", "longer", "rehash", "with_disk_cache"]

_CODE_OK, CODE_FULL, CODE_REWARD, CODE_OBSERVATION = 0, 1, 2, 3
N_BELIEFS, N_ROWS, HASH_MASK, EPISODE, N_VISITED, STEPS, BAD_ACTION, BAD_OBSERVATION = range(8)

_SLOTS = np.uint64(SLOTS_PER_STEP)
_HASH_1, _HASH_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_S29 = np.uint64(29)


@njit(inline="always")
def child_slot(parent, observation, mask):  # type: ignore[no-untyped-def]
    """Return where to look first for the child of an action entry on an observation."""
    h = np.uint64(parent) * _HASH_1 + np.uint64(observation) * _HASH_2
    h ^= h >> _S29
    h *= _HASH_1
    return np.int64(h >> np.uint64(32)) & mask


@njit(cache=True)
def rehash(table, mask, n_beliefs, bel_parent, bel_obs):  # type: ignore[no-untyped-def]
    """Fill the first mask+1 places of the child table anew from the nodes."""
    for p in range(mask + 1):
        table[p] = -1
    for b in range(1, n_beliefs):
        p = child_slot(bel_parent[b], bel_obs[b], mask)
        while table[p] >= 0:
            p = (p + 1) & mask
        table[p] = b


def dense_kernels(model: CompiledModel) -> tuple[Any, Any]:
    """Build (forward, backup) for one compiled model."""
    step, hint = model.step, model.hint

    def forward(  # type: ignore[no-untyped-def]
        counters, S, particles, cumulative, weighted, n_episodes, first_episode, depth, n_actions, n_observations, seed,
        iteration, leaf_prior, mixing, ints, floats, table, visited,
        bel_parent, bel_obs, bel_n, bel_hint, bel_hint_n, bel_share, bel_row, bel_stamp, bel_depth,
        row_bel, row_iteration, row_tried, act_n, act_end, act_reward, act_cum, act_q_sum, act_child,
    ):
        n_beliefs = counters[N_BELIEFS]
        n_rows = counters[N_ROWS]
        mask = counters[HASH_MASK]
        n_visited = counters[N_VISITED]
        steps = counters[STEPS]
        cap_beliefs = bel_n.size
        cap_rows = row_bel.size
        width = particles.shape[1]
        n_particles = particles.shape[0]
        stream = np.empty(1, np.uint64)
        code = 0
        while counters[EPISODE] < n_episodes:
            if (
                n_beliefs + depth + 1 > cap_beliefs
                or n_rows + depth > cap_rows
                or 2 * (n_beliefs + depth + 1) > mask
            ):
                code = 1
                break
            key = episode_key(seed, first_episode + counters[EPISODE])
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
            ended = False
            for d in range(depth):
                bel_n[b] += 1
                if bel_stamp[b] != iteration:
                    bel_stamp[b] = iteration
                    visited[n_visited] = b
                    n_visited += 1
                stream[0] = key + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                u = uniform(stream)
                row = bel_row[b]
                if d == 0 and mixing > 0.0:
                    fresh = u < mixing
                    u = u / mixing if fresh else (u - mixing) / (1.0 - mixing)
                else:
                    fresh = False
                if row < 0:
                    row = n_rows
                    n_rows += 1
                    bel_row[b] = row
                    row_bel[row] = b
                    row_iteration[row] = iteration
                    row_tried[row] = 0
                    e = row * n_actions
                    for a in range(n_actions):
                        act_n[e + a] = 0
                        act_end[e + a] = 0
                        act_reward[e + a] = 0.0
                        act_q_sum[e + a] = 0.0
                        act_child[e + a] = -1
                    fresh = True
                elif row_iteration[row] == iteration:
                    fresh = True
                e = row * n_actions
                if fresh:
                    a = int(u * n_actions)
                elif n_actions <= 32:
                    x = u * act_cum[e + n_actions - 1]
                    a = 0
                    for j in range(n_actions - 1):
                        a += act_cum[e + j] <= x
                else:
                    low, high, x = 0, n_actions - 1, u * act_cum[e + n_actions - 1]
                    while low < high:
                        mid = (low + high) >> 1
                        if act_cum[e + mid] <= x:
                            low = mid + 1
                        else:
                            high = mid
                    a = low
                e += a
                o, r, ended = step(S, 0, a, stream, ints, floats)
                steps += 1
                if not np.isfinite(r):
                    counters[BAD_ACTION] = a
                    code = 2
                    break
                if n_observations > 0 and (o < 0 or o >= n_observations):
                    counters[BAD_ACTION] = a
                    counters[BAD_OBSERVATION] = o
                    code = 3
                    break
                if act_n[e] == 0:
                    row_tried[row] += 1
                act_n[e] += 1
                act_reward[e] += r
                if ended:
                    act_end[e] += 1
                    break
                child = act_child[e]
                if child < 0 or bel_obs[child] != o:
                    p = child_slot(e, o, mask)
                    while True:
                        child = table[p]
                        if child < 0:
                            child = n_beliefs
                            n_beliefs += 1
                            table[p] = child
                            bel_parent[child] = e
                            bel_obs[child] = o
                            bel_n[child] = 0
                            bel_hint[child] = 0.0
                            bel_hint_n[child] = 0
                            bel_share[child] = 0.0
                            bel_row[child] = -1
                            bel_stamp[child] = -1
                            bel_depth[child] = d + 1
                            break
                        if bel_parent[child] == e and bel_obs[child] == o:
                            break
                        p = (p + 1) & mask
                    act_child[e] = child
                b = child
                # A node not expanded before this iteration gathers leaf estimates: they are its value while it is a
                # leaf, and the start of its preferences once it is not.
                row = bel_row[b]
                if (row < 0 or row_iteration[row] == iteration) and (leaf_prior or d + 1 == depth):
                    bel_hint[b] += hint(S, 0, a, ints, floats)
                    bel_hint_n[b] += 1
            if code != 0:
                break
            if not ended:
                bel_n[b] += 1
                if bel_stamp[b] != iteration:
                    bel_stamp[b] = iteration
                    visited[n_visited] = b
                    n_visited += 1
            counters[EPISODE] += 1
        counters[N_BELIEFS] = n_beliefs
        counters[N_ROWS] = n_rows
        counters[N_VISITED] = n_visited
        counters[STEPS] = steps
        return code

    return with_disk_cache(forward, model.cache_key), backup


@njit(cache=True)
def backup(  # type: ignore[no-untyped-def]
    counters, visited, whole_tree, iteration, n_actions, eta, discount, leaf_prior, prior, survivors, children_only,
    subtract_all, clip,
    bel_parent, bel_n, bel_hint, bel_hint_n, bel_v, bel_share, bel_row,
    row_iteration, row_prior, act_n, act_end, act_reward, act_cum, act_q_sum, act_psi,
):
    """Back values up from the leaves to the root; returns nothing, clears the visited list.

    ``bel_share`` holds the n·V with which a node last entered its parent action's sum, so that the sum over successors is
    kept by differences and the cost is that of the visited nodes alone.
    """
    count = counters[N_BELIEFS] if whole_tree else counters[N_VISITED]
    log_actions = np.log(n_actions) / eta
    for place in range(count - 1, -1, -1):
        b = place if whole_tree else visited[place]
        row = bel_row[b]
        if row < 0:
            v = bel_hint[b] / bel_hint_n[b] if bel_hint_n[b] > 0 else 0.0
        else:
            first = row * n_actions
            if row_iteration[row] == iteration:
                if leaf_prior:
                    start = bel_hint[b] / bel_hint_n[b] if bel_hint_n[b] > 0 else 0.0
                    start -= log_actions
                else:
                    start = prior
                row_prior[row] = start
                for e in range(first, first + n_actions):
                    act_psi[e] = start
                old = start + log_actions
            else:
                old = bel_v[b]
            if children_only:
                best = -np.inf
                for e in range(first, first + n_actions):
                    if act_n[e] > 0 and act_psi[e] > best:
                        best = act_psi[e]
                total = 0.0
                for e in range(first, first + n_actions):
                    if act_n[e] > 0:
                        total += np.exp(eta * (act_psi[e] - best))
                old = best + np.log(total) / eta
            best = -np.inf
            for e in range(first, first + n_actions):
                n = act_n[e]
                if n > 0:
                    below = n - act_end[e] if survivors else n
                    q = act_reward[e] / n
                    if below > 0:
                        q += discount * act_q_sum[e] / below
                    act_psi[e] += q - old
                elif subtract_all:
                    act_psi[e] -= old
                if act_psi[e] > best:
                    best = act_psi[e]
            floor = best - clip / eta
            total = 0.0
            tried = 0.0
            for e in range(first, first + n_actions):
                if act_psi[e] < floor:
                    act_psi[e] = floor
                w = np.exp(eta * (act_psi[e] - best))
                total += w
                if act_n[e] > 0:
                    tried += w
                act_cum[e] = total
            v = best + np.log(tried if children_only else total) / eta
        bel_v[b] = v
        if b > 0:
            share = bel_n[b] * v
            act_q_sum[bel_parent[b]] += share - bel_share[b]
            bel_share[b] = share
    counters[N_VISITED] = 0


class DenseTree:
    """A tree in arrays, grown by doubling, and the two kernels that work on it.

    One search uses it at a time. ``begin`` empties it without giving memory back, so a robot's later decisions allocate
    nothing.
    """

    storage = "dense"

    def __init__(self, model: Model, compiled: CompiledModel, config: SearchConfig, eta: float) -> None:
        self._model, self._compiled, self._config, self.eta = model, compiled, config, eta
        self._forward, self._backup = kernels_for(compiled)
        self._A = model.n_actions
        self._counters = np.zeros(16, np.int64)
        self._scratch = np.zeros((1, model.state_width), model.state_dtype)
        self._leaf = config.initial_preference == "leaf"
        self._prior = 0.0 if self._leaf else config.initial_constant
        self.overflow = False
        self._allocate(min(1 << 14, config.max_nodes), max(256, (1 << 18) // self._A))

    _BELIEF = (
        ("parent", np.int32), ("obs", np.int64), ("n", np.int32), ("hint", np.float64), ("hint_n", np.int32),
        ("share", np.float64), ("v", np.float64), ("row", np.int32), ("stamp", np.int32), ("depth", np.int16),
    )
    _ROW = (("bel", np.int32), ("iteration", np.int32), ("tried", np.int32), ("prior", np.float64))
    _ACTION = (
        ("n", np.int32), ("end", np.int32), ("reward", np.float64), ("cum", np.float64), ("q_sum", np.float64),
        ("psi", np.float64), ("child", np.int32),
    )

    def _allocate(self, beliefs: int, rows: int) -> None:
        self.bel: dict[str, Array] = {name: np.empty(beliefs, dtype) for name, dtype in self._BELIEF}
        self.row: dict[str, Array] = {name: np.empty(rows, dtype) for name, dtype in self._ROW}
        self.act: dict[str, Array] = {name: np.empty(rows * self._A, dtype) for name, dtype in self._ACTION}
        self._visited = np.empty(beliefs, np.int32)
        self._table = np.full(1 << (4 * beliefs - 1).bit_length(), -1, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        arrays = [*self.bel.values(), *self.row.values(), *self.act.values(), self._visited, self._table]
        return sum(a.nbytes for a in arrays)

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return int(self._counters[N_BELIEFS])

    @property
    def n_action_nodes(self) -> int:
        """Action nodes that were tried at least once."""
        return int(np.count_nonzero(self.act["n"][: int(self._counters[N_ROWS]) * self._A]))

    @property
    def steps(self) -> int:
        """Simulated model steps since ``begin``."""
        return int(self._counters[STEPS])

    def begin(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        self._particles = np.ascontiguousarray(particles, self._model.state_dtype)
        self._weighted = cumulative is not None
        self._cumulative = np.ones(1) if cumulative is None else np.ascontiguousarray(cumulative, np.float64)
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._counters[:] = 0
        self._counters[N_BELIEFS] = 1
        self._set_mask(min(1 << 12, self._table.size))
        self.overflow = False
        b = self.bel
        b["parent"][0], b["obs"][0], b["n"][0], b["hint"][0], b["hint_n"][0] = -1, -1, 0, 0.0, 0
        b["share"][0], b["v"][0], b["row"][0], b["stamp"][0], b["depth"][0] = 0.0, 0.0, -1, -1, 0
        if self._leaf:
            # The root is never arrived at, so its leaf estimate comes from its particles.
            hints = self._model.value_hint(self._particles[:256], np.zeros(len(self._particles[:256]), np.int64))
            b["hint"][0], b["hint_n"][0] = float(np.sum(hints)), len(hints)

    def _set_mask(self, size: int) -> None:
        self._counters[HASH_MASK] = size - 1
        rehash(self._table, size - 1, self.n_beliefs, self.bel["parent"], self.bel["obs"])

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run one iteration: n_episodes of the given length, then the backup. Returns the episodes that were run.

        Raises:
            ModelError: a reward that is not finite, or an observation out of range.
        """
        c, m, counters = self._config, self._compiled, self._counters
        counters[EPISODE] = 0
        n_observations = -1 if self._model.n_observations is None else self._model.n_observations
        while True:
            b, r, a = self.bel, self.row, self.act
            code = self._forward(
                counters, self._scratch, self._particles, self._cumulative, self._weighted, n_episodes, first_episode,
                depth, self._A, n_observations, self._seed, iteration, self._leaf, c.root_mixing, m.ints, m.floats,
                self._table, self._visited,
                b["parent"], b["obs"], b["n"], b["hint"], b["hint_n"], b["share"], b["row"], b["stamp"], b["depth"],
                r["bel"], r["iteration"], r["tried"], a["n"], a["end"], a["reward"], a["cum"], a["q_sum"], a["child"],
            )
            if code == CODE_FULL and self._grow(depth):
                continue
            break
        if code == CODE_FULL:
            self.overflow = True
        elif code == CODE_REWARD:
            raise ModelError(
                f"expected finite rewards, got one that is not after action {int(counters[BAD_ACTION])}; check the model's step"
            )
        elif code == CODE_OBSERVATION:
            raise ModelError(
                f"expected observations in 0 … {n_observations - 1}, got {int(counters[BAD_OBSERVATION])} after action "
                f"{int(counters[BAD_ACTION])}; set n_observations = None when any number may come"
            )
        self._backup(
            counters, self._visited, c.backup == "tree", iteration, self._A, self.eta, self._model.discount,
            self._leaf, self._prior, c.denominator == "survivors", c.log_sum == "children", c.subtract == "all", c.clip,
            b["parent"], b["n"], b["hint"], b["hint_n"], b["v"], b["share"], b["row"],
            r["iteration"], r["prior"], a["n"], a["end"], a["reward"], a["cum"], a["q_sum"], a["psi"],
        )
        return int(counters[EPISODE])

    def _grow(self, depth: int) -> bool:
        """Make room for at least one more episode; False when the limit of the settings is reached."""
        used, rows = self.n_beliefs, int(self._counters[N_ROWS])
        room, row_room = self.bel["n"].size, self.row["bel"].size
        if used + depth + 1 > room:
            if room >= self._config.max_nodes:
                return False
            room = max(min(2 * room, self._config.max_nodes), used + depth + 1)
            self.bel = {name: longer(array, room) for name, array in self.bel.items()}
            self._visited = longer(self._visited, room)
        if rows + depth > row_room:
            row_room = max(2 * row_room, rows + depth)
            if row_room * self._A >= 2**31:
                return False
            self.row = {name: longer(array, row_room) for name, array in self.row.items()}
            self.act = {name: longer(array, row_room * self._A) for name, array in self.act.items()}
        if 2 * (used + depth + 1) > int(self._counters[HASH_MASK]):
            size = int(self._counters[HASH_MASK]) + 1
            while 2 * (used + depth + 1) > size - 1:
                size *= 2
            if size > self._table.size:
                self._table = longer(self._table, size)
            self._set_mask(size)
        return True

    def root(self) -> tuple[Array, Array, Array, float]:
        """Return the root's preferences [A], visits [A], mean values [A] (NaN where untried), and value."""
        if self.bel["row"][0] < 0:
            return np.zeros(self._A), np.zeros(self._A, np.int64), np.full(self._A, np.nan), float(self.bel["v"][0])
        at = slice(int(self.bel["row"][0]) * self._A, (int(self.bel["row"][0]) + 1) * self._A)
        n = self.act["n"][at].astype(np.int64)
        below = n - self.act["end"][at] if self._config.denominator == "survivors" else n
        with np.errstate(invalid="ignore", divide="ignore"):
            q = self.act["reward"][at] / n + self._model.discount * np.where(
                below > 0, self.act["q_sum"][at] / np.maximum(below, 1), 0.0
            )
        return self.act["psi"][at].copy(), n, q, float(self.bel["v"][0])

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.bincount(self.bel["depth"][: self.n_beliefs])


def longer(array: Array, size: int) -> Array:
    """Return an array of the given size that begins with the old content."""
    out = np.empty(size, array.dtype)
    out[: array.size] = array
    return out


_KERNELS: dict[tuple[int, int], tuple[Any, Any]] = {}


def kernels_for(model: CompiledModel) -> tuple[Any, Any]:
    """Return the kernels of a model, built once in a process for each pair of functions."""
    key = (id(model.step), id(model.hint))
    if key not in _KERNELS:
        _KERNELS[key] = dense_kernels(model)
    return _KERNELS[key]


def with_disk_cache(function: Any, cache_key: str | None) -> Any:
    """Compile a closure lazily, with a cache on disk that is keyed by the model as well as by the source.

    Numba's own cache cannot tell two closures over different compiled functions apart, so the model's key, and the code
    of this package for the models that come with it, become part of the index. Where numba's internals differ from what
    this expects, nothing is cached and the kernel is compiled in each process.
    """
    compiled: Any = njit(nogil=True)(function)
    if cache_key is None:
        return compiled
    key = f"{cache_key}:{_package_digest()}"
    try:
        from numba.core.caching import FunctionCache
    except ImportError:
        return compiled

    class ModelCache(FunctionCache):
        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return (sig, codegen.magic_tuple(), key)

    try:
        compiled._cache = ModelCache(function)
        compiled._can_compile = True
    except (RuntimeError, AttributeError):
        return njit(nogil=True)(function)
    return compiled


_DIGEST: list[str] = []


def _package_digest() -> str:
    if not _DIGEST:
        digest = hashlib.sha256(numba.__version__.encode())
        here = Path(counter_numba.__file__).parent
        for file in sorted(here.rglob("*numba*.py")):
            digest.update(file.read_bytes())
        _DIGEST.append(digest.hexdigest()[:16])
    return _DIGEST[0]
