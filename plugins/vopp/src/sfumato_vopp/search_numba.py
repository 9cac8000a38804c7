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

#: One node, one cache line: what an episode touches at a node lies together.
BELIEF = np.dtype(
    [
        ("parent", np.int32), ("n", np.int32), ("obs", np.int64), ("hint", np.float64), ("share", np.float64),
        ("v", np.float64), ("hint_n", np.int32), ("row", np.int32), ("stamp", np.int32), ("opened", np.int32),
        ("depth", np.int32), ("unused", np.int32),
    ]
)  # fmt: skip
ACTION = np.dtype(
    [
        ("n", np.int32), ("end", np.int32), ("reward", np.float64), ("q_sum", np.float64), ("child", np.int32),
        ("unused", np.int32),
    ]
)  # fmt: skip

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
def rehash(table, mask, n_beliefs, bel):  # type: ignore[no-untyped-def]
    """Fill the first mask+1 places of the child table anew from the nodes."""
    for p in range(mask + 1):
        table[p] = -1
    for b in range(1, n_beliefs):
        p = child_slot(bel[b].parent, bel[b].obs, mask)
        while table[p] >= 0:
            p = (p + 1) & mask
        table[p] = b


def dense_kernels(model: CompiledModel) -> tuple[Any, Any]:
    """Build (forward, backup) for one compiled model."""
    step, hint = model.step, model.hint

    def forward(  # type: ignore[no-untyped-def]
        counters, S, particles, cumulative, weighted, n_episodes, first_episode, depth, n_actions, n_observations, seed,
        iteration, leaf_prior, mixing, ints, floats, table, visited,
        bel, act, act_cum,
    ):
        n_beliefs = counters[N_BELIEFS]
        n_rows = counters[N_ROWS]
        mask = counters[HASH_MASK]
        n_visited = counters[N_VISITED]
        steps = counters[STEPS]
        cap_beliefs = bel.size
        cap_rows = act.size // n_actions
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
                bel[b].n += 1
                if bel[b].stamp != iteration:
                    bel[b].stamp = iteration
                    visited[n_visited] = b
                    n_visited += 1
                stream[0] = key + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                u = uniform(stream)
                row = bel[b].row
                if d == 0 and mixing > 0.0:
                    fresh = u < mixing
                    u = u / mixing if fresh else (u - mixing) / (1.0 - mixing)
                else:
                    fresh = False
                if row < 0:
                    row = n_rows
                    n_rows += 1
                    bel[b].row = row
                    bel[b].opened = iteration
                    e = row * n_actions
                    for a in range(n_actions):
                        act[e + a].n = 0
                        act[e + a].end = 0
                        act[e + a].reward = 0.0
                        act[e + a].q_sum = 0.0
                        act[e + a].child = -1
                    fresh = True
                elif bel[b].opened == iteration:
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
                act[e].n += 1
                act[e].reward += r
                if ended:
                    act[e].end += 1
                    break
                child = act[e].child
                if child < 0 or bel[child].obs != o:
                    p = child_slot(e, o, mask)
                    while True:
                        child = table[p]
                        if child < 0:
                            child = n_beliefs
                            n_beliefs += 1
                            table[p] = child
                            bel[child].parent = e
                            bel[child].obs = o
                            bel[child].n = 0
                            bel[child].hint = 0.0
                            bel[child].hint_n = 0
                            bel[child].share = 0.0
                            bel[child].row = -1
                            bel[child].stamp = -1
                            bel[child].opened = -1
                            bel[child].depth = d + 1
                            break
                        if bel[child].parent == e and bel[child].obs == o:
                            break
                        p = (p + 1) & mask
                    act[e].child = child
                b = child
                # A node not expanded before this iteration gathers leaf estimates: they are its value while it is a
                # leaf, and the start of its preferences once it is not.
                row = bel[b].row
                if (row < 0 or bel[b].opened == iteration) and (leaf_prior or d + 1 == depth):
                    bel[b].hint += hint(S, 0, a, ints, floats)
                    bel[b].hint_n += 1
            if code != 0:
                break
            if not ended:
                bel[b].n += 1
                if bel[b].stamp != iteration:
                    bel[b].stamp = iteration
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
    bel, act, act_cum, act_psi,
):
    """Back values up from the leaves to the root; returns nothing, clears the visited list.

    ``bel_share`` holds the n·V with which a node last entered its parent action's sum, so that the sum over successors is
    kept by differences and the cost is that of the visited nodes alone.
    """
    count = counters[N_BELIEFS] if whole_tree else counters[N_VISITED]
    log_actions = np.log(n_actions) / eta
    for place in range(count - 1, -1, -1):
        b = place if whole_tree else visited[place]
        row = bel[b].row
        if row < 0:
            v = bel[b].hint / bel[b].hint_n if bel[b].hint_n > 0 else 0.0
        else:
            first = row * n_actions
            if bel[b].opened == iteration:
                if leaf_prior:
                    start = bel[b].hint / bel[b].hint_n if bel[b].hint_n > 0 else 0.0
                    start -= log_actions
                else:
                    start = prior
                for e in range(first, first + n_actions):
                    act_psi[e] = start
                old = start + log_actions
            else:
                old = bel[b].v
            if children_only:
                best = -np.inf
                for e in range(first, first + n_actions):
                    if act[e].n > 0 and act_psi[e] > best:
                        best = act_psi[e]
                total = 0.0
                for e in range(first, first + n_actions):
                    if act[e].n > 0:
                        total += np.exp(eta * (act_psi[e] - best))
                old = best + np.log(total) / eta
            best = -np.inf
            for e in range(first, first + n_actions):
                n = act[e].n
                if n > 0:
                    below = n - act[e].end if survivors else n
                    q = act[e].reward / n
                    if below > 0:
                        q += discount * act[e].q_sum / below
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
                if act[e].n > 0:
                    tried += w
                act_cum[e] = total
            v = best + np.log(tried if children_only else total) / eta
        bel[b].v = v
        if b > 0:
            share = bel[b].n * v
            act[bel[b].parent].q_sum += share - bel[b].share
            bel[b].share = share
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

    def _allocate(self, beliefs: int, rows: int) -> None:
        self.bel: Array = np.empty(beliefs, BELIEF)
        self.act: Array = np.empty(rows * self._A, ACTION)
        self._cum, self._psi = np.empty(rows * self._A), np.empty(rows * self._A)
        self._visited = np.empty(beliefs, np.int32)
        self._table = np.full(1 << (4 * beliefs - 1).bit_length(), -1, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(a.nbytes for a in (self.bel, self.act, self._cum, self._psi, self._visited, self._table))

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
        self.bel[0] = (-1, 0, -1, 0.0, 0.0, 0.0, 0, -1, -1, -1, 0, 0)
        if self._leaf:
            # The root is never arrived at, so its leaf estimate comes from its particles.
            hints = self._model.value_hint(self._particles[:256], np.zeros(len(self._particles[:256]), np.int64))
            self.bel["hint"][0], self.bel["hint_n"][0] = float(np.sum(hints)), len(hints)

    def _set_mask(self, size: int) -> None:
        self._counters[HASH_MASK] = size - 1
        rehash(self._table, size - 1, self.n_beliefs, self.bel)

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run one iteration: n_episodes of the given length, then the backup. Returns the episodes that were run.

        Raises:
            ModelError: a reward that is not finite, or an observation out of range.
        """
        c, m, counters = self._config, self._compiled, self._counters
        counters[EPISODE] = 0
        n_observations = -1 if self._model.n_observations is None else self._model.n_observations
        while True:
            code = self._forward(
                counters, self._scratch, self._particles, self._cumulative, self._weighted, n_episodes, first_episode,
                depth, self._A, n_observations, self._seed, iteration, self._leaf, c.root_mixing, m.ints, m.floats,
                self._table, self._visited, self.bel, self.act, self._cum,
            )  # fmt: skip
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
            self.bel, self.act, self._cum, self._psi,
        )  # fmt: skip
        return int(counters[EPISODE])

    def _grow(self, depth: int) -> bool:
        """Make room for at least one more episode; False when the limit of the settings is reached."""
        used, rows = self.n_beliefs, int(self._counters[N_ROWS])
        room, row_room = self.bel.size, self.act.size // self._A
        if used + depth + 1 > room:
            if room >= self._config.max_nodes:
                return False
            room = max(min(2 * room, self._config.max_nodes), used + depth + 1)
            self.bel = longer(self.bel, room)
            self._visited = longer(self._visited, room)
        if rows + depth > row_room:
            row_room = max(2 * row_room, rows + depth)
            if row_room * self._A >= 2**31:
                return False
            self.act, self._cum, self._psi = (longer(x, row_room * self._A) for x in (self.act, self._cum, self._psi))
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
        return self._psi[at].copy(), n, q, float(self.bel["v"][0])

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
