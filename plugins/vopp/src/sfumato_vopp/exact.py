"""Bounds and near-exact values: QMDP, FIB, blind policies, and an anytime bracket by heuristic search value iteration.

All take :class:`sfumato_vopp.tabular.Tables` and say what they guarantee. The inner loops are compiled.

Sources: QMDP: Littman, Cassandra, Kaelbling 1995. FIB: Hauskrecht, "Value-function approximations for partially observable
Markov decision processes", JAIR 2000, §5.3. Search: Smith and Simmons, "Point-based POMDP algorithms: improved analysis and
implementation", UAI 2005 (HSVI2), with the sawtooth upper bound of Hauskrecht 2000.
"""

from __future__ import annotations

import time

import attrs
import numpy as np

from sfumato_vopp import exact_numba as k
from sfumato_vopp.errors import BeliefError
from sfumato_vopp.model import Array
from sfumato_vopp.tabular import Tables

__all__ = ["Bracket", "blind_lower", "bracket", "fast_informed_bound", "mdp_values", "qmdp"]


def mdp_values(tables: Tables, tolerance: float = 1e-9, max_iterations: int = 100_000) -> Array:
    """Return Q [A, S] of the underlying MDP, an upper bound once belief-averaged: V(b) <= max_a Σ b(s) Q(a, s)."""
    return k.value_iteration(
        tables.indptr, tables.indices, tables.data, tables.reward, tables.discount, tolerance, max_iterations
    )


def qmdp(tables: Tables) -> Array:
    """Return the QMDP vectors [A, S]; act by argmax_a b·Q[a]. Another name for :func:`mdp_values`."""
    return mdp_values(tables)


def fast_informed_bound(tables: Tables, tolerance: float = 1e-7, max_iterations: int = 10_000) -> Array:
    """Return the FIB vectors [A, S], an upper bound at least as tight as QMDP: V(b) <= max_a b·α[a]."""
    return k.informed_bound(
        tables.indptr, tables.indices, tables.data, tables.observe, tables.reward, tables.discount,
        mdp_values(tables), tolerance, max_iterations,
    )  # fmt: skip


def blind_lower(tables: Tables, tolerance: float = 1e-9, max_iterations: int = 100_000) -> Array:
    """Return the values [A, S] of taking one action for ever: a lower bound V(b) >= max_a b·α[a]."""
    return k.blind_values(
        tables.indptr, tables.indices, tables.data, tables.reward, tables.discount, tolerance, max_iterations
    )


@attrs.frozen(eq=False)
class Bracket:
    """Proven bounds of the optimal value at the start belief, and a policy that reaches the lower one.

    Attributes:
        low, high: V*(start) lies between them.
        vectors: float64 [m, S], lower-bound vectors; actions: int64 [m], the action each stands for.
        trials, seconds: the work done.
        history: float64 [·, 3], (seconds, low, high) after each trial.
    """

    low: float
    high: float
    vectors: Array
    actions: Array
    trials: int
    seconds: float
    history: Array

    def act(self, states: Array, weights: Array) -> int:
        """Return the action of the best vector for a belief: state numbers [N] and weights [N]."""
        if len(states) == 0:
            raise BeliefError("expected at least one state in the belief, got none")
        return int(self.actions[np.argmax(self.vectors[:, states] @ weights)])

    def value(self, states: Array, weights: Array) -> float:
        """Return the lower bound at a belief: state numbers [N] and weights [N]."""
        return float(np.max(self.vectors[:, states] @ weights))


def bracket(tables: Tables, gap: float = 1e-3, seconds: float = 60.0, max_trials: int = 1_000_000) -> Bracket:
    """Close in on V*(start) from both sides until the gap, the time or the trials are used up.

    Arguments:
        gap: width, in reward, at which to stop.
        seconds: wall-clock limit; the trial under way is finished.

    Notes: anytime; both bounds are valid at every moment. Deterministic apart from where the clock stops it.
    """
    started = time.perf_counter()
    search = _Search(tables)
    history = [(time.perf_counter() - started, *search.bounds())]
    trials = 0
    while history[-1][2] - history[-1][1] > gap and trials < max_trials:
        if time.perf_counter() - started > seconds:
            break
        search.trial(gap)
        trials += 1
        history.append((time.perf_counter() - started, *search.bounds()))
    search.prune()
    low, high = search.bounds()
    return Bracket(
        low, high, search.vectors[: search.m].copy(), search.actions[: search.m].copy(), trials,
        time.perf_counter() - started, np.array(history),
    )  # fmt: skip


class _Search:
    """The two bounds, and trials that tighten them along the most promising and least known path."""

    def __init__(self, tables: Tables) -> None:
        self.t = tables
        start = np.flatnonzero(tables.start > 0)
        self.root = (start.astype(np.int64), tables.start[start] / tables.start.sum())
        blind = blind_lower(tables)
        self.vectors, self.actions, self.m = blind.copy(), np.arange(tables.n_actions), tables.n_actions
        self.corner = fast_informed_bound(tables).max(axis=0)
        self.point_ptr, self.n_points = np.zeros(1024, np.int64), 0
        self.point_states, self.point_weights = np.zeros(1 << 14, np.int64), np.zeros(1 << 14)
        self.point_value = np.zeros(1024)
        self.dense = np.zeros(tables.n_states)
        self._next_prune = 512
        self._next_thin = 256

    def bounds(self) -> tuple[float, float]:
        """Return (low, high) at the start belief."""
        return self.low(*self.root)[0], self.high(*self.root)

    def low(self, states: Array, weights: Array) -> tuple[float, int]:
        """Return the lower bound at a belief and the vector that gives it."""
        return k.lower(self.vectors, self.m, states, weights)

    def high(self, states: Array, weights: Array) -> float:
        """Return the sawtooth upper bound at a belief."""
        return k.sawtooth(
            self.corner, self.point_ptr, self.point_states, self.point_weights, self.point_value, self.n_points,
            self.dense, states, weights,
        )  # fmt: skip

    def _expand(self, states: Array, weights: Array) -> tuple[Array, list[list[tuple[float, Array, Array, float, float, int, int]]]]:
        """Return Q_high [A] and, for each action and observation, (probability, belief, low, high, vector)."""
        t = self.t
        q = t.reward[states].T @ weights
        branches: list[list[tuple[float, Array, Array, float, float, int, int]]] = []
        for a in range(t.n_actions):
            ahead, p = k.predict(t.indptr, t.indices, t.data, t.n_states, a, states, weights, self.dense)
            branch = []
            if len(ahead):
                joint = t.observe[a, ahead] * p[:, None]
                for o in np.flatnonzero(joint.sum(axis=0) > 1e-14):
                    keep = joint[:, o] > 0
                    mass = float(joint[keep, o].sum())
                    s, w = ahead[keep], joint[keep, o] / mass
                    low, vector = self.low(s, w)
                    high = max(low, self.high(s, w))
                    q[a] += t.discount * mass * high
                    branch.append((mass, s, w, low, high, vector, int(o)))
            branches.append(branch)
        return q, branches

    def trial(self, gap: float) -> None:
        """Walk down from the root while the gap warrants it, then back up both bounds on the way home."""
        path = []
        states, weights = self.root
        low, high = self.bounds()
        # Aiming a little below the gap there is now, not at the final one, keeps the early walks short.
        target = max(gap, 0.9 * (high - low)) * 0.99
        for _ in range(400):
            q, branches = self._expand(states, weights)
            path.append((states, weights))
            best = branches[int(np.argmax(q))]
            target /= self.t.discount
            if not best:
                break
            excess = [mass * (high - low - target) for mass, _, _, low, high, *_ in best]
            if max(excess) <= 0:
                break
            states, weights = best[int(np.argmax(excess))][1:3]
        for states, weights in reversed(path):
            self._update(states, weights)
        if self.m > self._next_prune:
            self.prune()
            self._next_prune = max(512, 2 * self.m)
        if self.n_points > self._next_thin:
            self._thin_points()
            self._next_thin = max(256, 2 * self.n_points)

    def _update(self, states: Array, weights: Array) -> None:
        t = self.t
        q_high, branches = self._expand(states, weights)
        q_low = t.reward[states].T @ weights
        for a, branch in enumerate(branches):
            q_low[a] += t.discount * sum(mass * low for mass, _, _, low, *_ in branch)
        a = int(np.argmax(q_low))
        if q_low[a] > self.low(states, weights)[0] + 1e-12:
            choice = np.full(t.n_observations, self.low(states, weights)[1], np.int64)
            for _, _, _, _, _, vector, o in branches[a]:
                choice[o] = vector
            self._add_vector(
                k.back_project(t.indptr, t.indices, t.data, t.observe, t.reward, t.discount, a, self.vectors, choice), a
            )
        new = float(q_high.max())
        if new < self.high(states, weights) - 1e-12:
            self._add_point(states, weights, new)

    def _add_vector(self, vector: Array, action: int) -> None:
        if self.m == len(self.vectors):
            self.vectors = np.concatenate([self.vectors, np.empty_like(self.vectors)])
            self.actions = np.concatenate([self.actions, np.zeros_like(self.actions)])
        self.vectors[self.m], self.actions[self.m] = vector, action
        self.m += 1

    def _add_point(self, states: Array, weights: Array, value: float) -> None:
        if len(states) == 1:
            self.corner[states[0]] = min(self.corner[states[0]], value)
            return
        if self.n_points + 2 > len(self.point_ptr):
            self.point_ptr = np.concatenate([self.point_ptr, np.zeros_like(self.point_ptr)])
            self.point_value = np.concatenate([self.point_value, np.zeros_like(self.point_value)])
        first = self.point_ptr[self.n_points]
        while first + len(states) > len(self.point_states):
            self.point_states = np.concatenate([self.point_states, np.zeros_like(self.point_states)])
            self.point_weights = np.concatenate([self.point_weights, np.zeros_like(self.point_weights)])
        self.point_states[first : first + len(states)] = states
        self.point_weights[first : first + len(states)] = weights
        self.point_value[self.n_points] = value
        self.n_points += 1
        self.point_ptr[self.n_points] = first + len(states)

    def _thin_points(self) -> None:
        """Drop upper-bound points that the others already imply."""
        keep = k.useful_points(
            self.corner, self.point_ptr, self.point_states, self.point_weights, self.point_value, self.n_points, self.dense
        )
        spans = [slice(self.point_ptr[i], self.point_ptr[i + 1]) for i in np.flatnonzero(keep)]
        states = [self.point_states[span] for span in spans]
        weights = [self.point_weights[span] for span in spans]
        values = self.point_value[: self.n_points][keep]
        room = max(1024, 2 * len(spans) + 2)
        self.point_ptr, self.point_value = np.zeros(room, np.int64), np.zeros(room)
        self.n_points = len(spans)
        self.point_value[: self.n_points] = values
        if spans:
            np.cumsum([len(s) for s in states], out=self.point_ptr[1 : self.n_points + 1])
            pad = 1 << 14
            self.point_states = np.concatenate([*states, np.zeros(pad, np.int64)])
            self.point_weights = np.concatenate([*weights, np.zeros(pad)])

    def prune(self) -> None:
        """Drop lower vectors that another one covers everywhere."""
        keep = k.undominated(self.vectors, self.m)
        kept = self.vectors[: self.m][keep]
        self.m = len(kept)
        self.vectors = np.concatenate([kept, np.empty_like(kept)])
        actions = self.actions[: len(keep)][keep]
        self.actions = np.concatenate([actions, np.zeros_like(actions)])
