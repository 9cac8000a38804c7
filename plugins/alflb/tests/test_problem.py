from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato_alflb import (
    AlfProblem,
    ArgumentError,
    InfeasibleError,
    affinity,
    dual_value,
    max_vio,
    min_vio,
    route,
    switching_benefit,
    top_k_stable,
)


def test_two_tokens_two_experts_by_hand() -> None:
    """Both tokens prefer expert 0; D at (0, 0.3) is the optimum 1.5 of the balanced assignment."""
    problem = AlfProblem([[0.9, 0.7], [0.8, 0.5]], 1)
    assert problem.route().loads.tolist() == [2, 0]
    # Balanced: token 0 to expert 1 (0.7), token 1 to expert 0 (0.8): 1.5. The other way is 1.4.
    assert dual_value(problem, [0.0, 0.25]) == pytest.approx(0.95 + 0.8 - 0.25)
    assert dual_value(problem, [0.0, 0.0]) == pytest.approx(1.7)
    assert problem.route([0.0, 0.25]).loads.tolist() == [1, 1]


@given(
    scores=hnp.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(2, 9)), elements=st.integers(0, 4)),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_the_fast_path_equals_the_stable_sort_even_with_ties(scores: np.ndarray, data: st.DataObject) -> None:
    """Small integer scores tie all the time; both paths must pick the lowest expert index."""
    k = data.draw(st.integers(1, scores.shape[1] - 1))
    got = route(scores.astype(float), np.zeros(scores.shape[1]), k)
    want = np.zeros_like(got.chosen)
    np.put_along_axis(want, top_k_stable(scores.astype(float), k), True, axis=1)
    assert (got.chosen == want).all()
    assert got.loads.tolist() == want.sum(axis=0).tolist()
    assert got.value == pytest.approx(scores[want].sum())


def test_the_dual_bounds_every_feasible_assignment(rng: np.random.Generator) -> None:
    """Weak duality, also where T*K is not divisible by E and the limit is the ceiling."""
    for n_tokens, n_experts, k in [(12, 4, 2), (13, 4, 2), (7, 5, 1)]:
        problem = AlfProblem(rng.random((n_tokens, n_experts)), k)
        slots = (np.arange(n_tokens)[:, None] * k + np.arange(k)) % n_experts
        feasible = np.zeros((n_tokens, n_experts), dtype=bool)
        np.put_along_axis(feasible, slots, True, axis=1)
        assert feasible.sum(axis=0).max() <= problem.capacity
        for _ in range(50):
            bias = rng.normal(size=n_experts)
            assert dual_value(problem, bias) >= affinity(problem, feasible) - 1e-9
            assert dual_value(problem, bias + 3.0) == pytest.approx(dual_value(problem, bias))


def test_the_dual_is_convex_and_its_subgradient_is_the_overload(rng: np.random.Generator) -> None:
    """D(q) >= D(p) + <A - L, q - p>."""
    problem = AlfProblem(rng.random((64, 8)), 2)
    for _ in range(100):
        p, q = rng.normal(size=(2, 8)) * 0.3
        loads = problem.route(p).loads
        assert dual_value(problem, q) >= dual_value(problem, p) + (loads - 16) @ (q - p) - 1e-9


def test_the_switching_benefit_is_never_negative_and_zero_without_a_move(rng: np.random.Generator) -> None:
    """S measures what changing experts gains."""
    problem = AlfProblem(rng.random((32, 6)), 2)
    assert switching_benefit(problem, np.zeros(6), np.full(6, 0.7)) == pytest.approx(0.0, abs=1e-12)
    assert switching_benefit(problem, np.zeros(6), rng.normal(size=6)) > 0.0


def test_load_violations_by_hand() -> None:
    """Loads 6, 2, 4 with mean 4."""
    assert max_vio([6, 2, 4]) == pytest.approx(0.5)
    assert min_vio([6, 2, 4]) == pytest.approx(0.5)
    assert max_vio([0, 0]) == 0.0
    for bad in ([np.nan, 1.0], [], [-1.0, 3.0]):
        for violation in (max_vio, min_vio):
            with pytest.raises(ArgumentError, match="loads"):
                violation(bad)


@pytest.mark.parametrize(
    ("scores", "k", "argument"),
    [
        ([[1.0, np.nan]], 1, "scores"),
        ([[1.0, np.inf]], 1, "scores"),
        ([1.0, 2.0], 1, "scores"),
        ([[1.0, 2.0]], 2, "k"),
        ([[1.0, 2.0]], 0, "k"),
        ([[1.0, 2.0]], 1.5, "k"),
        ([["a", "b"]], 1, "scores"),
        ([[1.0, 2.0], [1.0]], 1, "scores"),
        ([[1.0, 2.0j]], 1, "scores"),
    ],
)
def test_bad_input_is_refused_by_name(scores: object, k: object, argument: str) -> None:
    """The error carries the argument's name."""
    with pytest.raises(ArgumentError) as caught:
        AlfProblem(scores, k)  # type: ignore[arg-type]
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("scores", "bias", "k", "argument"),
    [
        ([[np.nan, 1.0, 2.0]], [0.0, 0.0, 0.0], 1, "scores"),
        ([[np.nan, 2.0, 2.0]], [0.0, 0.0, 0.0], 2, "scores"),
        ([[np.inf, 1.0, 2.0]], [0.0, 0.0, 0.0], 1, "scores"),
        ([[0.5, 1.0, 2.0]], [np.nan, 0.0, 0.0], 1, "bias"),
        ([[0.5, 1.0, 2.0]], [0.0, 0.0], 1, "bias"),
        ([[0.5, 1.0, 2.0]], [0.0, 0.0, 0.0], 3, "k"),
    ],
)
@pytest.mark.parametrize("engine", ["numpy", "compiled"])
def test_bare_routing_refuses_what_it_cannot_route(
    scores: list[list[float]], bias: list[float], k: int, argument: str, engine: str
) -> None:
    """It is called without a problem too, and must not hand out rows with fewer than K choices."""
    do = route
    if engine == "compiled":
        do = pytest.importorskip("sfumato_alflb.kernels", reason="needs the extra 'compiled'").route_compiled
    with pytest.raises(ArgumentError) as caught:
        do(np.array(scores), np.array(bias), k)
    assert caught.value.argument == argument


def test_a_dead_expert_is_infeasible() -> None:
    """A column of -inf can never be balanced."""
    with pytest.raises(InfeasibleError, match="expert \\[1\\]"):
        AlfProblem([[0.1, -np.inf, 0.3], [0.2, -np.inf, 0.1]], 1)


def test_an_empty_batch_routes_to_nothing() -> None:
    """T = 0 is allowed and moves nobody."""
    problem = AlfProblem(np.zeros((0, 4)), 2)
    assert problem.route().loads.tolist() == [0, 0, 0, 0]
    assert dual_value(problem, np.zeros(4)) == 0.0
