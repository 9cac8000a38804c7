from __future__ import annotations

import itertools

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, ArgumentError, alf_run, certificate, dual_value, lp_reference


def brute_force(problem: AlfProblem) -> float:
    """Try every assignment."""
    choices = list(itertools.combinations(range(problem.n_experts), problem.k))
    best = -np.inf
    for pick in itertools.product(choices, repeat=problem.n_tokens):
        loads = np.bincount(np.ravel(pick), minlength=problem.n_experts)
        if loads.max() <= problem.capacity:
            best = max(best, sum(problem.scores[i, list(c)].sum() for i, c in enumerate(pick)))
    return float(best)


@pytest.mark.parametrize("shape", [(4, 3, 1), (3, 4, 2), (5, 3, 2), (6, 3, 1)])
@pytest.mark.parametrize("method", ["highs", "highs-ds", "highs-ipm"])
def test_it_finds_what_trying_everything_finds(
    shape: tuple[int, int, int], method: str, rng: np.random.Generator
) -> None:
    """Also where T*K is not divisible by E."""
    n_tokens, n_experts, k = shape
    problem = AlfProblem(rng.random((n_tokens, n_experts)), k)
    solution = lp_reference(problem, method)
    assert solution.objective == pytest.approx(brute_force(problem))
    assert solution.certificate is not None and solution.certificate.is_optimal(1e-9)


def test_minimum_cost_flow_agrees_with_the_linear_program(rng: np.random.Generator) -> None:
    """Two exact solvers of different kind."""
    pytest.importorskip("ortools", reason="needs the extra 'flow'")
    for n_tokens, n_experts, k in [(128, 16, 2), (100, 12, 3)]:
        problem = AlfProblem(rng.standard_normal((n_tokens, n_experts)), k)
        flow, highs = lp_reference(problem, "flow"), lp_reference(problem, "highs")
        assert flow.objective == pytest.approx(highs.objective, rel=1e-9)


@pytest.mark.parametrize(("kind", "want"), [("unif", 30480.842407572552), ("skew", 25711.333713181928)])
def test_the_reference_optima(kind: str, want: float, request: pytest.FixtureRequest) -> None:
    """T=4096, E=64, K=8, with a certificate computed apart from the solver."""
    solution = lp_reference(AlfProblem(request.getfixturevalue(kind), 8))
    assert solution.objective == pytest.approx(want, rel=1e-12)
    assert solution.certificate is not None and solution.certificate.is_optimal(1e-10)


def test_the_reference_optima_by_flow(skew: np.ndarray, unif: np.ndarray) -> None:
    """The second exact solver on the same matrices."""
    pytest.importorskip("ortools", reason="needs the extra 'flow'")
    assert lp_reference(AlfProblem(skew, 8), "flow").objective == pytest.approx(25711.333713181928, rel=1e-9)
    assert lp_reference(AlfProblem(unif, 8), "flow").objective == pytest.approx(30480.842407572552, rel=1e-9)


def test_the_running_bias_bounds_the_optimum_from_above(rng: np.random.Generator) -> None:
    """Every bias of a run is a certificate of an upper bound."""
    problem = AlfProblem(rng.random((96, 8)), 2)
    best = lp_reference(problem).objective
    assert (alf_run(problem, "sign", 0.01, steps=100).dual >= best - 1e-9).all()


def test_a_poor_assignment_gets_an_honest_gap(rng: np.random.Generator) -> None:
    """Gap = what is lost, when the prices are optimal."""
    problem = AlfProblem(rng.random((16, 4)), 1)
    solution = lp_reference(problem)
    chosen = np.eye(4, dtype=bool)[np.arange(16) % 4]
    report = certificate(problem, solution.prices, chosen)
    assert report.is_feasible and not report.is_optimal()
    assert report.gap == pytest.approx(solution.objective - report.objective)
    assert dual_value(problem, solution.prices) == pytest.approx(solution.objective)


def test_a_mask_with_the_wrong_number_of_choices_is_refused() -> None:
    """K choices a row."""
    with pytest.raises(ArgumentError, match="chosen"):
        certificate(AlfProblem([[0.1, 0.2]], 1), [0.0, 0.0], [[True, True]])


def test_an_unknown_method_is_refused() -> None:
    """The error lists the methods."""
    with pytest.raises(ArgumentError, match="highs-ipm"):
        lp_reference(AlfProblem([[0.1, 0.2]], 1), "simplex")


@pytest.mark.parametrize("method", ["highs", "highs-ds", "highs-ipm", "flow"])
def test_the_optimum_does_not_depend_on_the_unit_or_the_offset_of_the_scores(
    method: str, rng: np.random.Generator
) -> None:
    """Solvers have absolute tolerances: scores of 1e-6, or on top of 1e9, must find the same assignment."""
    if method == "flow":
        pytest.importorskip("ortools", reason="needs the extra 'flow'")
    scores = rng.random((64, 8))
    want = lp_reference(AlfProblem(scores, 2), "highs-ds").chosen
    for other in (scores * 1e-12, scores * 1e-6, scores * 1e9, scores + 1e9 - 1e-3):
        assert (lp_reference(AlfProblem(other, 2), method).chosen == want).all()


def test_small_scores_prove_nothing_by_being_small(rng: np.random.Generator) -> None:
    """A poor assignment stays unproved at any scale, and the best one is proved at any scale and offset."""
    scores = rng.random((16, 4))
    poor = np.eye(4, dtype=bool)[np.arange(16) % 4]
    for scale, offset in [(1.0, 0.0), (1e-12, 0.0), (1e12, 0.0), (1.0, 1e9)]:
        problem = AlfProblem(scores * scale + offset, 1)
        solution = lp_reference(problem)
        assert solution.certificate is not None and solution.certificate.is_optimal()
        assert not certificate(problem, solution.prices, poor).is_optimal()
        run = alf_run(problem, "prop_inv", 0.5 * scale, steps=400)
        assert run.final.is_optimal() and run.final.max_vio == 0.0


def test_a_gap_counts_what_tokens_forgo_and_what_room_costs() -> None:
    """By hand: tokens swapped (0.1 + 0.1 forgone at prices 0) where balance is free."""
    problem = AlfProblem([[0.6, 0.5], [0.5, 0.6]], 1)
    report = certificate(problem, [0.0, 0.0], [[False, True], [True, False]])
    assert report.is_feasible and report.gap == pytest.approx(0.2)
    assert report.dual == pytest.approx(dual_value(problem, [0.0, 0.0]))
    assert report.at_stake == pytest.approx(0.2)
