"""What goes in wrong comes out as a typed error or a flag, never as an action in silence. One row a kind of mistake."""

import numpy as np
import pytest

from sfumato_vopp import (
    VOPP,
    BeliefError,
    DegenerateBelief,
    ExactFilter,
    FileFormatError,
    Model,
    ModelError,
    ParticleFilter,
    SearchConfig,
    Step,
    TabularModel,
    Tiger,
    check_model,
    parse_pomdp,
)

FEW = SearchConfig(seconds=None, max_episodes=200, n_episodes=50)
TIGER_START = np.array([[0], [1]])


class Broken(Model):
    """A model of one action that pays 1; tests spoil one field of what it returns."""

    n_actions, n_observations, discount, state_width, state_dtype = 2, 3, 0.9, 1, np.float64
    spoil = ""

    def initial(self, n, rng):  # type: ignore[no-untyped-def]
        return np.zeros((n, 1))

    def step(self, states, actions, rng):  # type: ignore[no-untyped-def]
        n = len(states)
        out = {
            "states": states + 0.0, "observations": np.zeros(n, np.int64), "rewards": np.ones(n), "terminal": np.zeros(n, bool)
        }  # fmt: skip
        wrong = {
            "NaN reward": ("rewards", np.full(n, np.nan)),
            "NaN state": ("states", np.full((n, 1), np.nan)),
            "shape of states": ("states", np.zeros((n, 2))),
            "shape of rewards": ("rewards", np.ones((n, 1))),
            "length of observations": ("observations", np.zeros(n + 1, np.int64)),
            "dtype of observations": ("observations", np.zeros(n)),
            "dtype of terminal": ("terminal", np.zeros(n)),
            "observation out of range": ("observations", np.full(n, 3)),
        }
        if self.spoil in wrong:
            name, value = wrong[self.spoil]
            out[name] = value
        return Step(**out)

    def log_likelihood(self, observation, states, action, next_states):  # type: ignore[no-untyped-def]
        return np.zeros(len(states))

    def value_hint(self, states, actions):  # type: ignore[no-untyped-def]
        return np.full(len(states), np.nan if self.spoil == "NaN hint" else 0.0)


MISTAKES = [
    ("NaN reward", "finite rewards"), ("NaN state", "finite states"), ("shape of states", "states of shape"),
    ("shape of rewards", "rewards of shape"), ("length of observations", "observations of shape"),
    ("dtype of observations", "whole-number"), ("dtype of terminal", "dtype bool"), ("observation out of range", "0 … 2"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_a_step_that_breaks_the_contract_is_a_model_error(spoil: str, message: str) -> None:
    model = Broken()
    model.spoil = spoil
    with pytest.raises(ModelError, match=message):
        VOPP(model, FEW).plan(np.zeros((5, 1)))
    with pytest.raises(ModelError, match=message):
        check_model(model, np.random.default_rng(0))


def test_a_hint_that_is_not_a_number_is_a_model_error() -> None:
    model = Broken()
    model.spoil = "NaN hint"
    with pytest.raises(ModelError, match="value hint"):
        VOPP(model, FEW).plan(np.zeros((5, 1)))


def test_the_compiled_search_refuses_rewards_that_are_not_finite() -> None:
    pytest.importorskip("numba", reason="the compiled search needs numba")
    transition = np.zeros((1, 2, 2))
    transition[:, :, 1] = 1.0
    model = TabularModel(transition, np.ones((1, 2, 1)), np.array([[1.0, 1.0]]), np.array([1.0, 0.0]), 0.9, np.array([False, False]))
    model.reward[:] = np.nan
    for planner in (VOPP(model, FEW),):
        with pytest.raises(ModelError, match="finite"):
            planner.plan(np.zeros((1, 1), np.int64))


def test_the_torch_search_refuses_them_too() -> None:
    pytest.importorskip("torch", reason="the torch backend needs torch")
    model = Broken()
    model.spoil = "NaN reward"
    with pytest.raises(ModelError, match="finite rewards"):
        VOPP(model, FEW, backend="torch").plan(np.zeros((5, 1)))


@pytest.mark.parametrize("kind", ["exact", "particles"])
def test_an_observation_that_cannot_be_is_a_degenerate_belief_with_its_history(kind: str) -> None:
    rng = np.random.default_rng(0)
    model = TabularModel(
        np.ones((1, 1, 1)), np.array([[[1.0, 0.0]]]), np.zeros((1, 1)), np.ones(1), 0.9, np.zeros(1, bool)
    )
    belief = ExactFilter(model) if kind == "exact" else ParticleFilter(model, 10, rng)
    for observation in (1, 99):
        with pytest.raises(DegenerateBelief) as caught:
            belief.update(0, observation)
        assert caught.value.history[-1] == (0, observation)


@pytest.mark.parametrize(
    ("belief", "message"),
    [
        (np.zeros((0, 1), np.int64), "at least one particle"),
        (np.zeros((4, 3)), "shape"),
        ((TIGER_START, np.zeros(2)), "impossible"),
        ((TIGER_START, np.array([0.5, np.nan])), "finite"),
        ((TIGER_START, np.array([1.5, -0.5])), "not negative"),
        ((TIGER_START, np.ones(3)), "one weight a particle"),
        (np.array([["left"]], dtype=object), "numeric"),
    ],
)
def test_an_empty_or_impossible_belief_is_a_belief_error(belief, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BeliefError, match=message):
        VOPP(Tiger(), FEW, backend="numpy").plan(belief)


def test_a_belief_of_terminal_states_alone_is_a_belief_error() -> None:
    transition = np.zeros((1, 2, 2))
    transition[:, :, 1] = 1.0
    model = TabularModel(transition, np.ones((1, 2, 1)), np.zeros((1, 2)), np.array([1.0, 0.0]), 0.9, np.array([False, True]))
    with pytest.raises(BeliefError, match="over"):
        VOPP(model, FEW, backend="numpy").plan(np.ones((3, 1), np.int64))
    assert VOPP(model, FEW, backend="numpy").plan(np.array([[0], [1]])).action == 0


@pytest.mark.parametrize("budget", ["deadline", "horizon", "max_episodes", "max_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_budget_of_nothing_is_a_value_error(budget: str, value: int) -> None:
    with pytest.raises(ValueError, match=budget):
        VOPP(Tiger(), FEW, backend="numpy").plan(TIGER_START, **{budget: value})


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_tree_that_is_full_is_flagged(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("numba", reason="the compiled search needs numba")
    config = SearchConfig(seconds=None, max_episodes=100_000, n_episodes=20, max_nodes=400, max_depth=10, depth_factor=10)
    decision = VOPP(Tiger(), config, backend=backend).plan(TIGER_START)  # type: ignore[arg-type]
    assert decision.stats.overflow and decision.stats.stop_reason == "capacity"


def test_probabilities_of_a_file_that_do_not_sum_to_one_name_their_line() -> None:
    text = (
        "discount: 0.9\nvalues: reward\nstates: 2\nactions: 1\nobservations: 1\n"
        "T: 0\n0.5 0.4\n0 1\nO: 0\nuniform\nR: * : * : * : * 0\n"
    )
    with pytest.raises(FileFormatError, match="line 7|line 6"):
        parse_pomdp(text)
