"""The environments against exhaustive search: properties P1 to P6 of a BQ-MDP."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sfumato_bqnco.config import PROBLEMS
from sfumato_bqnco.decode import Scorer
from sfumato_bqnco.env import environment
from sfumato_bqnco.errors import InstanceError
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.reconstruct import split_routes
from sfumato_bqnco.validate import feasible, objective

ROUTES = ("cvrp", "cvrptw")


def options_of(env, state):
    """All feasible (slot, flag) of the one row."""
    return [tuple(x) for x in torch.nonzero(env.feasible(state)[0]).tolist()]


def brute_force(item) -> float:
    """Best objective by enumerating solutions, not trajectories; minimised."""
    n, nodes = item.n, range(1, item.n)
    if item.problem in ("tsp", "atsp"):
        return min(objective(item, [0, *p]) for p in itertools.permutations(nodes))
    if item.problem in ROUTES:
        best = np.inf
        for p in itertools.permutations(nodes):
            for cuts in itertools.product((0, 1), repeat=n - 2):
                routes = [[p[0]]]
                for v, cut in zip(p[1:], cuts, strict=True):
                    if cut:
                        routes.append([])
                    routes[-1].append(v)
                if feasible(item, routes):
                    best = min(best, objective(item, routes))
        return best
    low = 1 if item.problem == "op" else 0
    chosen = [s for k in range(n - low + 1) for s in itertools.combinations(range(low, n), k)]
    orders = (
        (list(p) for s in chosen for p in itertools.permutations(s))
        if item.problem == "op"
        else map(list, chosen)
    )
    return -max(objective(item, o) for o in orders if feasible(item, o))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_exhaustive_search_of_the_mdp_finds_the_optimum(problem, arrays_of, best_value):
    """P1: optimal trajectories of the BQ-MDP are optimal solutions."""
    arrays = arrays_of(problem, 5 if problem in ROUTES else 7, 2)
    for b in range(2):
        one = {k: a[b : b + 1] for k, a in arrays.items()}
        env = environment(problem, one)
        assert best_value(env, env.initial()) == pytest.approx(
            brute_force(from_arrays(problem, arrays, b)), rel=1e-9
        )


def random_rollout(env, rng):
    """A trajectory of random feasible options: [(state, node, flag)], final state."""
    state, steps = env.initial(), []
    while not bool(state.done[0]):
        options = options_of(env, state)
        s, f = options[rng.integers(len(options))]
        steps.append((state, int(state.rem[0, s]), f))
        state = env.step(state, torch.tensor([s]), torch.tensor([f]))
    return steps, state


def plan_of(problem, steps):
    nodes = [v for _, v, _ in steps]
    if problem in ROUTES:
        return split_routes(torch.tensor(nodes), torch.tensor([f for *_, f in steps]))
    return [0, *nodes] if problem in ("tsp", "atsp") else nodes


@pytest.mark.parametrize("problem", PROBLEMS)
def test_rewards_sum_to_the_objective_and_solutions_round_trip(problem, arrays_of):
    """P2 and P3: replaying a solution's trajectory gives the solution back, and its cost is the validator's."""
    arrays = arrays_of(problem, 12, 1)
    item = from_arrays(problem, arrays, 0)
    env = environment(problem, arrays)
    rng = np.random.default_rng(1)
    for _ in range(5):
        steps, last = random_rollout(env, rng)
        plan = plan_of(problem, steps)
        value = objective(item, plan)
        assert float(last.cost[0]) == pytest.approx(-value if item.maximise else value, rel=1e-6)
        state = env.initial()
        for _, node, flag in steps:
            slot = int(torch.nonzero(state.rem[0, : int(state.count[0])] == node)[0])
            assert bool(env.feasible(state)[0, slot, flag])
            state = env.step(state, torch.tensor([slot]), torch.tensor([flag]))
        assert bool(state.done[0]) and float(state.cost[0]) == pytest.approx(float(last.cost[0]), abs=1e-12)


def walk(env, moves):
    state = env.initial()
    for node, flag in moves:
        slot = int(torch.nonzero(state.rem[0, : int(state.count[0])] == node)[0])
        state = env.step(state, torch.tensor([slot]), torch.tensor([flag]))
    return state


@pytest.mark.parametrize("problem", PROBLEMS)
def test_equal_tails_look_equal_whatever_their_past(problem, small_networks, arrays_of):
    """P4: two prefixes with the same tail instance give the same masks, the same key and the same logits."""
    arrays = arrays_of(problem, 10, 1)
    if problem == "op":
        arrays["budget"] = np.array([6.0])
        # The middle node must leave the same budget in both orders: put 1 and 2 mirror-wise about the line 0 - 3.
        arrays["xy"][0, 0], arrays["xy"][0, 3] = (0.2, 0.5), (0.8, 0.5)
        arrays["xy"][0, 1], arrays["xy"][0, 2] = (0.4, 0.4), (0.6, 0.4)
    if problem == "kp":
        arrays["capacity"] = np.array([3.0])
    if problem in ROUTES:
        arrays["demand"][0, 1:4] = 4
    if problem == "cvrptw":
        # Both vehicles wait for the window of node 3, so the clock is the same after it.
        arrays["windows"][0, 1:, 0], arrays["windows"][0, 1:, 1] = 0.0, 400.0
        arrays["windows"][0, 3, 0] = 395.0
    flag = 1 if problem in ROUTES else 0
    a = walk(environment(problem, arrays), [(1, flag), (2, 0), (3, 0)])
    env = environment(problem, arrays)
    b = walk(env, [(2, flag), (1, 0), (3, 0)])
    assert int(a.key[0]) == int(b.key[0])
    order_a, order_b = a.rem[0].argsort(), b.rem[0].argsort()
    assert torch.equal(a.rem[0, order_a], b.rem[0, order_b])
    assert torch.equal(env.feasible(a)[0, order_a], env.feasible(b)[0, order_b])
    if problem == "op":
        b.left = a.left.clone()
    scorer = Scorer(small_networks[problem])
    x, sx = scorer(env, a)
    y, sy = scorer(env, b)
    x = x[0, a.rem[0, sx[0]].argsort()]
    y = y[0, b.rem[0, sy[0]].argsort()]
    torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_suffix_of_an_optimal_trajectory_is_optimal_for_its_tail(problem, arrays_of, best_value):
    """P5: from every state of an optimal trajectory the rest of it is an optimal completion."""
    arrays = arrays_of(problem, 4 if problem in ROUTES else 7, 1, seed=11)
    env = environment(problem, arrays)
    state = env.initial()
    best = best_value(env, state)
    while not bool(state.done[0]):
        following = [env.step(state, torch.tensor([s]), torch.tensor([f])) for s, f in options_of(env, state)]
        values = [best_value(env, f) for f in following]
        assert min(values) == pytest.approx(best, rel=1e-9)
        state = following[int(np.argmin(values))]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_logits_follow_a_permutation_of_the_tokens(problem, small_networks, arrays_of):
    """P6: no position leaks: permuting the remaining nodes permutes their probabilities."""
    arrays = arrays_of(problem, 15, 2)
    if problem == "kp":
        arrays["capacity"][:] = 4.0
    env = environment(problem, arrays)
    state = env.initial()
    scorer = Scorer(small_networks[problem])
    x, sx = scorer(env, state)
    shuffled = env.initial()
    order = torch.randperm(state.rem.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled.rem = state.rem[:, order]
    y, sy = scorer(env, shuffled)
    for r in range(2):
        left = x[r, state.rem[r, sx[r]].argsort(stable=True)]
        right = y[r, shuffled.rem[r, sy[r]].argsort(stable=True)]
        torch.testing.assert_close(
            left[torch.isfinite(left)], right[torch.isfinite(right)], atol=1e-5, rtol=1e-4
        )


def test_at_the_depot_there_is_one_way_to_each_customer(arrays_of):
    """A CVRP start offers every customer once, by way of the depot: probability is not split between equal edges."""
    env = environment("cvrp", arrays_of("cvrp", 8, 1))
    allowed = env.feasible(env.initial())
    assert not bool(allowed[..., 0].any()) and bool(allowed[..., 1].all())


def test_the_depot_sets_the_clock_back(arrays_of):
    """By hand: after a late customer the next one is too early to be reached directly, and open by way of the depot."""
    arrays = {
        "xy": np.array([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]]), "demand": np.array([[0, 1, 1]]),
        "capacity": np.array([5]), "windows": np.array([[[0.0, 200.0], [100.0, 150.0], [0.0, 30.0]]]),
        "service": np.array([[0.0, 10.0, 10.0]]),
    }  # fmt: skip
    env = environment("cvrptw", arrays)
    state = env.step(env.initial(), torch.tensor([0]), torch.tensor([1]))
    assert float(state.clock[0]) == 110.0
    assert env.feasible(state)[0].tolist() == [[False, True]]
    last = env.step(state, torch.tensor([0]), torch.tensor([1]))
    assert float(last.clock[0]) == 20.0 and float(last.cost[0]) == 40.0
    # The other order waits for the window and needs one vehicle.
    state = env.step(env.initial(), torch.tensor([1]), torch.tensor([1]))
    assert env.feasible(state)[0].tolist() == [[True, True]]
    arrays["windows"][0, 2, 1] = 5.0
    with pytest.raises(InstanceError, match="customer 2 of item 0"):
        environment("cvrptw", arrays)


def test_done_rows_are_frozen(arrays_of):
    """A step leaves rows that are done exactly as they were."""
    arrays = arrays_of("kp", 12, 2)
    arrays["capacity"] = np.array([0.4, 6.0])
    env = environment("kp", arrays)
    state = env.initial()
    while not bool(state.done[0]):
        slot = env.feasible(state)[..., 0].int().argmax(1)
        state = env.step(state, slot, torch.zeros(2, dtype=torch.int64))
    cost, left, count = float(state.cost[0]), float(state.left[0]), int(state.count[0])
    while not bool(state.done.all()):
        slot = env.feasible(state)[..., 0].int().argmax(1)
        state = env.step(state, slot, torch.zeros(2, dtype=torch.int64))
    assert (float(state.cost[0]), float(state.left[0]), int(state.count[0])) == (cost, left, count)
