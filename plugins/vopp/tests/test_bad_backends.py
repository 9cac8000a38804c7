"""The same mistakes on every backend: the table of what a planner refuses, and the words in which it does."""

import functools

import numpy as np
import pytest

from sfumato_vopp import VOPP, BeliefError, CompiledModel, Model, ModelError, SearchConfig, Step

FEW = SearchConfig(max_episodes=200, n_episodes=50)
SPOILT = {
    "NaN reward": "finite rewards",
    "NaN state": "finite states",
    "observation out of range": "0 … 2",
    "observation not whole": "whole-number",
    "NaN hint": "value hint",
}


class Broken(Model):
    """Pays 1 and goes on; ``spoil`` names what is wrong. A state below zero is terminal."""

    n_actions, n_observations, discount, state_width, state_dtype = 2, 3, 0.9, 1, np.float64

    def __init__(self, spoil: str = "") -> None:
        self.spoil = spoil

    def initial(self, n, rng):  # type: ignore[no-untyped-def]
        return np.zeros((n, 1))

    def step(self, states, actions, rng):  # type: ignore[no-untyped-def]
        n = len(states)
        observations = np.full(n, 3 if self.spoil == "observation out of range" else 0)
        return Step(
            np.full((n, 1), np.nan if self.spoil == "NaN state" else 0.0),
            observations + 0.5 if self.spoil == "observation not whole" else observations,
            np.full(n, np.nan if self.spoil == "NaN reward" else 1.0),
            np.zeros(n, bool),
        )

    def log_likelihood(self, observation, states, action, next_states):  # type: ignore[no-untyped-def]
        return np.zeros(len(states))

    def value_hint(self, states, actions):  # type: ignore[no-untyped-def]
        return np.full(len(states), np.nan if self.spoil == "NaN hint" else 0.0)

    def is_terminal(self, states):  # type: ignore[no-untyped-def]
        return np.asarray(states)[:, 0] < 0

    def compiled(self):  # type: ignore[no-untyped-def]
        constants = np.array([
            {"observation out of range": 3.0, "observation not whole": 0.5}.get(self.spoil, 0.0),
            np.nan if self.spoil == "NaN reward" else 1.0,
            np.nan if self.spoil == "NaN state" else 0.0,
            np.nan if self.spoil == "NaN hint" else 0.0,
        ])  # fmt: skip
        return CompiledModel(*compiled_functions(), np.zeros(1, np.int64), constants)


@functools.cache
def compiled_functions():  # type: ignore[no-untyped-def]
    """One set of functions for all mistakes, so that the search is compiled once."""
    from numba import njit

    @njit
    def step(S, i, a, stream, ints, floats):  # type: ignore[no-untyped-def]
        S[i, 0] = floats[2]
        return floats[0], floats[1], False

    @njit
    def hint(S, i, a, ints, floats):  # type: ignore[no-untyped-def]
        return floats[3]

    @njit
    def likelihood(o, P, i, a, S, j, ints, floats):  # type: ignore[no-untyped-def]
        return 0.0

    return step, hint, likelihood


@pytest.fixture(params=["numpy", "numba", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param != "numpy":
        pytest.importorskip(request.param, reason=f"backend {request.param} needs it")
    return str(request.param)


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_step_is_a_model_error_on_every_backend(backend, spoil: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError, match=SPOILT[spoil]):
        VOPP(Broken(spoil), FEW, backend=backend).plan(np.zeros((5, 1)))


def test_no_belief_a_finished_one_and_an_impossible_one_are_belief_errors(backend) -> None:  # type: ignore[no-untyped-def]
    planner = VOPP(Broken(), FEW, backend=backend)
    with pytest.raises(BeliefError, match="at least one particle"):
        planner.plan(np.zeros((0, 1)))
    with pytest.raises(BeliefError, match="over"):
        planner.plan(np.full((3, 1), -1.0))
    with pytest.raises(BeliefError, match="impossible"):
        planner.plan((np.zeros((3, 1)), np.zeros(3)))
    with pytest.raises(BeliefError, match="finite particles"):
        planner.plan(np.full((3, 1), np.nan))
    assert planner.plan(np.array([[-1.0], [0.0]])).action in (0, 1)


def test_a_budget_of_zero_is_refused(backend) -> None:  # type: ignore[no-untyped-def]
    planner = VOPP(Broken(), FEW, backend=backend)
    for budget in ("deadline", "horizon", "max_episodes", "max_steps"):
        with pytest.raises(ValueError, match=budget):
            planner.plan(np.zeros((5, 1)), **{budget: 0})


def test_a_tree_without_room_says_so(backend) -> None:  # type: ignore[no-untyped-def]
    from sfumato_vopp import Tiger

    config = SearchConfig(max_episodes=100_000, n_episodes=20, max_nodes=400, max_depth=10, depth_factor=10)
    decision = VOPP(Tiger(), config, backend=backend).plan(np.array([[0], [1]]))
    assert decision.stats.overflow and decision.stats.stop_reason == "capacity" and decision.action in (0, 1, 2)
