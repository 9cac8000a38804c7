from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, BiasRule
from sfumato_alflb.theory import (
    approximate_balance,
    dual_change,
    improvement_over_run,
    preference,
    separating_step,
    window_count,
)


def test_the_dual_changes_by_benefit_minus_linear_term(rng: np.random.Generator) -> None:
    """T1: the identity holds to 1e-9 at every step; the dual does not fall at every step."""
    n_updates = improved = 0
    for _ in range(6):
        problem = AlfProblem(rng.random((64, 8)), 2)
        for rule in (BiasRule("sign", 0.01), BiasRule("prop", 0.05)):
            report = improvement_over_run(problem, rule, steps=200)
            assert report.largest_error < 1e-9
            n_updates, improved = n_updates + report.n_updates, improved + report.improved
    assert n_updates == 2400
    assert 0.4 < improved / n_updates < 0.9  # about 65 % of the steps: "always" would be wrong


def test_without_a_switch_the_dual_falls_by_the_whole_linear_term() -> None:
    """A step too small to move anyone: for the sign rule, u * sum|L - A|."""
    problem = AlfProblem([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.1, 0.6]], 1)
    change = dual_change(problem, [0.0, 0.0], [-0.01, 0.01])
    assert change.n_moved == 0 and change.benefit == 0.0 and change.improves
    assert change.after - change.before == pytest.approx(-0.01 * 2)


def test_tokens_move_only_towards_experts_whose_price_rose_more(rng: np.random.Generator) -> None:
    """T2: no violation in 10,000 random updates; movers exist in nearly all of them."""
    n_moved = violations = by_load = 0
    for i in range(10_000):
        if i % 100 == 0:
            k = 1 + (i // 100) % 3
            problem = AlfProblem(rng.random((40, 6)), k)
        p = rng.normal(size=6) * 0.2
        rule = BiasRule("sign" if i % 2 else "prop", float(rng.random() * 0.2))
        moves = preference(problem, p, p + rule.delta(problem.route(p).loads, 1, problem.mean_load))
        n_moved, violations = n_moved + moves.n_moved, violations + moves.violations
        by_load += moves.load_violations
        assert moves.margin_excess < 1e-12
        assert moves.widest <= 2 * rule.u + 1e-12 or rule.name == "prop"
    assert n_moved > 10_000
    assert violations == 0 and by_load == 0


def test_a_wrong_update_is_caught() -> None:
    """The checker is not blind: raising the price of the overloaded expert moves tokens towards load."""
    problem = AlfProblem([[0.9, 0.1], [0.8, 0.1], [0.5, 0.6]], 1)
    assert preference(problem, [0.0, 0.0], [0.2, 0.0]).load_violations == 1


def test_the_window_count_by_hand() -> None:
    """Differences 0, 0.1, 0.2, 0.5: three lie in a window of length 0.2."""
    problem = AlfProblem([[0.5, 0.5], [0.6, 0.5], [0.7, 0.5], [1.0, 0.5]], 1)
    assert [window_count(problem, u) for u in (0.01, 0.0501, 0.1001, 1.0)] == [1, 2, 3, 4]
    assert separating_step(problem) == pytest.approx(0.05)


def test_the_sign_rule_ends_within_the_band_and_stays(rng: np.random.Generator) -> None:
    """T3 on 50 small instances with u below the separating step: at most E - 1 tokens off, for ever."""
    pytest.importorskip("numba", reason="10^5 steps an instance need the extra 'compiled'")
    forever = 0
    for i in range(50):
        n_tokens, n_experts, k = (16, 24, 32)[i % 3], (3, 4)[i % 2], 1 + (i // 2) % 2
        problem = AlfProblem(rng.random((n_tokens, n_experts)), k)
        u = 0.99 * separating_step(problem)
        if u < 1e-6:
            u = 1e-6  # entry would take millions of steps; the band is then (E-1) m with the m counted
        band = approximate_balance(problem, u, max_steps=400_000, engine="compiled")
        assert band.entered is not None, (i, u)
        assert band.holds
        forever += band.is_forever
    assert forever >= 45  # and a closed cycle proves it beyond the horizon


def test_larger_steps_keep_a_wider_band(rng: np.random.Generator) -> None:
    """T = 1024, E = 8, K = 1: the bound grows with u and is far from tight."""
    problem = AlfProblem(rng.random((1024, 8)), 1)
    bounds = []
    for u in (1e-3, 1e-2):
        band = approximate_balance(problem, u, max_steps=2000)
        assert band.holds
        bounds.append(band.bound)
    assert bounds[0] < bounds[1]
