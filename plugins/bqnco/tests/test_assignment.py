"""Regrets of the assignment relaxation: known answer by enumeration, ties, the smallest states, no dependence on order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sfumato_bqnco.assignment import regrets


def by_enumeration(matrix, i, j):
    """Cost of the best assignment that takes i -> j (any, when i is None), over all permutations."""
    n = len(matrix)
    sources, sinks = [0, *range(2, n)], [*range(2, n), 1]
    best = np.inf
    for order in itertools.permutations(sinks):
        arcs = list(zip(sources, order, strict=True))
        barred = any(a == b for a, b in arcs) or ((0, 1) in arcs and n > 2)
        if not barred and (i is None or (i, j) in arcs):
            best = min(best, sum(matrix[a] for a in arcs))
    return best


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("grid", [0, 4])
def test_the_regret_is_what_forcing_an_arc_costs(seed, grid):
    """All permutations of six nodes agree, with random costs and with many ties (a grid of four values)."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, grid, (7, 7)).astype(float) if grid else rng.random((7, 7))
    found = regrets(matrix[None], np.array([7]))[0]
    free = by_enumeration(matrix, None, None)
    for i, j in itertools.product([0, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]):
        if i != j and (i, j) != (0, 1):
            assert found[i, j] == pytest.approx(by_enumeration(matrix, i, j) - free, abs=1e-6)


def test_order_and_padding_do_not_show():
    """The nodes in another order have their regrets in that order; padding changes none."""
    rng = np.random.default_rng(2)
    matrix = rng.integers(1, 9, (1, 9, 9)).astype(float)
    plain = regrets(matrix, np.array([9]))[0]
    order = np.r_[0, 1, 2 + rng.permutation(7)]
    np.testing.assert_allclose(regrets(matrix[:, order][:, :, order], np.array([9]))[0], plain[order][:, order], atol=1e-6)
    padded = np.zeros((1, 12, 12))
    padded[:, :9, :9] = matrix
    np.testing.assert_allclose(regrets(padded, np.array([9]))[0, :9, :9], plain, atol=1e-6)


def test_states_of_two_and_three_tokens():
    """Nothing left: no regret. One node left: the path through it is the only one."""
    matrix = np.random.default_rng(3).random((2, 3, 3))
    found = regrets(matrix, np.array([2, 3]))
    assert found[0, 0, 1] == 0.0
    assert found[1, 0, 2] == found[1, 2, 1] == 0.0
