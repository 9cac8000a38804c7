"""Anytime search of a sparse belief tree under K scenarios, compiled, on the same models as VOPP: a DESPOT-like baseline.

A scenario is a start state and a stream of random numbers; every action sequence is tried under the same scenarios. Each
node holds the scenarios that reach it, a lower bound (a default policy followed by them) and an upper bound (the model's
``upper``, or else its value hint, and then it is a bound only where the hint is one). A trial walks down by upper bounds and weighted excess
uncertainty, expands one node, and backs both bounds up.

Source: Ye, Somani, Hsu, Lee, "DESPOT: online POMDP planning with regularization", JAIR 2017, Algorithms 1 to 4, without the
regularisation. The default policy is ours: all scenarios of a node take the action that most of a few of them would take
if they knew their state and looked one step ahead with the hint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sfumato_vopp.borrow_numba import borrow
from sfumato_vopp.config import DESPOTConfig
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.counter_numba import GAMMA, episode_key
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, CompiledModel, Model
from sfumato_vopp.numba_cache import with_disk_cache
from sfumato_vopp.tree_numba import longer

__all__ = ["DESPOTTree"]

NODE = np.dtype(
    [
        ("parent", np.int32),  # the action node above
        ("acts", np.int32),  # first of |A| action nodes, -1 while not expanded
        ("first", np.int64),  # first scenario
        ("count", np.int32),
        ("depth", np.int32),
        ("low", np.float64),  # sums over the node's scenarios, discounted to this node
        ("high", np.float64),
        ("default", np.int32),  # what the default policy does here
        ("unused", np.int32),
    ]
)
ACT = np.dtype(
    [("node", np.int32), ("child", np.int32), ("n_children", np.int32), ("unused", np.int32), ("reward", np.float64)]
)

_SLOTS = np.uint64(SLOTS_PER_STEP)
#: Keeps the numbers of the default policy's look-ahead apart from the scenarios' own, which it must not foresee.
_SALT = np.uint64(0x5851F42D4C957F2D)
N_NODES, N_ACTS, N_PARTS, PENDING, DONE, STEPS, WHICH_ACTION, CONVERGED = range(8)
OK, FULL, BAD_REWARD = 0, 1, 2


@njit(inline="always")
def _sort(order, observations, first, last):  # type: ignore[no-untyped-def]
    """Sort the places ``order[first:last]`` by what was observed there."""
    if last - first > 48:
        ranked = np.argsort(observations[first:last])
        for i in range(last - first):
            order[first + i] = first + ranked[i]
        return
    for i in range(first, last):
        j = i
        while j > first and observations[order[j - 1]] > observations[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i


def trial_kernel(model: CompiledModel) -> Any:
    """Build the kernel that runs trials on one compiled model."""
    step, hint = model.step, model.hint
    upper = hint if model.upper is None else model.upper

    def trials(  # type: ignore[no-untyped-def]
        counters, S_, T_, W_, stream_, ints_, floats_, keys_, n_trials, max_depth, rollout_depth, n_actions, discount, xi,
        n_voters, n_scenarios, node_, act_, part_, who_, seen_, order_, group_, work_, votes_,
    ):  # fmt: skip
        S, T, W, stream, ints, floats = borrow(S_), borrow(T_), borrow(W_), borrow(stream_), borrow(ints_), borrow(floats_)
        keys, node, act, part, who = borrow(keys_), borrow(node_), borrow(act_), borrow(part_), borrow(who_)
        seen, order, group, work, votes = borrow(seen_), borrow(order_), borrow(group_), borrow(work_), borrow(votes_)
        n_nodes, n_acts, n_parts, steps = counters[N_NODES], counters[N_ACTS], counters[N_PARTS], counters[STEPS]
        width = part.shape[1]
        code = 0
        leaf = 0
        while True:
            # Bounds of the nodes that are new: rollouts of the default policy, and hints.
            for b in range(counters[PENDING], n_nodes):
                m = node[b].count
                first = node[b].first
                arrived = 0 if b == 0 else node[b].parent - node[act[node[b].parent].node].acts
                high = 0.0
                for i in range(m):
                    for j in range(width):
                        W[i, j] = part[first + i, j]
                        S[0, j] = part[first + i, j]
                    work[i] = who[first + i]
                    high += upper(S, 0, arrived, ints, floats)
                low = 0.0
                # A stack of groups that share a history: first place, last place, depth; they lie side by side in W.
                group[0, 0], group[0, 1], group[0, 2] = 0, m, node[b].depth
                n_groups = 1
                while n_groups > 0:
                    n_groups -= 1
                    g0, g1, d = group[n_groups, 0], group[n_groups, 1], group[n_groups, 2]
                    if d >= rollout_depth:
                        continue
                    for a in range(n_actions):
                        votes[a] = 0
                    voters = min(n_voters, g1 - g0)
                    for v in range(voters):
                        i = g0 + v * (g1 - g0) // voters
                        best, choice = -np.inf, 0
                        for a in range(n_actions):
                            for j in range(width):
                                S[0, j] = W[i, j]
                            stream[0] = (keys[work[i]] ^ _SALT) + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                            o, r, ended = step(S, 0, a, stream, ints, floats)
                            x = r
                            if not ended:
                                x += discount * hint(S, 0, a, ints, floats)
                            if x > best:
                                best, choice = x, a
                        votes[choice] += 1
                    steps += voters * n_actions
                    a = 0
                    for c in range(1, n_actions):
                        if votes[c] > votes[a]:
                            a = c
                    if d == node[b].depth:
                        node[b].default = a
                    scale = discount ** (d - node[b].depth)
                    alive = g0
                    for i in range(g0, g1):
                        for j in range(width):
                            S[0, j] = W[i, j]
                        stream[0] = keys[work[i]] + (np.uint64(1) + np.uint64(d) * _SLOTS) * GAMMA
                        o, r, ended = step(S, 0, a, stream, ints, floats)
                        low += scale * r
                        if not ended:
                            for j in range(width):
                                W[alive, j] = S[0, j]
                            work[alive] = work[i]
                            seen[alive] = o
                            alive += 1
                    steps += g1 - g0
                    _sort(order, seen, g0, alive)
                    for i in range(g0, alive):
                        for j in range(width):
                            T[i, j] = W[order[i], j]
                        group[i, 3], group[i, 4] = work[order[i]], seen[order[i]]
                    for i in range(g0, alive):
                        for j in range(width):
                            W[i, j] = T[i, j]
                        work[i], seen[i] = group[i, 3], group[i, 4]
                    i = g0
                    while i < alive:
                        e = i + 1
                        while e < alive and seen[e] == seen[i]:
                            e += 1
                        group[n_groups, 0], group[n_groups, 1], group[n_groups, 2] = i, e, d + 1
                        n_groups += 1
                        i = e
                node[b].low = low
                node[b].high = low if node[b].depth >= max_depth else max(low, high)
            counters[PENDING] = n_nodes
            # Back up from the node that was expanded.
            b = leaf
            while node[b].acts >= 0:
                low, high = -np.inf, -np.inf
                for e in range(node[b].acts, node[b].acts + n_actions):
                    x = y = act[e].reward
                    for c in range(act[e].child, act[e].child + act[e].n_children):
                        x += discount * node[c].low
                        y += discount * node[c].high
                    low, high = max(low, x), max(high, y)
                node[b].low = max(node[b].low, low)
                node[b].high = max(node[b].low, min(node[b].high, high))
                if b == 0:
                    break
                b = act[node[b].parent].node
            gap = node[0].high - node[0].low
            if gap <= 1e-9 * n_scenarios:
                counters[CONVERGED] = 1
                break
            if counters[DONE] >= n_trials:
                break
            # Walk down: the action of the highest upper bound, then the child of the largest weighted excess uncertainty.
            b = 0
            while node[b].acts >= 0:
                best, e = -np.inf, node[b].acts
                for f in range(node[b].acts, node[b].acts + n_actions):
                    y = act[f].reward
                    for c in range(act[f].child, act[f].child + act[f].n_children):
                        y += discount * node[c].high
                    if y > best:
                        best, e = y, f
                largest, following = 0.0, -1
                for c in range(act[e].child, act[e].child + act[e].n_children):
                    excess = discount ** node[c].depth * (node[c].high - node[c].low) - xi * node[c].count / n_scenarios * gap
                    if excess > largest:
                        largest, following = excess, c
                if following < 0:
                    break
                b = following
            if node[b].acts >= 0:
                # While the root has a gap, some child has excess uncertainty; there is none only by rounding.
                counters[CONVERGED] = 1
                break
            counters[DONE] += 1
            leaf = b
            m = node[b].count
            if n_nodes + m * n_actions > node.size or n_acts + n_actions > act.size or n_parts + m * n_actions > part.shape[0]:
                counters[DONE] -= 1
                code = 1
                break
            node[b].acts = n_acts
            for a in range(n_actions):
                act[n_acts].node, act[n_acts].child, act[n_acts].n_children = b, n_nodes, 0
                total = 0.0
                alive = 0
                for i in range(m):
                    for j in range(width):
                        S[0, j] = part[node[b].first + i, j]
                    w = who[node[b].first + i]
                    stream[0] = keys[w] + (np.uint64(1) + np.uint64(node[b].depth) * _SLOTS) * GAMMA
                    o, r, ended = step(S, 0, a, stream, ints, floats)
                    if not np.isfinite(r):
                        counters[WHICH_ACTION] = a
                        code = 2
                        break
                    total += r
                    if not ended:
                        for j in range(width):
                            W[alive, j] = S[0, j]
                        work[alive], seen[alive] = w, o
                        alive += 1
                steps += m
                if code != 0:
                    break
                act[n_acts].reward = total
                _sort(order, seen, 0, alive)
                for i in range(alive):
                    for j in range(width):
                        part[n_parts, j] = W[order[i], j]
                    who[n_parts] = work[order[i]]
                    if i == 0 or seen[order[i]] != seen[order[i - 1]]:
                        node[n_nodes].parent, node[n_nodes].acts = n_acts, -1
                        node[n_nodes].first, node[n_nodes].count = n_parts, 0
                        node[n_nodes].depth = node[b].depth + 1
                        n_nodes += 1
                        act[n_acts].n_children += 1
                    node[n_nodes - 1].count += 1
                    n_parts += 1
                n_acts += 1
            if code != 0:
                break
        counters[N_NODES], counters[N_ACTS], counters[N_PARTS], counters[STEPS] = n_nodes, n_acts, n_parts, steps
        return code

    return with_disk_cache(trials, None if model.cache_key is None else f"despot:{model.cache_key}")


_KERNELS: dict[tuple[int, int], Any] = {}


class DESPOTTree:
    """A tree of scenarios in arrays; same interface as VOPP's trees, an "episode" being a trial."""

    storage = "scenarios"

    def __init__(self, model: Model, compiled: CompiledModel, config: DESPOTConfig) -> None:
        self._model, self._compiled, self._config = model, compiled, config
        key = (id(compiled.step), id(compiled.hint))
        if key not in _KERNELS:
            _KERNELS[key] = trial_kernel(compiled)
        self._trials = _KERNELS[key]
        self._A, k = model.n_actions, config.n_scenarios
        self._counters = np.zeros(8, np.int64)
        width, dtype = model.state_width, model.state_dtype
        self._S, self._T, self._W = np.zeros((1, width), dtype), np.zeros((k, width), dtype), np.zeros((k, width), dtype)
        self._stream = np.zeros(1, np.uint64)
        self._seen, self._order, self._work = np.zeros(k, np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64)
        self._group, self._votes = np.zeros((k + 1, 5), np.int64), np.zeros(self._A, np.int64)
        room = max(1 << 12, k * (self._A + 1))
        self._node, self._act = np.zeros(room, NODE), np.zeros(1 << 10, ACT)
        self._part, self._who = np.zeros((room, width), dtype), np.zeros(room, np.int32)
        self.overflow = False

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self._node.nbytes + self._act.nbytes + self._part.nbytes + self._who.nbytes

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return int(self._counters[N_NODES])

    @property
    def n_action_nodes(self) -> int:
        """Action nodes in the tree."""
        return int(self._counters[N_ACTS])

    @property
    def steps(self) -> int:
        """Simulated model steps since ``begin``, those of the default policy included."""
        return int(self._counters[STEPS])

    @property
    def converged(self) -> bool:
        """Whether the bounds at the root are as tight as they can get under these scenarios and this ξ."""
        return bool(self._counters[CONVERGED])

    def begin(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and draw the scenarios: particles [N, width], cumulative weights [N] or None (equal)."""
        k = self._config.n_scenarios
        own = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._keys = np.array([episode_key(own, i) for i in range(k)], np.uint64)
        # One point in each of K equal parts of the cumulative weight: the scenarios' states are as even as can be.
        u = (np.arange(k) + np.random.default_rng(int(own)).random(k)) / k
        n = len(particles)
        at = (u * n).astype(np.int64) if cumulative is None else np.searchsorted(cumulative, u * cumulative[-1], side="right")
        self._part[:k] = np.asarray(particles, self._model.state_dtype)[np.minimum(at, n - 1)]
        self._who[:k] = np.arange(k)
        self._counters[:] = 0
        self._counters[N_NODES], self._counters[N_PARTS] = 1, k
        self._node[0] = (-1, -1, 0, k, 0, 0.0, 0.0, 0, 0)
        self.overflow = False

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run trials of at most the given depth; returns how many were run.

        Raises:
            ModelError: a reward that is not finite.
        """
        m, counters, c = self._compiled, self._counters, self._config
        counters[DONE] = 0
        while True:
            code = self._trials(
                counters, self._S, self._T, self._W, self._stream, m.ints, m.floats, self._keys, n_episodes, depth,
                max(depth, c.rollout_depth), self._A, self._model.discount, c.xi, c.voters, c.n_scenarios, self._node, self._act,
                self._part, self._who, self._seen, self._order, self._group, self._work, self._votes,
            )  # fmt: skip
            if code != FULL:
                break
            if not self._grow():
                self.overflow = True
                break
        if code == BAD_REWARD:
            raise ModelError(
                f"expected finite rewards, got one that is not after action {int(counters[WHICH_ACTION])}; check the model's step"
            )
        return int(counters[DONE])

    def _grow(self) -> bool:
        need = self._config.n_scenarios * self._A
        nodes, parts = self.n_beliefs + need, int(self._counters[N_PARTS]) + need
        if nodes > self._node.size:
            if self.n_beliefs >= self._config.max_nodes:
                return False
            self._node = longer(self._node, max(2 * self._node.size, nodes))
        if parts > len(self._part):
            room = max(2 * len(self._part), parts)
            wider = np.zeros((room, self._part.shape[1]), self._part.dtype)
            wider[: len(self._part)] = self._part
            self._part, self._who = wider, longer(self._who, room)
        if self.n_action_nodes + self._A > self._act.size:
            self._act = longer(self._act, 2 * self._act.size + self._A)
        return True

    def root(self) -> tuple[Array, Array, Array, float]:
        """Return lower bounds [A] (-inf where unknown), scenarios tried [A], the same bounds [A] (NaN), and the best."""
        k = self._config.n_scenarios
        node, first = self._node[0], int(self._node["acts"][0])
        low, visits = np.full(self._A, -np.inf), np.zeros(self._A, np.int64)
        if first >= 0:
            for a in range(self._A):
                e = self._act[first + a]
                below = slice(int(e["child"]), int(e["child"] + e["n_children"]))
                low[a] = (float(e["reward"]) + self._model.discount * float(self._node["low"][below].sum())) / k
            visits[:] = k
        # The default policy's own value may be the best bound there is.
        a = int(node["default"])
        best = float(low.max())
        if float(node["low"]) / k > best + 1e-12:
            low[a], visits[a] = float(node["low"]) / k, k
        return low, visits, np.where(np.isfinite(low), low, np.nan), float(node["low"]) / k

    def bounds(self) -> tuple[float, float]:
        """Return the lower and the upper bound at the root."""
        return float(self._node["low"][0]) / self._config.n_scenarios, float(self._node["high"][0]) / self._config.n_scenarios

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.bincount(self._node["depth"][: self.n_beliefs])
