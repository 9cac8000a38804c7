"""Greedy, beam, merging, neighbours, symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato_bqnco import generate
from sfumato_bqnco.config import PROBLEMS
from sfumato_bqnco.decode import Limits, Scorer, _survivors, beam, greedy, symmetries
from sfumato_bqnco.env import environment
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.reconstruct import plans
from sfumato_bqnco.validate import objective


def checked(problem, arrays, found):
    """Every decoded row is feasible and costs what the validator says."""
    for b, plan in enumerate(plans(problem, found)):
        item = from_arrays(problem, arrays, b)
        value = objective(item, plan)
        assert float(found.cost[b]) == pytest.approx(-value if item.maximise else value, rel=1e-6)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_decoded_solutions_are_feasible_and_cost_what_they_say(problem, small_networks, arrays_of):
    """Greedy and both beams, on all five problems."""
    arrays = arrays_of(problem, 14, 3)
    env = environment(problem, arrays)
    scorer = Scorer(small_networks[problem])
    checked(problem, arrays, greedy(scorer, env))
    checked(problem, arrays, beam(scorer, env, 4, merge=False))
    checked(problem, arrays, beam(scorer, env, 4))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_beam_of_width_one_is_greedy(problem, small_networks, arrays_of):
    """Width one leaves no choice but the most probable option."""
    env = environment(problem, arrays_of(problem, 12, 3))
    scorer = Scorer(small_networks[problem])
    torch.testing.assert_close(beam(scorer, env, 1, merge=False).cost, greedy(scorer, env).cost)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_beam_wide_enough_is_exact(problem, small_networks, arrays_of, best_value):
    """A merged beam that can hold every distinct state is dynamic programming: it finds the optimum."""
    n = 4 if problem == "cvrptw" else 5 if problem == "cvrp" else 6
    arrays = arrays_of(problem, n, 1)
    env = environment(problem, arrays)
    found = beam(Scorer(small_networks[problem]), env, 400)
    assert float(found.cost[0]) == pytest.approx(best_value(env, env.initial()), rel=1e-9)


def test_merging_keeps_the_cheapest_past_at_the_best_rank():
    """Hand-made: 0 and 2 are one state, 2 is cheaper and inherits the rank of 0; 1 and 3 trade cost against rest."""
    key = torch.tensor([[7, 8, 7, 8]])
    cost = torch.tensor([[3.0, 1.0, 2.0, 2.0]], dtype=torch.float64)
    left = torch.tensor([[0.0, 1.0, 0.0, 5.0]], dtype=torch.float64)
    logp = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    rank, beaten = _survivors(key, cost, left, logp)
    assert beaten.tolist() == [[True, False, False, False]]
    assert rank.tolist() == [[-torch.inf, -2.0, -1.0, -4.0]]


def test_a_later_clock_does_not_dominate():
    """Equal keys: cheaper but later keeps both; cheaper and sooner drops the other."""
    key, left = torch.tensor([[7, 7]]), torch.zeros((1, 2), dtype=torch.float64)
    cost = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    logp = torch.tensor([[-1.0, -2.0]])
    clock = torch.tensor([[5.0, 4.0]], dtype=torch.float64)
    assert _survivors(key, cost, left, logp, clock)[1].tolist() == [[False, False]]
    assert _survivors(key, cost, left, logp, 9.0 - clock)[1].tolist() == [[False, True]]


def test_equal_copies_leave_exactly_one():
    """Three copies of one state with equal cost: the first stays."""
    same = torch.zeros((1, 3), dtype=torch.float64)
    rank, beaten = _survivors(
        torch.ones((1, 3), dtype=torch.int64), same, same, torch.tensor([[-1.0, -2.0, -3.0]])
    )
    assert beaten.tolist() == [[False, True, True]] and rank[0, 0] == -1.0


def test_the_merged_beam_is_not_worse_on_average_than_the_plain_one(small_networks):
    """At equal width, over 40 random TSP20, even with an untrained network."""
    env = environment("tsp", generate.tsp(np.random.default_rng(2), 40, 20))
    scorer = Scorer(small_networks["tsp"])
    plain, merged = beam(scorer, env, 8, merge=False), beam(scorer, env, 8)
    assert float(merged.cost.mean()) <= float(plain.cost.mean())
    assert 0.0 < merged.merged < 1.0


@pytest.mark.parametrize("problem", PROBLEMS)
def test_results_do_not_depend_on_the_company(problem, small_networks, arrays_of):
    """An item decoded alone and in a batch, and in chunks of any size, gives the same solution."""
    arrays = arrays_of(problem, 16, 5)
    scorer = Scorer(small_networks[problem])
    together = greedy(scorer, environment(problem, arrays))
    chunked = greedy(Scorer(small_networks[problem], Limits(tokens=20)), environment(problem, arrays))
    torch.testing.assert_close(together.cost, chunked.cost)
    alone = greedy(scorer, environment(problem, {k: a[3:4] for k, a in arrays.items()}))
    assert plans(problem, alone)[0] == plans(problem, together)[3]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_few_neighbours_still_give_feasible_solutions(problem, small_networks, arrays_of):
    """The restriction to the nearest nodes chooses among feasible ones, so there is always a way on."""
    arrays = arrays_of(problem, 25, 3)
    scorer = Scorer(small_networks[problem], Limits(neighbours=3))
    checked(problem, arrays, greedy(scorer, environment(problem, arrays)))
    checked(problem, arrays, beam(scorer, environment(problem, arrays), 3))


def test_symmetries_take_the_best_of_eight(small_networks, arrays_of):
    """The first symmetry is the identity, so the best of eight is never worse than greedy."""
    arrays = arrays_of("tsp", 15, 6)
    env = environment("tsp", arrays)
    scorer = Scorer(small_networks["tsp"])
    found = symmetries(scorer, env)
    assert bool((found.cost <= greedy(scorer, env).cost + 1e-9).all())
    checked("tsp", arrays, found)


def test_sampling_is_repeatable(small_networks):
    """The same generator gives the same sample."""
    env = environment("cvrp", generate.cvrp(np.random.default_rng(0), 2, 10, capacity=15))
    scorer = Scorer(small_networks["cvrp"])
    runs = [
        greedy(scorer, env, temperature=1.0, generator=torch.Generator().manual_seed(4)).cost
        for _ in range(2)
    ]
    torch.testing.assert_close(runs[0], runs[1], atol=0, rtol=0)
