"""The compiled tree as a data structure: ids stay whole when it grows, is indexed, and is cut down to a subtree."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the tree is compiled")
from sfumato_vopp import VOPP, ExactFilter, ModelError, RockSample, SearchConfig
from sfumato_vopp import search_numba as k
from sfumato_vopp.tree_numba import NumbaTree


def check(tree: NumbaTree) -> None:
    """Every id, count and sum of the tree agrees with every other."""
    bel, act = tree._bel[: tree.n_beliefs], tree._act[: tree.n_action_nodes]
    assert np.all(act["bel"][bel["parent"][1:]] < np.arange(1, len(bel)))
    below = np.bincount(bel["parent"][1:], weights=bel["n"][1:], minlength=len(act))
    np.testing.assert_array_equal(below, act["n"] - act["end"])
    shares = np.bincount(bel["parent"][1:], weights=bel["share"][1:], minlength=len(act))
    np.testing.assert_allclose(shares, act["q_sum"], atol=1e-6, rtol=1e-9)
    reached = 0
    for b in np.flatnonzero(bel["row"] != k.LEAF):
        e, ids = int(bel["first"][b]), []
        while e >= 0:
            assert act["bel"][e] == b
            ids.append(int(act["id"][e]))
            e = int(act["next"][e])
        assert len(set(ids)) == len(ids)
        if bel["row"][b] == k.LISTED:
            assert ids == sorted(ids)
        reached += len(ids)
    assert reached == len(act)
    mask = int(tree._counters[k.HASH_MASK])
    for b in range(1, len(bel)):
        assert k.find_child(int(bel["parent"][b]), int(bel["obs"][b]), mask, tree._table, tree._bel) == b


@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_ids_stay_whole_through_growth_and_rerooting(storage: str, rng) -> None:  # type: ignore[no-untyped-def]
    model, config = RockSample(), SearchConfig()
    tree = NumbaTree(model, model.compiled(), config, 0.5, storage)
    tree._allocate(64)
    particles = model.initial(300, rng)
    tree.begin(particles, None, 1)
    for i in range(12):
        tree.iterate(i, 200, 200 * i, config.depth(i))
    check(tree)
    _, visits, _, _ = tree.root()
    action = int(visits.argmax())
    child = int(np.flatnonzero(tree._bel["parent"][: tree.n_beliefs] == _entry(tree, action))[0])
    observation, n, v = int(tree._bel["obs"][child]), int(tree._bel["n"][child]), float(tree._bel["v"][child])
    before = tree.n_beliefs
    kept = tree.reroot(action, observation, particles, None, 2)
    assert 0 < kept < before and tree.n_beliefs == kept
    check(tree)
    assert tree._bel["n"][0] == n and tree.root()[3] == v
    for i in range(6):
        tree.iterate(i, 200, 200 * i, config.depth(i))
    check(tree)
    assert tree.n_beliefs > kept
    assert tree.reroot(action, 12345, particles, None, 3) == 0


def _entry(tree: NumbaTree, action: int) -> int:
    e = int(tree._bel["first"][0])
    while int(tree._act["id"][e]) != action:
        e = int(tree._act["next"][e])
    return e


def test_a_planner_that_reuses_its_tree_says_how_much(rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=4000, n_episodes=500, reuse_tree=True), rng)
    belief, state = ExactFilter(model), model.initial(1, rng)
    reused = []
    for _ in range(3):
        decision = planner.plan(belief.belief)
        reused.append(decision.stats.reused)
        out = model.step(state, np.array([decision.action]), rng)
        state = out.states
        belief.update(decision.action, int(out.observations[0]))
        planner.advance(decision.action, int(out.observations[0]))
    assert reused[0] == 0 and min(reused[1:]) > 0
    with pytest.raises(ModelError, match="reuse_tree needs"):
        VOPP(model, SearchConfig(reuse_tree=True), backend="numpy")
