from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, alf_run, route

pytest.importorskip("numba", reason="needs the extra 'compiled'")

from sfumato_alflb.kernels import IncrementalRouter, route_compiled

pytestmark = pytest.mark.optional


def test_the_compiled_routing_equals_the_numpy_one_with_ties(rng: np.random.Generator) -> None:
    """Random and tied scores, several sizes."""
    for n_experts, k in [(2, 1), (8, 2), (64, 8), (33, 32), (70, 40), (130, 5), (6, 3), (67, 17)]:
        for scores in (rng.random((101, n_experts)), rng.integers(0, 3, (101, n_experts)).astype(float)):
            bias = rng.integers(0, 3, n_experts).astype(float)
            want, got = route(scores, bias, k), route_compiled(scores, bias, k)
            assert (got.chosen == want.chosen).all() and (got.loads == want.loads).all()
            assert got.value == pytest.approx(want.value)


@pytest.mark.parametrize("rule", ["sign", "sign_inv", "prop", "prop_sqrt", "prop_inv"])
def test_the_incremental_run_equals_the_full_one(rng: np.random.Generator, rule: str) -> None:
    """Same loads at each of 700 steps (more than the ring holds), also with tied scores."""
    for scores in (rng.random((300, 8)), rng.integers(0, 4, (120, 6)) / 4.0):
        problem = AlfProblem(scores, 2)
        runs = [
            alf_run(problem, rule, 0.01, steps=700, keep_loads=True, stop_when_optimal=False, engine=engine)
            for engine in ("numpy", "compiled")
        ]
        assert (runs[0].loads == runs[1].loads).all()
        assert runs[0].objective == pytest.approx(runs[1].objective, rel=1e-12)


def test_the_incremental_run_touches_few_tokens(skew: np.ndarray) -> None:
    """On the way to the optimum fewer than a quarter of the tokens is routed per step."""
    problem = AlfProblem(skew, 8)
    router = IncrementalRouter(problem)
    bias, n = np.zeros(64), 0
    while n < 600:
        loads, objective = router.loads_and_objective(bias)
        if loads.max() == 512:
            break
        n += 1
        bias = bias + 0.5 / n * (1 - loads / 512)
    assert objective == pytest.approx(25711.333713181928, rel=1e-12)
    assert router.n_routed < 0.25 * n * problem.n_tokens
    assert (router.chosen() == problem.route(bias).chosen).all()
