"""Classical methods against exact answers and each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sfumato_bqnco import generate, methods
from sfumato_bqnco.baselines import cvrp_local, exact, tsp_local
from sfumato_bqnco.distances import Metric, neighbour_lists
from sfumato_bqnco.errors import BqncoError
from sfumato_bqnco.instances import Instance, from_arrays
from sfumato_bqnco.readers import read
from sfumato_bqnco.validate import objective


def instance(problem, n, seed=0, **options):
    arrays = generate.random_set(problem, np.random.default_rng(seed), 1, n, **options)
    return from_arrays(problem, arrays, 0)


def test_neighbour_lists_agree_between_tree_and_matrix():
    """With duplicates too: a node is never its own neighbour."""
    xy = np.random.default_rng(0).random((40, 2))
    xy[5] = xy[6] = xy[7]
    a = neighbour_lists(Metric("euclid", xy), 6)
    matrix = Metric("euclid", xy).full()
    assert (a != np.arange(40)[:, None]).all()
    b = neighbour_lists(Metric("matrix", matrix=matrix), 6)
    np.testing.assert_allclose(np.take_along_axis(matrix, a, 1), np.take_along_axis(matrix, b, 1))


@pytest.mark.parametrize("n", [5, 7, 9])
def test_kicked_two_opt_finds_the_optimum_of_tiny_tours(n):
    """Against Held and Karp."""
    for seed in range(5):
        metric = Metric("euclid", np.random.default_rng(seed).random((n, 2)))
        tour = tsp_local.iterated_local_search(metric, np.arange(n), np.random.default_rng(1), n_kicks=300)
        best, _ = exact.held_karp(metric.full())
        assert tsp_local.tour_length(metric.kernel(), tour) == pytest.approx(best)


def test_the_local_search_keeps_its_books():
    """The reported gains are real: incumbents only fall, and the last is the length of the tour returned."""
    metric = Metric("euclid", np.random.default_rng(3).random((200, 2)))
    heard = []
    tour = tsp_local.iterated_local_search(
        metric,
        np.arange(200),
        np.random.default_rng(1),
        n_kicks=2000,
        on_incumbent=lambda v, t: heard.append(v),
    )
    assert sorted(tour.tolist()) == list(range(200))
    assert all(b < a for a, b in itertools.pairwise(heard))
    assert tsp_local.tour_length(metric.kernel(), tour) == pytest.approx(heard[-1])


def test_a_seed_gives_one_result():
    """The same generator, the same bits."""
    item = instance("cvrp", 40)
    runs = [
        cvrp_local.string_removals(
            item.metric(), item.demand, item.limit, np.random.default_rng(7), n_iterations=2000
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_string_removals_stay_feasible_and_reach_tiny_optima():
    """On five customers against all partitions (by the environment's exhaustive search elsewhere): known by savings."""
    item = instance("cvrp", 60, seed=2)
    start = cvrp_local.savings(item.metric(), item.demand, item.limit)
    better = cvrp_local.string_removals(
        item.metric(), item.demand, item.limit, np.random.default_rng(0), start=start, n_iterations=20000
    )
    first, last = objective(item, start), objective(item, better)
    assert last < first
    # Capacity 1e9: one vehicle may take all, so the answer is a tour, and no route is ever worth splitting.
    free = instance("cvrp", 8, seed=1, capacity=10**6)
    routes = cvrp_local.string_removals(
        free.metric(), free.demand, free.limit, np.random.default_rng(0), n_iterations=3000
    )
    assert len(routes) == 1
    assert objective(free, routes) == pytest.approx(exact.held_karp(free.metric().full())[0])


def test_savings_and_removals_on_a_library_file(routing):
    """X-n101-k25: savings within 8 %, 30,000 removals within 2 % of best known."""
    item = read(routing / "cvrp" / "X-n101-k25.vrp")
    start = cvrp_local.savings(item.metric(), item.demand, item.limit)
    assert objective(item, start) <= 27591 * 1.08
    routes = cvrp_local.string_removals(
        item.metric(), item.demand, item.limit, np.random.default_rng(0), start=start, n_iterations=30000
    )
    assert 27591 <= objective(item, routes) <= 27591 * 1.02


def test_the_path_exchange_solves_small_asymmetric_tours():
    """Against Held and Karp; every incumbent is real."""
    for seed in range(5):
        item = instance("atsp", 8, seed)
        plan = methods.run("iterated-2-opt", item, 0.05, np.random.default_rng(0))
        assert objective(item, plan) == pytest.approx(exact.held_karp(item.matrix)[0])


def test_the_exact_knapsack_agrees_with_enumeration():
    """Ten items, all subsets."""
    for seed in range(10):
        item = instance("kp", 10, seed, capacity=1.5)
        best = 0.0
        for mask in range(1 << 10):
            chosen = [i for i in range(10) if mask >> i & 1]
            if item.weight[chosen].sum() <= item.limit + 1e-9:
                best = max(best, float(item.value[chosen].sum()))
        assert objective(item, exact.knapsack(item.value, item.weight, item.limit)) == pytest.approx(best)


def test_the_exact_knapsack_declines_weights_off_the_grid():
    """It says None rather than rounding; the method explains."""
    item = Instance("kp", "odd", value=np.ones(2), weight=np.array([0.12345, 0.5]), limit=0.6)
    assert exact.knapsack(item.value, item.weight, item.limit) is None
    with pytest.raises(BqncoError, match="cp-sat"):
        methods.run("knapsack-exact", item, 1.0, np.random.default_rng(0))


def test_orienteering_search_beats_its_own_greedy_start():
    """Feasible, and never below the greedy filling it starts from."""
    item = instance("op", 50, seed=4)
    greedy = objective(item, methods.run("prize-greedy", item, 0, np.random.default_rng(0)))
    better = objective(item, methods.run("prize-ruin", item, 0.3, np.random.default_rng(0)))
    assert better >= greedy


@pytest.mark.optional
@pytest.mark.parametrize("name", [n for n, m in methods.METHODS.items() if m.module])
def test_wrapped_solvers_return_feasible_solutions(name):
    """Every wrapped solver on every problem it takes, n = 12."""
    chosen = methods.METHODS[name]
    if not chosen.installed:
        pytest.skip(f"needs the optional package {chosen.module}")
    for problem in set(chosen.problems) - {"cvrptw"}:
        item = instance(problem, 12, seed=3)
        # CP-SAT proves the optimum and stops; it only needs patience on a busy machine.
        value = objective(
            item, methods.run(name, item, 10.0 if name == "cp-sat" else 0.2, np.random.default_rng(0))
        )
        assert np.isfinite(value)


def test_methods_decline_politely():
    """Unknown names, wrong problems."""
    with pytest.raises(BqncoError, match="expected a method among"):
        methods.method("simplex", "tsp")
    with pytest.raises(BqncoError, match="for kp use"):
        methods.method("savings", "kp")
