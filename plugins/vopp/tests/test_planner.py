"""The planners as a library user meets them."""

import threading
import time

import numpy as np
import pytest

from sfumato_vopp import (
    POMCP,
    VOPP,
    BeliefError,
    DESPOTConfig,
    ModelError,
    POMCPConfig,
    PORPPConfig,
    RockSample,
    SearchConfig,
    TabularModel,
    Tiger,
)

LISTEN, OPEN_LEFT, OPEN_RIGHT = 0, 1, 2


def tiger_belief(net: int) -> tuple[np.ndarray, np.ndarray]:
    odds = (0.85 / 0.15) ** net
    return np.array([[0], [1]]), np.array([odds, 1.0]) / (1 + odds)


def exact_tiger_value(act) -> float:  # type: ignore[no-untyped-def]
    """Value at b = 1/2 of a policy that maps the net count of sounds to an action, solved as a linear system."""
    depth = 6
    counts = range(-depth, depth + 1)
    size = 2 * depth + 1
    matrix, reward = np.eye(size), np.zeros(size)
    for i, net in enumerate(counts):
        p = tiger_belief(net)[1][0]
        action = act(net)
        if action == LISTEN:
            heard = 0.85 * p + 0.15 * (1 - p)
            reward[i] = -1
            matrix[i, min(i + 1, size - 1)] -= 0.95 * heard
            matrix[i, max(i - 1, 0)] -= 0.95 * (1 - heard)
        else:
            reward[i] = -100 * p + 10 * (1 - p) if action == OPEN_LEFT else 10 * p - 100 * (1 - p)
            matrix[i, depth] -= 0.95
    return float(np.linalg.solve(matrix, reward)[depth])


def test_vopp_plays_tiger_within_a_hair_of_the_optimum() -> None:
    planner = VOPP(Tiger(), SearchConfig(seconds=None, max_steps=200_000))
    chosen = {net: planner.plan(tiger_belief(net)).action for net in range(-6, 7)}
    assert chosen[0] == LISTEN
    assert chosen[2] == OPEN_RIGHT and chosen[-2] == OPEN_LEFT
    # 19.3714 is optimal; the value of the chosen policy is computed exactly, so there is no sampling error to allow for.
    assert exact_tiger_value(chosen.__getitem__) > 18.4


def test_pomcp_plays_tiger_sensibly() -> None:
    planner = POMCP(Tiger(), POMCPConfig(seconds=None, max_episodes=50_000, max_depth=20))
    assert planner.plan(tiger_belief(0)).action == LISTEN
    assert planner.plan(tiger_belief(4)).action == OPEN_RIGHT


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_step_budget_makes_the_decisions_repeatable(backend) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    belief = model.initial(500, np.random.default_rng(0))
    config = SearchConfig(seconds=None, max_steps=20_000, n_episodes=200)
    runs = []
    for _ in range(2):
        planner = VOPP(model, config, np.random.default_rng(7), backend=backend)
        runs.append([planner.plan(belief) for _ in range(3)])
    for a, b in zip(*runs, strict=True):
        assert (a.action, a.stats.steps, a.stats.n_beliefs) == (b.action, b.stats.steps, b.stats.n_beliefs)
        np.testing.assert_array_equal(a.preferences, b.preferences)
    assert not np.array_equal(runs[0][0].visits, runs[0][1].visits)  # each decision has draws of its own


def test_backends_decide_alike_on_the_same_seed() -> None:
    model = RockSample()
    belief = model.initial(500, np.random.default_rng(0))
    config = SearchConfig(seconds=None, max_episodes=5000, n_episodes=500)
    a, b = (VOPP(model, config, np.random.default_rng(3), backend=name).plan(belief) for name in ("numba", "numpy"))
    np.testing.assert_array_equal(a.visits, b.visits)
    np.testing.assert_allclose(a.preferences, b.preferences, atol=1e-8)


def test_budget_and_horizon_may_change_at_each_call() -> None:
    model = RockSample()
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=1000, n_episodes=100))
    belief = model.initial(100, np.random.default_rng(0))
    assert planner.plan(belief).stats.episodes == 1000
    decision = planner.plan(belief, max_episodes=2350, horizon=2)
    assert decision.stats.episodes == 2350 and decision.stats.stop_reason == "episodes"
    assert len(decision.stats.depth_histogram) == 3
    assert decision.stats.depth_histogram.sum() == decision.stats.n_beliefs
    assert decision.policy.sum() == pytest.approx(1)


@pytest.mark.parametrize("settings", [SearchConfig, POMCPConfig, DESPOTConfig, PORPPConfig])
def test_a_budget_that_the_user_gives_stands_in_for_the_default_one(settings) -> None:  # type: ignore[no-untyped-def]
    assert settings().seconds == 0.1
    assert settings(max_episodes=7).seconds is None and settings(max_steps=7).seconds is None
    assert settings(max_episodes=7, seconds=0.2).seconds == 0.2


def test_episodes_asked_of_plan_are_all_run_however_short_the_default_time() -> None:
    planner = VOPP(Tiger(), SearchConfig(seconds=1e-4, n_episodes=500), backend="numpy")
    decision = planner.plan(np.array([[0], [1]]), max_episodes=20_000)
    assert (decision.stats.episodes, decision.stats.stop_reason) == (20_000, "episodes")
    both = planner.plan(np.array([[0], [1]]), max_episodes=20_000, deadline=1e-4)
    assert both.stats.episodes < 20_000 and both.stats.stop_reason == "deadline"


@pytest.mark.parametrize(
    "budget", [{"deadline": 0.0}, {"deadline": -1.0}, {"max_episodes": 0}, {"max_steps": 0}, {"horizon": 0}]
)
def test_a_budget_of_nothing_is_refused(budget) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="> 0"):
        VOPP(Tiger()).plan(tiger_belief(0), **budget)


def test_no_budget_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="never end"):
        SearchConfig(seconds=None)


def test_an_absurdly_short_deadline_still_gives_an_action_that_was_tried() -> None:
    planner = VOPP(RockSample())
    planner.warmup()
    decision = planner.plan(RockSample().initial(100, np.random.default_rng(0)), deadline=1e-9)
    assert decision.visits[decision.action] > 0
    assert decision.stats.iterations == 1 and decision.stats.stop_reason == "deadline"


def test_planning_can_be_cancelled_from_another_thread() -> None:
    model = RockSample()
    planner = VOPP(model, SearchConfig(seconds=30.0))
    planner.warmup()
    timer = threading.Timer(0.3, planner.cancel)
    timer.start()
    began = time.perf_counter()
    decision = planner.plan(model.initial(100, np.random.default_rng(0)))
    assert decision.stats.stop_reason == "cancelled"
    assert time.perf_counter() - began < 15
    assert decision.visits[decision.action] > 0


def test_a_full_tree_is_flagged() -> None:
    model = RockSample()
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=100_000, max_nodes=500))
    decision = planner.plan(model.initial(100, np.random.default_rng(0)))
    assert decision.stats.overflow and decision.stats.stop_reason == "capacity"
    assert decision.visits[decision.action] > 0


def test_an_empty_belief_is_refused() -> None:
    with pytest.raises(BeliefError, match="empty"):
        VOPP(Tiger()).plan(np.zeros((0, 1), np.int64))


def test_a_backend_that_cannot_run_the_model_says_so() -> None:
    class Plain(Tiger):
        def compiled(self):  # type: ignore[no-untyped-def]
            return None

    with pytest.raises(ModelError, match="choose backend='numpy'"):
        VOPP(Plain(), backend="numba")
    assert VOPP(Plain()).backend == "numpy"
    with pytest.raises(ValueError, match="expected backend"):
        VOPP(Tiger(), backend="cupy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device"):
        VOPP(Tiger(), backend="numba", device="cuda")


def test_a_horizon_given_to_plan_may_be_longer_than_the_settings_one(rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(seconds=None, max_episodes=400, n_episodes=100, max_depth=3, depth_factor=20)
    belief = np.array([[0], [1]])
    depths = [len(VOPP(Tiger(), config, backend="numpy").plan(belief, horizon=h).stats.depth_histogram) for h in (2, None, 8)]
    assert depths == [3, 4, 9]


def test_a_repair_that_costs_now_and_pays_later_is_found() -> None:
    # A machine earns 30 while whole and nothing once broken; mending costs 110 and is worth 30 / (1 - 0.95) less that.
    run, mend = np.array([[0.95, 0.05], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    model = TabularModel(
        [run, mend], np.ones((2, 2, 1)), np.array([[30.0, 0.0], [-35.0, -110.0]]), np.array([1.0, 0.0]), 0.95, np.zeros(2, bool)
    )
    broken = np.ones((1, 1), np.int64)
    for seed in range(5):
        planner = VOPP(model, SearchConfig(max_episodes=20_000, n_episodes=200), np.random.default_rng(seed))
        assert planner.plan(broken).action == 1
    hasty = VOPP(model, SearchConfig(max_episodes=20_000, n_episodes=200, root_mixing=0.0), np.random.default_rng(0))
    assert hasty.plan(broken).action == 0
