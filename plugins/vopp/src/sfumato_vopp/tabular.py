"""POMDPs as tables: every state, every outcome listed. What the near-exact solvers work on, and a model of its own.

States are numbered 0 … S-1; an episode that has ended is in no state, so rows of the transition tables may sum to less than
one, the rest being the probability of ending.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, CompiledModel, Model, Step, Transitions

__all__ = ["Tables", "TabularModel", "tabulate"]


@attrs.frozen(eq=False)
class Tables:
    """A finite POMDP in compressed rows; row ``a·S + s`` holds the outcomes of action a in state s.

    Attributes:
        n_states, n_actions, n_observations, discount: sizes and γ.
        start: float64 [S], initial distribution.
        indptr: int64 [A·S+1]; indices: int64 [nnz], successor states; data: float64 [nnz], probabilities.
        observe: float64 [A, S, O], probability of each observation after arriving in s by a.
        reward: float64 [S, A], expected immediate reward.
        states: [S, state_width], the model's own states, when these tables come from a model.
    """

    n_states: int
    n_actions: int
    n_observations: int
    discount: float
    start: Array
    indptr: Array
    indices: Array
    data: Array
    observe: Array
    reward: Array
    states: Array | None = None


def tabulate(model: Model, max_states: int = 200_000) -> Tables:
    """List a model's reachable states and outcomes.

    Raises:
        ModelError: the model does not list its outcomes, has unbounded observations, or more than ``max_states`` states.
    """
    start = model.initial_distribution()
    if start is None or model.n_observations is None:
        raise ModelError(
            f"{type(model).__name__} cannot be tabulated: it needs initial_distribution, transitions and a finite n_observations"
        )
    states, n_actions, n_obs = _reachable(model, start[0], max_states)
    n = len(states)
    number = numbering(states)
    reward = np.zeros((n, n_actions))
    observe = np.zeros((n_actions, n, n_obs))
    rows, columns, values = [], [], []
    for a in range(n_actions):
        out = model.transitions(states, a)
        assert out is not None
        np.add.at(reward[:, a], out.source, out.probabilities * out.rewards)
        alive = ~out.terminal
        source, following, p = out.source[alive], out.states[alive], out.probabilities[alive]
        target = number(following)
        rows.append(a * n + source)
        columns.append(target)
        values.append(p)
        _, first = np.unique(target, return_index=True)
        for o in range(n_obs):
            observe[a, target[first], o] = np.exp(
                model.log_likelihood(o, states[source[first]], a, following[first])
            )
    row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    order = np.lexsort((column, row))
    indptr = np.zeros(n_actions * n + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=n_actions * n), out=indptr[1:])
    initial = np.zeros(n)
    np.add.at(initial, number(start[0]), start[1])
    return Tables(
        n, n_actions, n_obs, model.discount, initial, indptr, column[order].astype(np.int64), value[order], observe, reward, states
    )


def _reachable(model: Model, start: Array, max_states: int) -> tuple[Array, int, int]:
    assert model.n_observations is not None
    known = np.unique(np.asarray(start), axis=0)
    frontier = known
    while len(frontier):
        found = []
        for a in range(model.n_actions):
            out = model.transitions(frontier, a)
            if out is None:
                raise ModelError(f"{type(model).__name__} cannot be tabulated: its transitions cannot be listed")
            found.append(out.states[~out.terminal])
        union = np.unique(np.concatenate([known, *found]), axis=0)
        if len(union) > max_states:
            raise ModelError(f"expected at most {max_states} states, got more; raise max_states or use an online planner")
        frontier = union[~_contained(union, known)]
        known = union
    return known, model.n_actions, model.n_observations


def _bytes_view(states: Array) -> Array:
    rows = np.ascontiguousarray(states)
    return rows.view([("", rows.dtype)] * rows.shape[1]).reshape(-1)


def _contained(states: Array, known: Array) -> Array:
    return np.isin(_bytes_view(states), _bytes_view(known))


def numbering(states: Array) -> Any:
    """Return a function that gives the row number, among these states [S, width], of each state [N, width]."""
    keys = _bytes_view(states)
    order = np.argsort(keys)
    ordered = keys[order]

    def number(rows: Array) -> Array:
        place = np.searchsorted(ordered, _bytes_view(rows.astype(states.dtype, copy=False)))
        return order[place]

    return number


class TabularModel(Model):
    """A finite POMDP given by dense tables.

    Arguments:
        transition: float64 [A, S, S], rows summing to one.
        observe: float64 [A, S, O], P(o | a, next state), rows summing to one.
        reward: float64 [A, S], [A, S, S] or [A, S, S, O]; expectations over what is not given are taken where needed.
        start: float64 [S].
        terminal: bool [S], states in which the episode ends on arrival; none by default.
    """

    uses_counter_draws = True
    state_width = 1
    state_dtype = np.int64

    def __init__(
        self, transition: Array, observe: Array, reward: Array, start: Array, discount: float, terminal: Array | None = None
    ) -> None:
        self.transition, self.observe = np.asarray(transition, np.float64), np.asarray(observe, np.float64)
        reward = np.asarray(reward, np.float64)
        self.start, self.discount = np.asarray(start, np.float64), float(discount)
        n_actions, n_states = self.transition.shape[:2]
        for name, table, shape in (
            ("transition", self.transition, (n_actions, n_states, n_states)),
            ("observe", self.observe, (n_actions, n_states, self.observe.shape[-1])),
            ("start", self.start[None], (1, n_states)),
        ):
            if table.shape != shape:
                raise ModelError(f"expected {name} of shape {shape}, got {table.shape}")
            if np.any(table < 0) or not np.allclose(table.sum(axis=-1), 1.0, atol=1e-6):
                raise ModelError(f"expected every row of {name} to be a distribution; its sums range over "
                                 f"{table.sum(axis=-1).min():.6g} … {table.sum(axis=-1).max():.6g}")
        self.n_actions, self.n_states, self.n_observations = n_actions, n_states, self.observe.shape[-1]
        self.terminal = np.zeros(n_states, bool) if terminal is None else np.asarray(terminal, bool)
        if reward.shape not in (
            (n_actions, n_states), (n_actions, n_states, n_states), (n_actions, n_states, n_states, self.n_observations)
        ):
            raise ModelError(f"expected reward of shape [A, S], [A, S, S] or [A, S, S, O], got {reward.shape}")
        if not np.all(np.isfinite(reward)):
            raise ModelError("expected finite rewards, got NaN or infinity in the table")
        if reward.ndim == 4:
            # The observation is drawn after the state, so its share of the reward is averaged here; this leaves every
            # value unchanged, for the observation carries no news about the reward that the belief update would use.
            reward = np.einsum("asto,ato->ast", reward, self.observe)
        #: [A, S, S'] or [A, S, 1]
        self.reward = reward[:, :, None] if reward.ndim == 2 else reward
        self.reward_range = (float(self.reward.min()), float(self.reward.max()))
        self._cum_t = np.cumsum(self.transition, axis=-1)
        self._cum_o = np.cumsum(self.observe, axis=-1)

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states; int64 [n, 1]."""
        return rng.choice(self.n_states, n, p=self.start / self.start.sum())[:, None]

    def _reward(self, actions: Any, states: Array, following: Array) -> Array:
        return self.reward[actions, states, following if self.reward.shape[2] > 1 else 0]

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch; two draws an item. Memory O(B·S)."""
        s = states[:, 0]
        rows = self._cum_t[actions, s]
        following = np.minimum((rows <= (rng.random(len(s)) * rows[:, -1])[:, None]).sum(1), self.n_states - 1)
        rows = self._cum_o[actions, following]
        seen = np.minimum((rows <= (rng.random(len(s)) * rows[:, -1])[:, None]).sum(1), rows.shape[1] - 1)
        return Step(following[:, None], seen, self._reward(actions, s, following), self.terminal[following])

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return log P(o | a, s'); float64 [B]. An observation outside the table is impossible."""
        if not 0 <= observation < self.observe.shape[-1]:
            return np.full(len(next_states), -np.inf)
        with np.errstate(divide="ignore"):
            return np.log(self.observe[action, next_states[:, 0], observation])

    def initial_distribution(self) -> tuple[Array, Array]:
        """Return the states of positive probability."""
        support = np.flatnonzero(self.start > 0)
        return support[:, None], self.start[support] / self.start.sum()

    def transitions(self, states: Array, action: int) -> Transitions:
        """List the outcomes of positive probability."""
        s = states[:, 0]
        source, following = np.nonzero(self.transition[action][s])
        return Transitions(
            source,
            following[:, None],
            self.transition[action][s[source], following],
            self._reward(action, s[source], following),
            self.terminal[following],
        )

    def is_terminal(self, states: Array) -> Array:
        """Return flags [N]."""
        return self.terminal[states[:, 0]]

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp import tabular_numba as k

        ints = np.concatenate([[self.n_states, self.observe.shape[-1], self.reward.shape[2]], self.terminal]).astype(np.int64)
        most = max(0.0, float(self.reward.max())) / (1.0 - self.discount) if self.discount < 1.0 else np.inf
        floats = np.concatenate([self._cum_t.ravel(), self._cum_o.ravel(), self.reward.ravel(), [most]])
        return CompiledModel(k.step, k.hint, k.log_likelihood, ints, floats, "builtin:tabular", k.upper)
