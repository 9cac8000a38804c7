"""Tiger: listen, or open one of two doors; behind one of them is a tiger.

Source: Kaelbling, Littman, Cassandra, "Planning and acting in partially observable stochastic domains", 1998, §5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.model import Array, CompiledModel, Model, Step, Transitions

__all__ = ["LISTEN", "OPEN_LEFT", "OPEN_RIGHT", "Tiger"]

LISTEN, OPEN_LEFT, OPEN_RIGHT = 0, 1, 2


class Tiger(Model):
    """State: the tiger's side (0 left, 1 right). Actions: listen, open left, open right. Observations: heard left, right.

    Listening costs 1 and is right with probability ``accuracy``. The door without the tiger pays 10, the other costs 100;
    opening places the tiger anew and is answered by a meaningless sound. It goes on for ever.
    """

    n_actions = 3
    n_observations = 2
    state_width = 1
    state_dtype = np.int64
    reward_range = (-100.0, 10.0)
    uses_counter_draws = True

    def __init__(self, accuracy: float = 0.85, discount: float = 0.95) -> None:
        self.accuracy = accuracy
        self.discount = discount

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states; int64 [n, 1]."""
        return rng.integers(0, 2, (n, 1))

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch; two draws an item."""
        tiger = states[:, 0]
        listening = actions == LISTEN
        first, second = rng.random(len(states)), rng.random(len(states))
        wrong = first >= self.accuracy
        heard = np.where(listening, np.where(wrong, 1 - tiger, tiger), (first >= 0.5).astype(np.int64))
        following = np.where(listening, tiger, (second >= 0.5).astype(np.int64))
        reward = np.where(listening, -1.0, np.where(actions - 1 == tiger, -100.0, 10.0))
        return Step(following[:, None], heard, reward, np.zeros(len(states), bool))

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return the log-likelihood of a sound; float64 [B]."""
        if action != LISTEN:
            return np.full(len(states), np.log(0.5))
        right = next_states[:, 0] == observation
        return np.log(np.where(right, self.accuracy, 1.0 - self.accuracy))

    def initial_distribution(self) -> tuple[Array, Array]:
        """Return both sides with probability one half."""
        return np.array([[0], [1]]), np.array([0.5, 0.5])

    def transitions(self, states: Array, action: int) -> Transitions:
        """List the outcomes: one when listening, two when opening."""
        n = len(states)
        if action == LISTEN:
            return Transitions(np.arange(n), states, np.ones(n), np.full(n, -1.0), np.zeros(n, bool))
        source = np.repeat(np.arange(n), 2)
        reward = np.where(states[:, 0] == action - 1, -100.0, 10.0)
        following = np.tile(np.array([0, 1]), n)[:, None]
        return Transitions(source, following, np.full(2 * n, 0.5), reward[source], np.zeros(2 * n, bool))

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import tiger_numba as k

        floats = np.array([self.accuracy, 10.0 / (1.0 - self.discount) if self.discount < 1.0 else np.inf])
        return CompiledModel(k.step, k.hint, k.log_likelihood, np.zeros(1, np.int64), floats, "builtin:tiger", k.upper)

    def describe_state(self, state: Array) -> str:
        """Name the tiger's side."""
        return ("tiger left", "tiger right")[int(state[0])]
