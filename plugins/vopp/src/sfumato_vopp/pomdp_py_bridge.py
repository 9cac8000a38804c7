"""Bridges to and from `pomdp_py` (Zheng and Tellex, 2020; ``pip install 'sfumato-vopp[pomdp-py]'``).

* :func:`from_pomdp_py` makes a batched model of a pomdp_py agent: by tables where its states and observations can be listed,
  else by a loop over its samplers, which is slow and says so in ``is_slow_loop``.
* :class:`PomdpPyPlanner` puts VOPP behind pomdp_py's planner interface.
* :func:`to_pomdp_py` makes a pomdp_py agent of one of our models, so that its planners can be run on the same problem.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from sfumato_vopp.belief import Belief, ExactFilter, ParticleFilter
from sfumato_vopp.config import SearchConfig
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, Model, Step
from sfumato_vopp.planner import VOPP
from sfumato_vopp.tabular import TabularModel

__all__ = ["Numbering", "PomdpPyPlanner", "from_pomdp_py", "to_pomdp_py"]


def _library() -> Any:
    try:
        import pomdp_py
    except ImportError as error:
        raise ImportError("this bridge needs pomdp_py; run: pip install 'sfumato-vopp[pomdp-py]'") from error
    return pomdp_py


class Numbering:
    """Numbers for hashable things, in the order in which they were first met."""

    def __init__(self, things: Iterable[Hashable] = ()) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Any, int] = {}
        for thing in things:
            self.number(thing)

    def number(self, thing: Hashable) -> int:
        """Return the number of a thing; a new one if it was not met before."""
        found = self._numbers.get(thing)
        if found is None:
            found = self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return found

    def known(self, thing: Hashable) -> int | None:
        """Return the number of a thing, or None."""
        return self._numbers.get(thing)

    def __len__(self) -> int:
        return len(self.things)


def _listed(source: Any, method: str, given: Any) -> list[Any] | None:
    if given is not None:
        return list(given)
    try:
        return list(getattr(source, method)())
    except (AttributeError, NotImplementedError):
        return None


class _Sampled(Model):
    """A model that asks pomdp_py's samplers state by state; the states are numbers of its objects."""

    is_slow_loop = True

    def __init__(self, agent: Any, actions: list[Any], start: Any, discount: float, rewards: tuple[float, float]) -> None:
        self._agent, self._start = agent, start
        self.states, self.observations, self.actions = Numbering(), Numbering(), Numbering(actions)
        self.n_actions, self.n_observations, self.discount = len(actions), None, discount
        self.reward_range = rewards

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n states from the agent's belief as it was when the bridge was built."""
        things, p = zip(*self._start, strict=True)
        chosen = rng.choice(len(things), n, p=np.array(p) / np.sum(p))
        return np.array([[self.states.number(things[i])] for i in chosen], np.int64).reshape(n, 1)

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch, one call of the samplers each; pomdp_py draws from its own, global generators."""
        n = len(states)
        following, seen, rewards = np.zeros((n, 1), np.int64), np.zeros(n, np.int64), np.zeros(n)
        for i in range(n):
            s, a = self.states.things[int(states[i, 0])], self.actions.things[int(actions[i])]
            t = self._agent.transition_model.sample(s, a)
            o = self._agent.observation_model.sample(t, a)
            rewards[i] = self._agent.reward_model.sample(s, a, t)
            following[i, 0], seen[i] = self.states.number(t), self.observations.number(o)
        return Step(following, seen, rewards, np.zeros(n, np.bool_))

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Ask the observation model for each row."""
        o, a = self.observations.things[observation], self.actions.things[action]
        with np.errstate(divide="ignore"):
            return np.log(
                [self._agent.observation_model.probability(o, self.states.things[int(s)], a) for s in next_states[:, 0]]
            )

    def describe_state(self, state: Array) -> str:
        """Return the object's own name."""
        return str(self.states.things[int(state[0])])


def _belief_pairs(belief: Any) -> list[tuple[Any, float]]:
    """Return the states and weights of a pomdp_py belief (Histogram, Particles or WeightedParticles)."""
    if hasattr(belief, "get_histogram"):
        return [(s, float(p)) for s, p in belief.get_histogram().items() if p > 0]
    if hasattr(belief, "particles"):
        particles = belief.particles
        return [(p if not isinstance(p, tuple) else p[0], 1.0 / len(particles)) for p in particles]
    return [(s, float(belief[s])) for s in belief if belief[s] > 0]


def from_pomdp_py(
    agent: Any,
    *,
    discount: float,
    states: Iterable[Any] | None = None,
    observations: Iterable[Any] | None = None,
    terminal: Any = None,
    reward_range: tuple[float, float] | None = None,
) -> Any:
    """Return a model of a pomdp_py agent; its attributes ``states``, ``actions`` and ``observations`` translate the numbers.

    Arguments:
        agent: a ``pomdp_py.Agent``; its belief is where episodes start.
        discount: γ, which pomdp_py gives to planners rather than to problems.
        states, observations: all of them, where the agent's models do not list them (``get_all_states`` and so on).
        terminal: ``terminal(state) -> bool``; pomdp_py has no notion of an end.
        reward_range: lowest and highest sensible reward; needed where states cannot be listed.

    Raises:
        ModelError: actions cannot be listed, a probability is missing, or tables do not sum to one.

    Notes: tables cost O(|A| |S| (|S| + |O|)) calls of the agent's models, once.
    """
    _library()
    policy = agent.policy_model
    actions = _listed(policy, "get_all_actions", None)
    if not actions:
        raise ModelError("expected an agent whose policy_model lists its actions (get_all_actions); VOPP needs a finite set")
    all_states = _listed(agent.transition_model, "get_all_states", states)
    all_observations = _listed(agent.observation_model, "get_all_observations", observations)
    start = _belief_pairs(agent.belief)
    if all_states is None or all_observations is None:
        if reward_range is None:
            raise ModelError("expected reward_range=(low, high), because this agent's states cannot be listed")
        return _Sampled(agent, actions, start, discount, reward_range)
    n, n_obs = len(all_states), len(all_observations)
    transition, observe = np.zeros((len(actions), n, n)), np.zeros((len(actions), n, n_obs))
    reward, initial = np.zeros((len(actions), n, n)), np.zeros(n)
    number = Numbering(all_states)
    ends = np.array([bool(terminal(s)) if terminal is not None else False for s in all_states])
    for i, a in enumerate(actions):
        for j, s in enumerate(all_states):
            transition[i, j] = [agent.transition_model.probability(t, s, a) for t in all_states]
            observe[i, j] = [agent.observation_model.probability(o, s, a) for o in all_observations]
            for k in np.flatnonzero(transition[i, j]):
                reward[i, j, k] = agent.reward_model.sample(s, a, all_states[k])
    for name, table in (("transition", transition), ("observation", observe)):
        sums = table.sum(axis=2)
        if not np.allclose(sums, 1.0, atol=1e-6):
            a, s = np.argwhere(~np.isclose(sums, 1.0, atol=1e-6))[0]
            raise ModelError(
                f"expected {name} probabilities that sum to 1, got {sums[a, s]:.6g} for state {all_states[s]} and action "
                f"{actions[a]}; check the model, or leave states and observations out to sample it"
            )
    for s, p in start:
        found = number.known(s)
        if found is None:
            raise ModelError(f"expected beliefs over the states listed, got {s}; give states=…")
        initial[found] += p
    model: Any = TabularModel(transition, observe, reward, initial / initial.sum(), discount, ends)
    model.states, model.actions, model.observations = number, Numbering(actions), Numbering(all_observations)
    model.is_slow_loop = False
    return model


class PomdpPyPlanner:
    """VOPP as a pomdp_py planner: ``plan(agent)`` returns an action of the agent, ``update`` conditions the belief.

    The belief is the planner's own (exact where the model is listed, else particles); the agent's is read once, at the start.

    Arguments:
        agent, discount and the rest: as for :func:`from_pomdp_py`.
        config: how to search.
        n_particles: of the filter, where the model is not listed.
    """

    def __init__(
        self,
        agent: Any,
        *,
        discount: float,
        config: SearchConfig | None = None,
        n_particles: int = 1000,
        rng: np.random.Generator | None = None,
        **listing: Any,
    ) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        self.model = from_pomdp_py(agent, discount=discount, **listing)
        self.planner = VOPP(self.model, config, rng)
        self._filter: Any = ParticleFilter(self.model, n_particles, rng) if self.model.is_slow_loop else ExactFilter(self.model)
        self.last_decision: Any = None

    @property
    def belief(self) -> Belief:
        """The planner's belief; particles are numbers of ``model.states``."""
        return self._filter.belief  # type: ignore[no-any-return]

    def plan(self, agent: Any) -> Any:
        """Return the action to take."""
        self.last_decision = self.planner.plan(self._filter.belief)
        return self.model.actions.things[self.last_decision.action]

    def update(self, agent: Any, real_action: Any, real_observation: Any) -> None:
        """Say what was done and seen.

        Raises:
            ModelError: an action or an observation that the model does not know.
        """
        action, observation = self.model.actions.known(real_action), self.model.observations.known(real_observation)
        if action is None or observation is None:
            what = f"action {real_action}" if action is None else f"observation {real_observation}"
            raise ModelError(f"expected an action and an observation of the model, got {what}, which it does not have")
        self._filter.update(action, observation)

    def updates_agent_belief(self) -> bool:
        """Say that the agent's own belief is left alone."""
        return False


def to_pomdp_py(model: Model, rng: np.random.Generator, n_particles: int = 1000) -> Any:
    """Return a ``pomdp_py.Agent`` on one of our models, with a uniform rollout policy and a particle belief.

    pomdp_py asks for the next state, the observation and the reward one after the other; a step of ours gives all three, so
    the next state carries the other two. States hash by value, observations and actions are numbers in simple wrappers.
    """
    lib: Any = _library()

    class State(lib.State):  # type: ignore[misc]
        def __init__(self, value: tuple[Any, ...], outcome: tuple[int, float] = (-1, 0.0), over: bool = False) -> None:
            self.value, self.outcome, self.over = value, outcome, over

        def __hash__(self) -> int:
            return hash((self.value, self.over))

        def __eq__(self, other: object) -> bool:
            return isinstance(other, State) and self.value == other.value and self.over == other.over

    actions = [lib.SimpleAction(str(i)) for i in range(model.n_actions)]

    class Transition(lib.TransitionModel):  # type: ignore[misc]
        def sample(self, state: Any, action: Any) -> Any:
            if state.over:
                return State(state.value, over=True)
            out = model.step(np.array([state.value], model.state_dtype), np.array([int(action.name)]), rng)
            outcome = (int(out.observations[0]), float(out.rewards[0]))
            return State(tuple(out.states[0].tolist()), outcome, bool(out.terminal[0]))

    class Observation(lib.ObservationModel):  # type: ignore[misc]
        def sample(self, next_state: Any, action: Any) -> Any:
            return lib.SimpleObservation(next_state.outcome[0])

    class Reward(lib.RewardModel):  # type: ignore[misc]
        def sample(self, state: Any, action: Any, next_state: Any) -> float:
            return float(next_state.outcome[1])

    class Rollout(lib.RolloutPolicy):  # type: ignore[misc]
        def get_all_actions(self, *args: Any, **kwargs: Any) -> list[Any]:
            return actions

        def rollout(self, state: Any, history: Any = None) -> Any:
            return actions[int(rng.integers(len(actions)))]

    start = [State(tuple(row.tolist())) for row in model.initial(n_particles, rng)]
    return lib.Agent(lib.Particles(start), Rollout(), Transition(), Observation(), Reward())
