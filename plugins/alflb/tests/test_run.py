from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, ArgumentError, alf_run

# Optimum of the two reference matrices at T=4096, E=64, K=8 (HiGHS and minimum-cost flow agree).
OPTIMUM = {"unif": 30480.842407572552, "skew": 25711.333713181928}


def test_plain_top_k_on_skewed_scores_is_badly_unbalanced(skew: np.ndarray) -> None:
    """MaxVio 4.797 and an (infeasible) objective 1.1507 times the balanced optimum."""
    run = alf_run(AlfProblem(skew, 8), steps=0)
    assert run.max_vio[0] == pytest.approx(4.797, abs=5e-4)
    assert run.objective[0] / OPTIMUM["skew"] == pytest.approx(1.1507, abs=5e-5)
    assert not run.final.is_feasible


def test_the_damped_proportional_rule_proves_the_optimum_on_skewed_scores(skew: np.ndarray) -> None:
    """Exact balance after 477 +- 2 routings, certified by the dual, equal to the LP optimum."""
    run = alf_run(AlfProblem(skew, 8), "prop_inv", 0.5, steps=600)
    assert [run.first_below(t) for t in (0.1, 0.05, 0.01)] == pytest.approx([22, 35, 121], abs=2)
    assert run.n_updates + 1 == pytest.approx(477, abs=2)
    assert run.final.is_optimal() and run.max_vio[-1] == 0.0
    assert run.objective[-1] == pytest.approx(OPTIMUM["skew"], rel=1e-12)
    assert abs(run.final.gap) < 1e-8


def test_the_damped_proportional_rule_proves_the_optimum_on_uniform_scores(unif: np.ndarray) -> None:
    """Exact after 83 +- 2 routings."""
    run = alf_run(AlfProblem(unif, 8), "prop_inv", 0.5, steps=150)
    assert run.n_updates + 1 == pytest.approx(83, abs=2)
    assert run.objective[-1] == pytest.approx(OPTIMUM["unif"], rel=1e-12)


def test_the_sign_rule_reaches_ten_per_cent_within_340_routings(skew: np.ndarray) -> None:
    """333 +- 2 routings to 0.1 and 336 +- 2 to 0.05."""
    run = alf_run(AlfProblem(skew, 8), "sign", 1e-3, steps=345)
    assert run.first_below(0.1) == pytest.approx(333, abs=2)
    assert run.first_below(0.05) == pytest.approx(336, abs=2)


@pytest.mark.parametrize(
    ("rule", "u", "want"),
    [("prop", 0.01, 42), ("prop", 0.05, 10), ("sign_inv", 0.1, 22), ("sign_sqrt", 0.05, 49)],
)
def test_other_rules_take_as_long_as_the_reference(skew: np.ndarray, rule: str, u: float, want: int) -> None:
    """Routings to MaxVio below 0.1."""
    assert alf_run(AlfProblem(skew, 8), rule, u, steps=60).first_below(0.1) == pytest.approx(want, abs=2)


def test_equal_scores_terminate_in_a_cycle() -> None:
    """All tokens are alike, so none can be told from another; the run ends and is not called balanced."""
    run = alf_run(AlfProblem(np.full((16, 4), 0.5), 1), "sign", 0.01, steps=500, stop_at_cycle=True)
    assert run.cycle is not None and run.n_updates < 500
    assert not run.final.is_feasible


def test_two_tokens_that_cannot_be_told_apart_give_a_two_cycle_of_width_u() -> None:
    """One expert is always one token over, so both biases step back and forth by u."""
    run = alf_run(
        AlfProblem([[0.4, 0.6], [0.4, 0.6]], 1), "sign", 0.01, steps=100, keep_biases=True, stop_at_cycle=True
    )
    assert run.cycle is not None and run.cycle[1] == 2
    assert run.biases is not None
    turn = run.biases[run.cycle[0] :]
    assert np.ptp(turn, axis=0) == pytest.approx([0.01, 0.01])


def test_an_empty_batch_changes_nothing() -> None:
    """No update without tokens."""
    run = alf_run(AlfProblem(np.zeros((0, 4)), 2), steps=5, p0=[1.0, 2.0, 3.0, 4.0])
    assert run.bias.tolist() == [1.0, 2.0, 3.0, 4.0] and run.n_updates == 0


def test_a_load_that_is_not_an_integer_is_met_up_to_the_ceiling(rng: np.random.Generator) -> None:
    """T*K = 26 over 4 experts: nobody may serve more than 7."""
    problem = AlfProblem(rng.random((13, 4)), 2)
    run = alf_run(problem, "prop_inv", 0.5, steps=400)
    assert (run.dual >= run.objective[-1] - 1e-9).all() or not run.final.is_feasible
    assert problem.capacity == 7


@pytest.mark.parametrize(
    ("change", "argument"), [({"p0": [0.0]}, "p0"), ({"steps": -1}, "steps"), ({"engine": "cuda"}, "engine")]
)
def test_bad_arguments_are_refused_by_name(change: dict[str, object], argument: str) -> None:
    """The error names what the caller wrote."""
    with pytest.raises(ArgumentError) as caught:
        alf_run(AlfProblem([[0.1, 0.2]], 1), **change)  # type: ignore[arg-type]
    assert caught.value.argument == argument
