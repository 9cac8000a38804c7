"""The search in fixed shapes: the oracle's numbers, and nothing in it that waits for the device."""

import attrs
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra")
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode  # noqa: E402

from sfumato_vopp import VOPP, ModelError, RockSample, SearchConfig, Step, Tiger  # noqa: E402
from sfumato_vopp.fixed_torch import NO_KEY, Carry, Index, Level, advance, back_up, find_or_add  # noqa: E402
from sfumato_vopp.models.rocksample_torch import TorchRockSample  # noqa: E402
from sfumato_vopp.ops_torch import TorchTree, mix64  # noqa: E402
from sfumato_vopp.search_array import ArrayTree  # noqa: E402
from sfumato_vopp.tree_torch import FixedTree  # noqa: E402

pytestmark = pytest.mark.optional

LAYOUT = ((1, 0), (3, 1), (0, 3))


class Hashed(TorchRockSample):
    """Readings that may be any number of 64 bits."""

    n_observations = None

    def step(self, states, actions, rng):  # type: ignore[no-untyped-def]
        out = super().step(states, actions, rng)
        return Step(out.states, mix64(out.observations - 5), out.rewards, out.terminal)


class Broken(TorchRockSample):
    """Pays NaN, or reads what is not there, on the third action."""

    fault = "reward"

    def step(self, states, actions, rng):  # type: ignore[no-untyped-def]
        out = super().step(states, actions, rng)
        wrong = actions == 2
        if self.fault == "reward":
            return Step(out.states, out.observations, torch.where(wrong, torch.nan, out.rewards), out.terminal)
        return Step(out.states, torch.where(wrong, 7, out.observations), out.rewards, out.terminal)


def grow(tree, particles, cumulative, rounds=8, deeper=2):  # type: ignore[no-untyped-def]
    tree.begin(particles, cumulative, 99)
    done = 0
    for i in range(rounds):
        done += tree.iterate(i, 150, done, tree._config.depth(i) + deeper)


def assert_same_tree(ours, oracle) -> None:  # type: ignore[no-untyped-def]
    assert (ours.n_beliefs, ours.n_action_nodes, ours.steps) == (oracle.n_beliefs, oracle.n_action_nodes, oracle.steps)
    np.testing.assert_array_equal(ours.depth_histogram(), oracle.depth_histogram())
    for mine, theirs in zip(ours.root(), oracle.root(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_rocksample_builds_the_oracle_s_tree(options, weighted: bool, rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=200, **options)
    particles, cumulative = RockSample().initial(300, rng), np.cumsum(rng.random(300)) if weighted else None
    ours, oracle = FixedTree(TorchRockSample(), config, 0.3, "cpu", 1 << 14), ArrayTree(RockSample(), config, 0.3)
    for tree in (ours, oracle):
        grow(tree, particles, cumulative)
    assert_same_tree(ours, oracle)


def test_mars_builds_the_oracle_s_tree(options, rng) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("numba", reason="the NumPy side of MARS is compiled")
    from sfumato_vopp.models.mars import Mars
    from sfumato_vopp.models.mars_torch import TorchMars

    config = SearchConfig(n_episodes=150, **options)
    particles = Mars(7, 8).initial(300, rng)
    ours, oracle = FixedTree(TorchMars(7, 8), config, 0.3, "cpu", 1 << 14), ArrayTree(Mars(7, 8), config, 0.3)
    for tree in (ours, oracle):
        grow(tree, particles, None)
    assert_same_tree(ours, oracle)


def test_readings_of_64_bits_build_the_same_tree(rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=150)
    particles = RockSample().initial(300, rng)
    ours, oracle = FixedTree(Hashed(), config, 0.3, "cpu", 1 << 14), FixedTree(TorchRockSample(), config, 0.3, "cpu", 1 << 14)
    for tree in (ours, oracle):
        grow(tree, particles, None)
    assert_same_tree(ours, oracle)


def test_tables_that_grow_many_times_equal_roomy_ones(rng, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=150)
    particles = RockSample().initial(300, rng)
    roomy, tight = (FixedTree(TorchRockSample(), config, 0.3, "cpu", 1 << 14) for _ in range(2))
    grow(roomy, particles, None)
    monkeypatch.setattr("sfumato_vopp.tree_torch._ROOM", 16)
    grow(tight, particles, None)
    assert tight.nbytes < roomy.nbytes
    assert_same_tree(tight, roomy)


def test_a_tree_used_again_is_as_good_as_new(rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=150)
    particles = RockSample().initial(300, rng)
    used, new = (FixedTree(TorchRockSample(), config, 0.3, "cpu", 1 << 14) for _ in range(2))
    grow(used, particles[:40], None, rounds=15)
    for tree in (used, new):
        grow(tree, particles, None)
    assert_same_tree(used, new)
    np.testing.assert_array_equal(used.root()[0], new.root()[0])


def test_find_or_add_agrees_with_a_dictionary(rng) -> None:  # type: ignore[no-untyped-def]
    index, reference = Index(1 << 15, "cpu"), {}
    for _ in range(100):
        keys, wanted = rng.integers(0, 40_000, 10_000) << 20, rng.random(10_000) < 0.7
        ids, full = find_or_add(index, torch.as_tensor(keys), torch.as_tensor(wanted))
        for key, number in zip(keys[wanted].tolist(), ids.numpy()[wanted].tolist(), strict=True):
            if reference.setdefault(key, number) != number:
                raise AssertionError(f"key {key} was {reference[key]} and is now {number}")
        assert (ids.numpy()[~wanted] == index.room).all()
        if full:
            break
        assert sorted(reference.values()) == list(range(int(index.count)))
        stored = index.keys[: int(index.count)]
        assert (torch.diff(stored) > 0).all() and (index.keys[int(index.count) :] == NO_KEY).all()
    assert full and int(index.count) == index.room


def launch_under_fakes(make_tree, model_class) -> None:  # type: ignore[no-untyped-def]
    """Run two iterations on tensors that have a shape but no content: whoever asks for content fails."""
    particles = model_class().initial(100, np.random.default_rng(0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        tree = make_tree(model_class())
        tree.begin(particles, None, 1)
        tree._ready(3) if hasattr(tree, "_ready") else None
        step = tree.launch if hasattr(tree, "launch") else tree.iterate
        step(0, 64, 0, 2)
        step(1, 64, 64, 3)
        if hasattr(tree, "_read"):
            with pytest.raises(DataDependentOutputException):
                tree._read()


def test_an_iteration_asks_the_device_for_nothing() -> None:
    config = SearchConfig(n_episodes=64)
    launch_under_fakes(lambda m: FixedTree(m, config, 0.3, "cpu", 1 << 12), TorchRockSample)
    # The check can fail: the search with tables that grow reads a count at its first level.
    with pytest.raises(torch._subclasses.fake_tensor.DynamicOutputShapeException):
        launch_under_fakes(lambda m: TorchTree(m, config, 0.3), TorchRockSample)


def test_an_iteration_on_mars_asks_the_device_for_nothing() -> None:
    pytest.importorskip("numba", reason="the NumPy side of MARS is compiled")
    from sfumato_vopp.models.mars_torch import TorchMars

    launch_under_fakes(lambda m: FixedTree(m, SearchConfig(n_episodes=64), 0.3, "cpu", 1 << 12), TorchMars)


def test_a_step_is_one_graph_without_breaks_and_computes_the_same(rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=64)
    particles = RockSample(4, 3, LAYOUT).initial(100, rng)
    traced, plain = (FixedTree(TorchRockSample(4, 3, LAYOUT), config, 0.3, "cpu", 512, "none") for _ in range(2))
    traced._advance, traced._back_up = (torch.compile(s, backend="eager", fullgraph=True, dynamic=False) for s in (advance, back_up))
    for tree in (traced, plain):
        tree.begin(particles, None, 3)
        for i in range(2):
            tree.iterate(i, 64, 64 * i, 1)
    assert_same_tree(traced, plain)


def test_many_roots_stand_in_one_tree(rng) -> None:  # type: ignore[no-untyped-def]
    belief = RockSample().initial(300, rng)
    beliefs = [belief[:100], (belief[100:], np.arange(1.0, 201.0))]
    found = []
    for backend, model, capacity in (("numpy", RockSample(), None), ("torch", TorchRockSample(), 1 << 14)):
        config = SearchConfig(seconds=None, max_episodes=3000, n_episodes=600, capacity=capacity)
        found.append(VOPP(model, config, np.random.default_rng(0), backend=backend).plan_many(beliefs))  # type: ignore[arg-type]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.visits, b.visits)
        np.testing.assert_allclose(a.preferences, b.preferences, atol=1e-9)


def test_a_deadline_is_kept_and_the_last_batch_is_whole(rng) -> None:  # type: ignore[no-untyped-def]
    planner = VOPP(TorchRockSample(), SearchConfig(n_episodes=200, max_depth=5, capacity=1 << 13, clock="cpu"), backend="torch")
    planner.warmup()
    stats = planner.plan(RockSample().initial(100, rng), deadline=0.4).stats
    assert stats.storage == "fixed" and stats.stop_reason == "deadline"
    assert stats.episodes % 200 == 0 and stats.iterations > 1


def test_a_full_table_stops_the_search_and_says_so(rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=100, capacity=256, seconds=None, max_episodes=100_000)
    stats = VOPP(TorchRockSample(), config, backend="torch").plan(RockSample().initial(100, rng)).stats
    assert stats.overflow and stats.stop_reason == "capacity" and stats.depth_histogram.max() <= 256


@pytest.mark.parametrize(("fault", "words"), [("reward", "finite rewards"), ("observation", "observations in 0 … 2")])
def test_a_model_that_breaks_its_contract_is_found_at_the_end_of_the_iteration(fault: str, words: str, rng) -> None:  # type: ignore[no-untyped-def]
    model = Broken()
    model.fault = fault
    planner = VOPP(model, SearchConfig(n_episodes=100, capacity=1 << 12, seconds=None, max_episodes=200), backend="torch")
    with pytest.raises(ModelError, match=words):
        planner.plan(RockSample().initial(100, rng))


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(ModelError, match="model on tensors"):
        VOPP(Tiger(), SearchConfig(capacity=8192), backend="torch")
    with pytest.raises(ModelError, match="backend 'torch'"):
        VOPP(Tiger(), SearchConfig(capacity=8192), backend="numpy")
    with pytest.raises(ValueError, match="capacity >= 2·n_episodes"):
        VOPP(TorchRockSample(), SearchConfig(capacity=100), backend="torch")
    with pytest.raises(ValueError, match="needs device 'cuda'"):
        VOPP(TorchRockSample(), SearchConfig(capacity=8192, capture="graph"), backend="torch")
    with pytest.raises(ValueError, match="expected a capacity"):
        VOPP(TorchRockSample(), SearchConfig(capture="compile"), backend="torch")


def test_a_problem_with_a_form_on_tensors_is_planned_with_in_that_form(rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample(4, 3, LAYOUT, 0.9, 10.0)
    config = SearchConfig(seconds=None, max_episodes=600, n_episodes=200, capacity=1 << 12)
    belief = model.initial(100, rng)
    found = [
        VOPP(model, c, np.random.default_rng(0), backend=b).plan(belief)  # type: ignore[arg-type]
        for c, b in ((config, "torch"), (attrs.evolve(config, capacity=None), "numpy"))
    ]
    np.testing.assert_array_equal(found[0].visits, found[1].visits)
    np.testing.assert_allclose(found[0].preferences, found[1].preferences, atol=1e-9)

    class Other(RockSample):
        """Its rules may differ, so it is not exchanged."""

    with pytest.raises(ModelError, match="got Other"):
        VOPP(Other(), SearchConfig(capacity=8192), backend="torch")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("capture", ["none", "graph", "compile"])
def test_on_cuda_a_captured_search_equals_the_oracle_and_never_waits(capture: str, rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(n_episodes=200)
    particles = RockSample().initial(300, rng)
    ours = FixedTree(TorchRockSample(device="cuda"), config, 0.3, "cuda", 1 << 14, capture)
    oracle = ArrayTree(RockSample(), config, 0.3)
    for tree in (ours, oracle):
        grow(tree, particles, None)
    assert_same_tree(ours, oracle)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.launch(12, 150, 1800, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_tables_and_the_batch_are_all_that_is_held() -> None:
    level, carry = Level(100, "cpu"), Carry(10, 1, torch.int64, "cpu")
    assert level.nbytes == 21 * 101 * 8 + 4 * 100 * 8
    assert carry.states.shape == (10, 1)
