"""Bounds and near-exact values."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the exact solvers are compiled")
from sfumato_vopp import RockSample, Tiger
from sfumato_vopp.exact import blind_lower, bracket, fast_informed_bound, qmdp
from sfumato_vopp.tabular import tabulate


def tiger_lattice(depth: int = 60) -> float:
    """V*(uniform) of Tiger by value iteration over the net count of agreeing sounds, independent of the solvers."""
    k = np.arange(-depth, depth + 1)
    odds = (0.85 / 0.15) ** k.astype(float)
    left = odds / (1 + odds)
    value = np.zeros(len(k))
    heard_left = left * 0.85 + (1 - left) * 0.15
    for _ in range(3000):
        up, down = np.append(value[1:], value[-1]), np.insert(value[:-1], 0, value[0])
        listen = -1 + 0.95 * (heard_left * up + (1 - heard_left) * down)
        opened = np.maximum(-100 * left + 10 * (1 - left), 10 * left - 100 * (1 - left)) + 0.95 * value[depth]
        value = np.maximum(listen, opened)
    return float(value[depth])


def test_the_bracket_closes_on_the_exact_value_of_tiger() -> None:
    assert tiger_lattice() == pytest.approx(19.3714, abs=1e-4)
    found = bracket(tabulate(Tiger()), gap=1e-3, seconds=60)
    assert found.high - found.low < 1e-3
    assert found.low - 1e-9 <= tiger_lattice() <= found.high + 1e-9
    assert found.act(np.array([0, 1]), np.array([0.5, 0.5])) == 0
    assert found.act(np.array([0, 1]), np.array([0.99, 0.01])) == 2


def test_bounds_are_ordered_at_every_belief(rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample(3, 2, rocks=((0, 0), (2, 2)))
    tables = tabulate(model)
    assert tables.n_states == 3 * 3 * 4
    high_qmdp, high_fib, low = qmdp(tables), fast_informed_bound(tables), blind_lower(tables)
    found = bracket(tables, gap=0.01, seconds=20)
    for _ in range(100):
        b = rng.dirichlet(np.full(tables.n_states, 0.1))
        assert (high_qmdp @ b).max() >= (high_fib @ b).max() - 1e-6
        assert (high_fib @ b).max() >= found.value(np.arange(tables.n_states), b) - 1e-6
        assert found.value(np.arange(tables.n_states), b) >= (low @ b).max() - 1e-9
    assert found.high - found.low < 0.01
    history = found.history
    assert np.all(np.diff(history[:, 1]) >= -1e-9) and np.all(np.diff(history[:, 2]) <= 1e-9)


def test_rocksample_has_the_published_number_of_states() -> None:
    # 7·7·2^8 and one terminal state that we do not number.
    assert tabulate(RockSample()).n_states == 12_544
