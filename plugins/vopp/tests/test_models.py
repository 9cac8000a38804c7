"""The problems: compiled functions against array functions, and facts known by hand."""

import numpy as np
import pytest

from sfumato_vopp import Model, ModelError, RockSample, Tiger, check_model
from sfumato_vopp.counter import CounterDraws, episode_keys
from sfumato_vopp.tabular import TabularModel

ROCKS = RockSample()


def tables() -> TabularModel:
    rng = np.random.default_rng(1)
    return TabularModel(
        rng.dirichlet(np.ones(6), (3, 6)), rng.dirichlet(np.ones(4), (3, 6)), rng.normal(size=(3, 6, 6)),
        np.full(6, 1 / 6), 0.9, np.array([False] * 5 + [True]),
    )  # fmt: skip


@pytest.mark.parametrize("model", [Tiger(), ROCKS, tables()], ids=lambda m: type(m).__name__)
def test_compiled_functions_equal_the_array_functions(model, rng) -> None:  # type: ignore[no-untyped-def]
    numba = pytest.importorskip("numba", reason="compiled functions need numba")
    c = model.compiled()
    step, hint, log_likelihood = c.step, c.hint, c.log_likelihood

    @numba.njit
    def run(S, actions, keys, ints, floats):  # type: ignore[no-untyped-def]
        n = len(actions)
        obs, rewards, terminal = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.bool_)
        hints, likelihoods = np.zeros(n), np.zeros(n)
        stream = np.empty(1, np.uint64)
        before = S.copy()
        for i in range(n):
            stream[0] = keys[i]
            obs[i], rewards[i], terminal[i] = step(S, i, actions[i], stream, ints, floats)
            hints[i] = hint(S, i, actions[i], ints, floats)
            likelihoods[i] = log_likelihood(obs[i], before, i, actions[i], S, i, ints, floats)
        return obs, rewards, terminal, hints, likelihoods

    states = model.initial(400, rng)
    for _ in range(15):
        actions = rng.integers(0, model.n_actions, len(states))
        keys = episode_keys(int(rng.integers(2**60)), 0, len(states))
        out = model.step(states, actions, CounterDraws(keys))
        after = states.copy()
        obs, rewards, terminal, hints, likelihoods = run(after, actions, keys, c.ints, c.floats)
        np.testing.assert_array_equal(obs, out.observations)
        np.testing.assert_array_equal(rewards, out.rewards)
        np.testing.assert_array_equal(terminal, out.terminal)
        alive = ~terminal
        np.testing.assert_array_equal(after[alive], out.states[alive])
        np.testing.assert_allclose(hints[alive], model.value_hint(out.states, actions)[alive])
        for i in np.flatnonzero(alive)[:50]:
            expected = model.log_likelihood(int(obs[i]), states[i : i + 1], int(actions[i]), out.states[i : i + 1])
            assert likelihoods[i] == pytest.approx(expected[0], abs=1e-12)
        states = out.states[alive]


def test_a_rover_that_knows_the_way_collects_what_is_there() -> None:
    # From (0, 3) west is off the grid; the rock at (2, 4) is up once and right twice.
    good = np.array([[1 << (16 + 4) | ROCKS.start_cell]])
    rewards = []
    for action in (3, 0, 1, 1, 4, 4, 1, 1, 1, 1, 1):
        out = ROCKS.step(good, np.array([action]), np.random.default_rng(0))
        good = out.states
        rewards.append(float(out.rewards[0]))
        if out.terminal[0]:
            break
    assert rewards == [-100, 0, 0, 0, 10, -10, 0, 0, 0, 0, 10]


def test_a_check_on_the_spot_never_errs_and_a_far_one_tells_little() -> None:
    at_rock = ROCKS.accuracy[np.arange(8), ROCKS._rock_cells]
    np.testing.assert_allclose(at_rock, 1.0)
    assert ROCKS.accuracy.min() > 0.5
    assert 20 ** -1 and ROCKS.accuracy[3, 0] == pytest.approx(0.5 + 0.5 * 2 ** (-np.hypot(6, 3) / 20))


def test_start_states_listed_and_drawn_agree(rng) -> None:  # type: ignore[no-untyped-def]
    listed, p = ROCKS.initial_distribution()
    assert p.sum() == pytest.approx(1) and len(listed) == 256
    assert set(ROCKS.initial(20_000, rng)[:, 0]) == set(listed[:, 0])


def test_a_size_without_a_published_layout_asks_for_one() -> None:
    with pytest.raises(ValueError, match="random_rocks"):
        RockSample(15, 15)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"transition": np.full((1, 2, 2), 0.4)}, "distribution"),
        ({"reward": np.full((1, 2), np.nan)}, "finite rewards"),
        ({"observe": np.ones((1, 3, 1))}, "observe of shape"),
    ],
)
def test_tables_that_are_no_pomdp_are_refused(table, message: str) -> None:  # type: ignore[no-untyped-def]
    good = {"transition": np.full((1, 2, 2), 0.5), "observe": np.ones((1, 2, 1)), "reward": np.zeros((1, 2))}
    with pytest.raises(ModelError, match=message):
        TabularModel(**{**good, **table}, start=np.array([1.0, 0.0]), discount=0.9)


class _Broken(Tiger):
    def __init__(self, **change) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self._change = change

    def step(self, states, actions, rng):  # type: ignore[no-untyped-def]
        return super().step(states, actions, rng)._replace(**{k: f(len(states)) for k, f in self._change.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": lambda n: np.full(n, np.nan)}, "finite rewards"),
        ({"rewards": lambda n: np.zeros((n, 1))}, "rewards of shape"),
        ({"observations": lambda n: np.full(n, 2)}, "observations in 0"),
        ({"observations": lambda n: np.zeros(n)}, "whole-number"),
        ({"terminal": lambda n: np.zeros(n)}, "dtype bool"),
        ({"states": lambda n: np.zeros((n, 2))}, "states of shape"),
    ],
)
def test_a_model_that_breaks_the_contract_is_told_how(change, message: str, rng) -> None:  # type: ignore[no-untyped-def]
    broken: Model = _Broken(**change)
    with pytest.raises(ModelError, match=message):
        check_model(broken, rng)
    check_model(Tiger(), rng)
