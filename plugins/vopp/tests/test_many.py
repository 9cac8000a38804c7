"""Several roots in one call, and several threads in one search."""

import os
import threading

import attrs
import numpy as np
import pytest

from sfumato_vopp import VOPP, BeliefError, ModelError, RockSample, SearchConfig, Tiger

pytest.importorskip("numba", reason="half of these run the compiled search")

STATES = np.array([[0], [1]])
BELIEFS = [(STATES, np.array([0.5, 0.5])), (STATES, np.array([0.02, 0.98])), (STATES, np.array([0.98, 0.02]))]
BUDGET = SearchConfig(seconds=None, max_steps=120_000, n_episodes=600)
BACKENDS = ["numba", "numpy", pytest.param("torch", marks=pytest.mark.optional)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_of_many_beliefs_gets_its_own_action(backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch", reason="the torch backend needs torch")
    planner = VOPP(Tiger(), BUDGET, np.random.default_rng(0), backend=backend)  # type: ignore[arg-type]
    assert [d.action for d in planner.plan_many(BELIEFS)] == [0, 1, 2]
    assert planner.plan_many([]) == []


def test_the_backends_that_batch_build_the_same_tree_for_many_roots() -> None:
    pytest.importorskip("torch", reason="the torch backend needs torch")
    belief = RockSample().initial(300, np.random.default_rng(5))
    found = []
    for backend in ("numpy", "torch"):
        planner = VOPP(RockSample(), BUDGET, np.random.default_rng(0), backend=backend)  # type: ignore[arg-type]
        found.append(planner.plan_many([belief[:100], belief[100:]], max_episodes=3000))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.visits, b.visits)
        np.testing.assert_allclose(a.preferences, b.preferences, rtol=1e-9, atol=1e-9)


def test_one_root_among_many_calls_is_the_plain_search() -> None:
    belief = RockSample().initial(300, np.random.default_rng(5))
    one = VOPP(RockSample(), BUDGET, np.random.default_rng(0), backend="numpy").plan(belief, max_episodes=2000)
    many = VOPP(RockSample(), BUDGET, np.random.default_rng(0), backend="numpy").plan_many([belief], max_episodes=2000)
    np.testing.assert_array_equal(one.preferences, many[0].preferences)


def test_a_bad_belief_among_many_is_refused_before_any_is_planned() -> None:
    with pytest.raises(BeliefError, match="at least one particle"):
        VOPP(Tiger(), BUDGET).plan_many([BELIEFS[0], np.zeros((0, 1), np.int64)])


def test_threads_share_the_budget_and_repeat_bit_by_bit() -> None:
    belief = RockSample().initial(300, np.random.default_rng(5))
    found = []
    for _ in range(2):
        config = SearchConfig(seconds=None, max_episodes=4000, n_episodes=500, n_threads=2)
        found.append(VOPP(RockSample(), config, np.random.default_rng(0)).plan(belief))
    np.testing.assert_array_equal(found[0].preferences, found[1].preferences)
    assert found[0].stats.episodes == 4000 and found[0].visits.sum() == 4000


def test_threads_pool_their_roots_into_a_sound_decision() -> None:
    config = SearchConfig(seconds=None, max_steps=120_000, n_threads=3)
    planner = VOPP(Tiger(), config, np.random.default_rng(0))
    assert [planner.plan(b).action for b in BELIEFS] == [0, 1, 2]


def test_threads_are_refused_where_they_cannot_run() -> None:
    with pytest.raises(ModelError, match="n_threads"):
        VOPP(Tiger(), SearchConfig(n_threads=2), backend="numpy")
    with pytest.raises(ModelError, match="reuse_tree"):
        VOPP(Tiger(), SearchConfig(n_threads=2, reuse_tree=True))


def test_pinned_threads_decide_the_same_and_keep_to_cores_of_their_own() -> None:
    if not hasattr(os, "sched_setaffinity"):
        with pytest.raises(ModelError, match="pin_threads"):
            VOPP(Tiger(), SearchConfig(n_threads=2, pin_threads=True))
        return
    allowed = os.sched_getaffinity(0)
    config = SearchConfig(max_episodes=4000, n_episodes=500, n_threads=2)
    pinned = VOPP(Tiger(), attrs.evolve(config, pin_threads=True), np.random.default_rng(0))
    free = VOPP(Tiger(), config, np.random.default_rng(0))
    np.testing.assert_array_equal(pinned.plan(STATES).preferences, free.plan(STATES).preferences)
    gate = threading.Barrier(2)
    held = list(pinned._pool.map(lambda _: (gate.wait(), os.sched_getaffinity(0))[1], range(2)))
    assert all(len(cores) == 1 for cores in held) and set().union(*held) <= allowed
    assert len(set().union(*held)) == min(2, len(allowed)) and os.sched_getaffinity(0) == allowed
