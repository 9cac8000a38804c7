"""PORPP, one episode after another: the sequential method that VOPP vectorises, written plainly, as an oracle and a baseline.

Source: Kim and Kurniawati, "Partially Observable Reference Policy Programming: solving POMDPs sans numerical optimisation",
IJCAI 2025, Algorithm 1. Actions are single steps here; the paper allows macro-actions, whose length only changes the power
of the discount.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from sfumato_vopp.config import PORPPConfig
from sfumato_vopp.model import Array, Model

__all__ = ["PORPPTree"]


@attrs.define
class _Edge:
    """What a history followed by an action remembers."""

    psi: float = 0.0
    n: int = 0
    reward: float = 0.0  # running mean of the immediate reward
    ahead: float = 0.0  # running mean of the value after it
    below: dict[int, _Node] = attrs.field(factory=dict)


@attrs.define
class _Node:
    """A history."""

    depth: int
    n: int = 0
    v: float = 0.0
    edges: dict[int, _Edge] = attrs.field(factory=dict)


class PORPPTree:
    """Histories in dictionaries; same interface as VOPP's trees, so the same planner drives it.

    At a history h visited N times an action is proposed while |children| < k_a·N^alpha_a; then one is drawn by the softmax of
    the preferences. After the episode, from its end to its start: running means R and D of reward and value ahead,
    Ψ(ha) += R + γD - V(h), V(h) = (1/η) log Σ_children exp(ηΨ).
    """

    storage = "dictionary"
    overflow = False

    def __init__(self, model: Model, config: PORPPConfig, eta: float) -> None:
        self._model, self._config, self._eta = model, config, eta
        self.steps = self.n_beliefs = self.n_action_nodes = 0

    @property
    def nbytes(self) -> int:
        """A rough count: dictionaries have no size of their own."""
        return 300 * (self.n_beliefs + self.n_action_nodes)

    def begin(self, particles: Array, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        self._particles, self._cumulative = particles, cumulative
        self._rng = np.random.default_rng(seed)
        self._root = _Node(0)
        self.steps, self.n_beliefs, self.n_action_nodes = 0, 1, 0

    def _start(self) -> Array:
        if self._cumulative is None:
            i = int(self._rng.integers(len(self._particles)))
        else:
            i = int(np.searchsorted(self._cumulative, self._rng.random() * self._cumulative[-1], side="right"))
        return self._particles[min(i, len(self._particles) - 1)][None]

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run n episodes, each followed by its backup; returns n."""
        for _ in range(n_episodes):
            self._episode(depth)
        return n_episodes

    def _choose(self, node: _Node) -> int:
        c, rng = self._config, self._rng
        if len(node.edges) < min(self._model.n_actions, c.k_a * max(1, node.n) ** c.alpha_a):
            proposed = int(rng.integers(self._model.n_actions))
            if proposed not in node.edges:
                node.edges[proposed] = _Edge(psi=c.initial_preference)
                self.n_action_nodes += 1
        actions = list(node.edges)
        psi = np.array([node.edges[a].psi for a in actions])
        weights = np.exp(self._eta * (psi - psi.max()))
        return actions[int(rng.choice(len(actions), p=weights / weights.sum()))]

    def _episode(self, depth: int) -> None:
        state, node, path = self._start(), self._root, []
        tail = 0.0
        for d in range(depth):
            a = self._choose(node)
            out = self._model.step(state, np.array([a]), self._rng)
            self.steps += 1
            edge = node.edges[a]
            path.append((node, edge, float(out.rewards[0])))
            if out.terminal[0]:
                break
            o = int(out.observations[0])
            state = out.states
            created = o not in edge.below
            if created:
                edge.below[o] = _Node(d + 1)
                self.n_beliefs += 1
            node = edge.below[o]
            if created or d + 1 == depth:
                # A new history is a leaf: the model's hint stands for what lies below.
                if created or not node.edges:
                    node.v += (float(self._model.value_hint(state, np.array([a]))[0]) - node.v) / (node.n + 1)
                node.n += 1
                tail = node.v
                break
        for node, edge, reward in reversed(path):
            node.n += 1
            edge.n += 1
            edge.reward += (reward - edge.reward) / edge.n
            edge.ahead += (tail - edge.ahead) / edge.n
            old = self._value(node)
            edge.psi += edge.reward + self._model.discount * edge.ahead - old
            node.v = tail = self._value(node)

    def _value(self, node: _Node) -> float:
        psi = np.array([e.psi for e in node.edges.values()])
        best = float(psi.max())
        return best + float(np.log(np.exp(self._eta * (psi - best)).sum())) / self._eta

    def root(self) -> tuple[Array, Array, Array, float]:
        """Return the root's preferences [A] (-inf where untried), visits [A], mean values [A], and value."""
        n_actions = self._model.n_actions
        psi, visits, q = np.full(n_actions, -np.inf), np.zeros(n_actions, np.int64), np.full(n_actions, np.nan)
        for a, edge in self._root.edges.items():
            if edge.n:
                psi[a], visits[a] = edge.psi, edge.n
                q[a] = edge.reward + self._model.discount * edge.ahead
        return psi, visits, q, self._root.v

    def depth_histogram(self) -> Array:
        """Return the number of histories at each depth, the root first."""
        counts: dict[int, int] = {}
        stack: list[Any] = [self._root]
        while stack:
            node = stack.pop()
            counts[node.depth] = counts.get(node.depth, 0) + 1
            for edge in node.edges.values():
                stack.extend(edge.below.values())
        return np.array([counts.get(d, 0) for d in range(max(counts) + 1)])
