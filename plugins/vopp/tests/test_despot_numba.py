"""The DESPOT-like baseline: its bounds, and the decisions that follow from them."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the baseline is compiled by numba")
from sfumato_vopp import DESPOT, DESPOTConfig, RockSample, SearchConfig, TabularModel, Tiger  # noqa: F401


def chain() -> TabularModel:
    """Two actions in two steps: 1 then 0 pays 4 in the end, 0 pays 1 at once and ends; nothing is random."""
    transition = np.zeros((2, 3, 3))
    transition[0, 0, 2] = transition[0, 1, 2] = transition[1, 1, 2] = 1.0
    transition[1, 0, 1] = 1.0
    transition[:, 2, 2] = 1.0
    reward = np.array([[1.0, 0.0], [4.0, 0.0], [0.0, 0.0]])
    return TabularModel(transition, np.ones((2, 3, 1)), reward.T, np.array([1.0, 0, 0]), 0.9, np.array([False, False, True]))


def test_a_sure_world_is_solved_exactly() -> None:
    planner = DESPOT(chain(), DESPOTConfig(seconds=None, max_episodes=20, n_scenarios=4, rollout_depth=10))
    decision = planner.plan(np.zeros((1, 1), np.int64))
    assert decision.action == 1
    assert decision.value == pytest.approx(0.9 * 4.0)
    assert decision.stats.stop_reason == "converged"


def test_bounds_close_in_on_each_other_as_trials_go_on(rng) -> None:  # type: ignore[no-untyped-def]
    planner = DESPOT(RockSample(), DESPOTConfig(seconds=None, max_episodes=1, n_scenarios=60, rollout_depth=40))
    belief = RockSample().initial(500, rng)
    gaps = []
    for trials in (1, 4, 16):
        planner.reseed(np.random.default_rng(3))
        planner.plan(belief, max_episodes=trials)
        low, high = planner._tree.bounds()
        assert low <= high + 1e-9
        gaps.append((low, high))
    lows, highs = np.array(gaps).T
    assert np.all(np.diff(lows) >= -1e-9) and np.all(np.diff(highs) <= 1e-9)
    assert highs[-1] - lows[-1] < highs[0] - lows[0]


def test_it_listens_first_and_opens_when_it_is_sure() -> None:
    planner = DESPOT(Tiger(), DESPOTConfig(seconds=None, max_episodes=60, n_scenarios=300, rollout_depth=30))
    states = np.array([[0], [1]])
    assert planner.plan((states, np.array([0.5, 0.5]))).action == 0
    assert planner.plan((states, np.array([0.001, 0.999]))).action == 1


def test_the_same_seed_gives_the_same_bounds(rng) -> None:  # type: ignore[no-untyped-def]
    belief = RockSample().initial(300, rng)
    found = []
    for _ in range(2):
        planner = DESPOT(RockSample(), DESPOTConfig(seconds=None, max_episodes=5, n_scenarios=50), np.random.default_rng(1))
        found.append(planner.plan(belief).preferences)
    np.testing.assert_array_equal(found[0], found[1])


def test_scenarios_are_spread_evenly_over_the_weights() -> None:
    planner = DESPOT(Tiger(), DESPOTConfig(seconds=None, max_episodes=1, n_scenarios=100))
    planner.plan((np.array([[0], [1]]), np.array([0.25, 0.75])))
    assert int((planner._tree._part[:100, 0] == 0).sum()) == 25


def test_growing_on_the_way_changes_nothing(rng) -> None:  # type: ignore[no-untyped-def]
    belief = RockSample().initial(300, rng)
    found = []
    for room in (1 << 12, 1 << 18):
        planner = DESPOT(RockSample(), DESPOTConfig(seconds=None, max_episodes=12, n_scenarios=40), np.random.default_rng(1))
        tree = planner._tree
        tree._node = np.zeros(room, tree._node.dtype)
        tree._part, tree._who = np.zeros((room, 1), np.int64), np.zeros(room, np.int32)
        found.append(planner.plan(belief).preferences)
    np.testing.assert_array_equal(found[0], found[1])
