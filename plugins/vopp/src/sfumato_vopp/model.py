"""What a planner must know about a problem: the batched model interface, and its compiled form.

Write one class with a ``step`` on arrays and it can be planned with; add compiled scalar functions and the fused CPU
search can use it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_vopp.errors import ModelError

__all__ = ["CompiledModel", "Model", "Step", "Transitions", "check_model"]

Array = NDArray[Any]


class Step(NamedTuple):
    """What one batched model step returns; leading axis B throughout. A tuple, for compilers of array code see through it.

    Attributes:
        states: [B, state_width], the next states (ignored where terminal).
        observations: int64 [B].
        rewards: float64 [B].
        terminal: bool [B].
    """

    states: Any
    observations: Any
    rewards: Any
    terminal: Any


@attrs.frozen
class Transitions:
    """All outcomes of one action from each of N states, M outcomes in all.

    Attributes:
        source: int64 [M], index of the state each outcome comes from.
        states: [M, state_width].
        probabilities: float64 [M]; they sum to one for each source.
        rewards: float64 [M].
        terminal: bool [M].
    """

    source: Array
    states: Array
    probabilities: Array
    rewards: Array
    terminal: Array


@attrs.frozen(eq=False)
class CompiledModel:
    """Scalar functions of a model, compiled by numba, and the constants they read.

    Attributes:
        step: ``step(S, i, a, stream, ints, floats) -> (observation, reward, terminal)``; overwrites row ``i`` of the state
            array ``S`` [n, state_width] with the next state. ``stream`` is what ``counter_numba.uniform`` draws from.
        hint: ``hint(S, i, a, ints, floats) -> float``; a guess of the value of row ``i``, just reached by action ``a``.
        log_likelihood: ``log_likelihood(o, P, i, a, S, j, ints, floats) -> float``; of observation ``o`` after action ``a``
            led from row ``i`` of ``P`` to row ``j`` of ``S``.
        ints: int64 [·], whole-number constants of this instance.
        floats: float64 [·], real constants of this instance.
        cache_key: names the code of the functions for the compiled cache on disk; None: compile anew in each process. It
            has to change whenever the functions, or anything they call, change.
        upper: as ``hint``, but never below the value of a player who knows the state; DESPOT's upper bound. None: it uses
            the hint, and its bounds are then only as good as that.
    """

    step: Callable[..., Any]
    hint: Callable[..., Any]
    log_likelihood: Callable[..., Any]
    ints: Array
    floats: Array
    cache_key: str | None = None
    upper: Callable[..., Any] | None = None


class Model:
    """A POMDP with integer actions and integer observations, stepped in batches.

    Subclasses set the attributes below and write ``initial``, ``step`` and ``log_likelihood``; everything else has a default.

    Attributes:
        n_actions: number of actions; ids 0 … n_actions-1.
        n_observations: number of observation ids, or None when any int64 may come (hashed or composed readings).
        discount: γ in (0, 1].
        state_width: number of columns of a state array.
        state_dtype: dtype of a state array.
        reward_range: lowest and highest one-step reward of *sensible* actions; sets the temperature when none is given.
        uses_counter_draws: True when ``step`` draws only through ``rng.random(n)`` and ``rng.standard_normal(n)``, at most
            63 numbers an item and step. Such a model gives identical searches on every backend.
    """

    n_actions: int
    n_observations: int | None
    discount: float
    state_width: int = 1
    state_dtype: Any = np.int64
    reward_range: tuple[float, float] = (-1.0, 1.0)
    uses_counter_draws: ClassVar[bool] = False

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states; [n, state_width]."""
        raise NotImplementedError

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch: states [B, state_width], actions int64 [B]. Must not change its arguments."""
        raise NotImplementedError

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return log P(observation | state, action, next state) for each row; float64 [B], -inf where impossible."""
        raise NotImplementedError

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Guess the value of each state just reached by the action given; float64 [B]. Zero by default."""
        return np.zeros(len(states))

    def reinvigorate(self, prior: Array, action: int, observation: int, posterior: Array, rng: np.random.Generator) -> Array:
        """Repair or refresh a particle set after an update; return [n, state_width]. The posterior itself by default.

        Arguments:
            prior: [N, state_width], particles before the action.
            posterior: [M, state_width], particles after it; M = 0 when no particle explains the observation.
        """
        return posterior

    def initial_distribution(self) -> tuple[Array, Array] | None:
        """Return all start states [N, state_width] and their probabilities [N], or None when they cannot be listed."""
        return None

    def transitions(self, states: Array, action: int) -> Transitions | None:
        """List every outcome of an action from each state, or None when they cannot be listed."""
        return None

    def is_terminal(self, states: Array) -> Array | None:
        """Return flags [N] of states from which nothing can be done, or None when states do not say."""
        return None

    def compiled(self) -> CompiledModel | None:
        """Return scalar compiled functions for the fused CPU search, or None."""
        return None

    def on_tensors(self, device: str) -> Model | None:
        """Return this very model stepping torch tensors on a device, or None; backend torch then uses that one."""
        return None

    def describe_state(self, state: Array) -> str:
        """Say in words what a state [state_width] is."""
        return str(state.tolist())


def source_digest(*functions: Callable[..., Any]) -> str | None:
    """Return a digest of the files that define compiled functions, or None when the source cannot be had."""
    digest = hashlib.sha256()
    for function in functions:
        inner = getattr(function, "py_func", function)
        file = inspect.getsourcefile(inner)
        try:
            if file is None:
                return None
            with open(file, "rb") as stream:
                digest.update(stream.read())
        except OSError:
            return None
        digest.update(inner.__qualname__.encode())
    return digest.hexdigest()


def check_model(model: Model, rng: np.random.Generator, n: int = 64) -> None:
    """Step a model a few times with every kind of action and raise where it breaks the contract.

    Raises:
        ModelError: a shape, a dtype, an id or a reward is not what :class:`Model` says.
    """
    for name in ("n_actions", "discount"):
        if not hasattr(model, name):
            raise ModelError(f"expected {type(model).__name__}.{name} to be set, got nothing; see sfumato_vopp.Model")
    if model.n_actions < 1 or not 0.0 < model.discount <= 1.0:
        raise ModelError(
            f"expected n_actions >= 1 and 0 < discount <= 1, got {model.n_actions} and {model.discount}"
        )
    states = np.asarray(model.initial(n, rng))
    if states.shape != (n, model.state_width):
        raise ModelError(f"initial({n}, rng) should return shape {(n, model.state_width)}, got {states.shape}")
    if model.uses_counter_draws:
        from sfumato_vopp.counter import CounterDraws, episode_keys

        source: Any = CounterDraws(episode_keys(int(rng.integers(2**63)), 0, n))
    else:
        source = rng
    check_step(model, model.step(states, rng.integers(0, model.n_actions, n), source), n)


def check_step(model: Model, step: Step, n: int) -> None:
    """Raise ModelError where a batched step breaks the contract; O(n)."""
    states, observations = np.asarray(step.states), np.asarray(step.observations)
    rewards, terminal = np.asarray(step.rewards), np.asarray(step.terminal)
    if states.shape != (n, model.state_width):
        raise ModelError(f"step should return states of shape {(n, model.state_width)}, got {states.shape}")
    for name, array in (("observations", observations), ("rewards", rewards), ("terminal", terminal)):
        if array.shape != (n,):
            raise ModelError(f"step should return {name} of shape {(n,)}, got {array.shape}")
    if not np.issubdtype(observations.dtype, np.integer):
        raise ModelError(f"step should return whole-number observations, got dtype {observations.dtype}")
    if terminal.dtype != np.bool_:
        raise ModelError(f"step should return terminal flags of dtype bool, got {terminal.dtype}")
    if not np.all(np.isfinite(rewards)):
        bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ModelError(f"step should return finite rewards, got {rewards[bad]} for item {bad} of the batch; check the model")
    if np.issubdtype(states.dtype, np.floating) and not np.all(np.isfinite(states[~terminal])):
        raise ModelError("step should return finite states, got NaN or infinity in at least one row; check the model")
    if model.n_observations is not None and n:
        low, high = int(observations.min()), int(observations.max())
        if low < 0 or high >= model.n_observations:
            raise ModelError(
                f"step should return observations in 0 … {model.n_observations - 1}, got {low} … {high}; "
                "set n_observations = None when any number may come"
            )
