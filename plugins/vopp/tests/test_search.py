"""The search trees: known answers, and every backend against the array oracle on the same draws."""

import numpy as np
import pytest

from sfumato_vopp.config import SearchConfig
from sfumato_vopp.models.rocksample import RockSample
from sfumato_vopp.models.tiger import Tiger
from sfumato_vopp.ops import NumpyOps
from sfumato_vopp.search_array import ArrayTree, Index
from sfumato_vopp.tabular import TabularModel

pytest.importorskip("numba", reason="the compiled search needs numba")
from sfumato_vopp.tree_numba import NumbaTree


def one_shot(q: list[float]) -> TabularModel:
    """Action a pays q[a] and ends the episode."""
    n = len(q)
    transition = np.zeros((n, 2, 2))
    transition[:, :, 1] = 1.0
    reward = np.repeat(np.array(q)[:, None], 2, axis=1)
    return TabularModel(transition, np.ones((n, 2, 1)), reward, np.array([1.0, 0.0]), 0.95, np.array([False, True]))


def trees(model, config):  # type: ignore[no-untyped-def]
    eta = config.resolve_eta(model.reward_range)
    return (
        NumbaTree(model, model.compiled(), config, eta, "dense"),
        ArrayTree(model, config, eta),
        NumbaTree(model, model.compiled(), config, eta, "sparse"),
    )


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("q", [[3.0, -1.0, 2.5], [1.5], [0.0, 0.0]])
def test_preferences_follow_the_closed_form(which: int, q: list[float]) -> None:
    # With constant Q: Ψ_k = Ψ_0 + kQ - Z_{k-1}, V_k = Z_k - Z_{k-1}, Z_k = (1/η) log Σ exp η(Ψ_0 + kQ).
    config = SearchConfig(
        eta=0.7, initial_preference="constant", initial_constant=0.25, backup="tree", max_depth=1, clip=1e6
    )
    model = one_shot(q)
    tree = trees(model, config)[which]
    tree.begin(np.zeros((1, 1), np.int64), None, 3)

    def z(k: int) -> float:
        return float(np.log(np.sum(np.exp(0.7 * (0.25 + k * np.array(q))))) / 0.7)

    for k in range(1, 30):
        tree.iterate(k - 1, 200 if k == 1 else 5, 1000 * k, 1)
        psi, _, _, value = tree.root()
        np.testing.assert_allclose(psi, 0.25 + k * np.array(q) - z(k - 1), atol=1e-10)
        assert value == pytest.approx(z(k) - z(k - 1), abs=1e-10)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(("denominator", "expected"), [("all", 0.5 * 0.9 * 8.0), ("survivors", 0.9 * 8.0)])
def test_a_terminating_action_is_weighted_by_survival(which: int, denominator: str, expected: float) -> None:
    # One action: it pays nothing and ends with probability 1/2, else leads to a state that pays 8 and ends.
    transition = np.array([[[0.0, 0.5, 0.5], [0, 0, 1.0], [0, 0, 1.0]]])
    model = TabularModel(
        transition, np.ones((1, 3, 1)), np.array([[0.0, 8.0, 0.0]]), np.array([1.0, 0, 0]), 0.9, np.array([False, False, True])
    )
    config = SearchConfig(denominator=denominator, max_depth=2, depth_factor=2)
    tree = trees(model, config)[which]
    tree.begin(np.zeros((1, 1), np.int64), None, 0)
    tree.iterate(0, 20_000, 0, 2)
    _, visits, q, _ = tree.root()
    assert visits[0] == 20_000
    assert q[0] == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("model", [Tiger(), RockSample()], ids=["tiger", "rocksample"])
def test_the_compiled_search_builds_the_oracle_s_tree(model, options, rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(**options)
    particles, cumulative = model.initial(300, rng), np.cumsum(rng.random(300))
    dense, oracle, sparse = trees(model, config)
    for tree in (dense, oracle, sparse):
        tree.begin(particles, cumulative, 99)
        done = 0
        for i in range(12):
            done += tree.iterate(i, 150, done, config.depth(i))
    for compiled in (dense, sparse):
        assert (compiled.n_beliefs, compiled.n_action_nodes, compiled.steps) == (
            oracle.n_beliefs, oracle.n_action_nodes, oracle.steps
        )  # fmt: skip
        np.testing.assert_array_equal(compiled.depth_histogram(), oracle.depth_histogram())
        np.testing.assert_array_equal(compiled.root()[1], oracle.root()[1])
        np.testing.assert_allclose(compiled.root()[0], oracle.root()[0], atol=1e-9)
        np.testing.assert_allclose(compiled.root()[2], oracle.root()[2], atol=1e-9)
        assert compiled.root()[3] == pytest.approx(oracle.root()[3], abs=1e-9)


def test_a_tree_that_grows_many_times_equals_one_that_has_room(rng) -> None:  # type: ignore[no-untyped-def]
    model, config = RockSample(), SearchConfig()
    particles = model.initial(100, rng)
    roomy, tight = (NumbaTree(model, model.compiled(), config, 0.3) for _ in range(2))
    tight._allocate(32)
    for tree in (roomy, tight):
        tree.begin(particles, None, 5)
        for i in range(10):
            tree.iterate(i, 500, 500 * i, config.depth(i))
    assert roomy.n_beliefs == tight.n_beliefs > 1000
    np.testing.assert_allclose(roomy.root()[0], tight.root()[0], atol=1e-10)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_full_tree_stops_and_says_so(which: int, rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    tree = trees(model, SearchConfig(max_nodes=64))[which]
    tree.begin(model.initial(100, rng), None, 5)
    for i in range(3):
        tree.iterate(i, 100, 100 * i, 1 + 8 * i)
    assert tree.overflow
    assert tree.n_beliefs <= 64


def test_the_sorted_index_agrees_with_a_dictionary(rng) -> None:  # type: ignore[no-untyped-def]
    index, reference = Index(NumpyOps()), {}
    for _ in range(60):
        keys = np.unique(rng.integers(0, 40_000, 1000) + (rng.integers(0, 3) << 40))
        found = index.find(keys)
        assert found.tolist() == [reference.get(int(key), -1) for key in keys]
        fresh = keys[found < 0]
        ids = np.arange(len(reference), len(reference) + len(fresh))
        reference.update(zip(fresh.tolist(), ids.tolist(), strict=True))
        index.add(fresh, ids)
    assert len(index._runs) <= 17  # runs double in size


def test_rounds_agree_statistically_with_the_exact_values(rng) -> None:  # type: ignore[no-untyped-def]
    # Two-step Tiger at b = 1/2: listen twice is worth -1 - 0.95, all else is worse.
    model = Tiger()
    tree = trees(model, SearchConfig(eta=0.5, max_depth=2, depth_factor=2))[0]
    tree.begin(np.array([[0], [1]]), None, 1)
    for i in range(200):
        tree.iterate(i, 2000, 2000 * i, 2)
    psi, _, q, _ = tree.root()
    assert int(np.argmax(psi)) == 0
    assert q[0] == pytest.approx(-1 - 0.95, abs=0.1)
