from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import (
    AlfProblem,
    ArgumentError,
    SwitchOffsets,
    affinity,
    bip,
    expert_choice,
    max_vio,
    sinkhorn,
    two_sided_quantile,
)

OPTIMUM = 25711.333713181928


def figures(problem: AlfProblem, chosen: np.ndarray) -> tuple[float, float]:
    return max_vio(chosen.sum(axis=0)), affinity(problem, chosen) / OPTIMUM


@pytest.mark.parametrize(
    ("sweeps", "vio", "ratio"), [(1, 0.154, 1.0083), (4, 0.029, 1.0009), (8, 0.0039, 1.00006)]
)
def test_two_sided_quantile_prices_balance_in_few_sweeps(
    skew: np.ndarray, sweeps: int, vio: float, ratio: float
) -> None:
    """Reference figures on the skewed matrix; below 0.005 in 8 sweeps."""
    problem = AlfProblem(skew, 8)
    got = figures(problem, two_sided_quantile(problem, sweeps).chosen)
    assert got == pytest.approx((vio, ratio), abs=6e-4)


@pytest.mark.parametrize(("sweeps", "vio", "ratio"), [(1, 2.03, 1.133), (4, 1.03, 1.099), (14, 0.38, 1.056)])
def test_clipped_prices_balance_slowly(skew: np.ndarray, sweeps: int, vio: float, ratio: float) -> None:
    """The BIP form on the same matrix."""
    problem = AlfProblem(skew, 8)
    got = figures(problem, bip(problem, sweeps).chosen)
    assert got[0] == pytest.approx(vio, abs=6e-3) and got[1] == pytest.approx(ratio, abs=6e-4)


@pytest.mark.parametrize(
    ("tau", "vio", "ratio"), [(0.1, 0.318, 1.027), (0.05, 0.900, 1.078), (0.01, 2.66, 1.111)]
)
def test_sinkhorn_after_a_hundred_iterations(skew: np.ndarray, tau: float, vio: float, ratio: float) -> None:
    """Top K of the smoothed plan is not balanced."""
    problem = AlfProblem(skew, 8)
    got = figures(problem, sinkhorn(problem, tau, 20 if tau == 0.1 else 100).chosen)
    if tau != 0.1:  # 0.1 has long converged after 20
        assert got[1] == pytest.approx(ratio, abs=1e-3)
    assert got[0] == pytest.approx(vio, rel=0.02)


def test_expert_choice_is_balanced_and_leaves_tokens_out(skew: np.ndarray) -> None:
    """Loads are exact; tokens get between 0 and 19 experts."""
    problem = AlfProblem(skew, 8)
    peer = expert_choice(problem)
    assert figures(problem, peer.chosen) == pytest.approx((0.0, 1.0053), abs=6e-5)
    assert peer.choices_range == (0, 19)


def test_the_switch_gradient_equals_finite_differences(rng: np.random.Generator) -> None:
    """With the routed share held fixed, as the loss prescribes."""
    scores = rng.random((40, 5))
    peer = SwitchOffsets(5, 2, alpha=0.3, tau=0.7)
    peer.offsets = rng.normal(size=5) * 0.1
    _, gradient, chosen = peer.loss_and_gradient(scores)
    share = chosen.sum(axis=0) / 80

    def loss(offsets: np.ndarray) -> float:
        z = np.exp((scores + offsets) / 0.7)
        return float(0.3 * 5 * (z / z.sum(axis=1, keepdims=True)).mean(axis=0) @ share)

    for e in range(5):
        step = np.zeros(5)
        step[e] = 1e-5
        numeric = (loss(peer.offsets + step) - loss(peer.offsets - step)) / 2e-5
        assert gradient[e] == pytest.approx(numeric, abs=1e-8)


def test_the_switch_loss_balances_a_skewed_stream(rng: np.random.Generator) -> None:
    """MaxVio falls by more than half."""
    offsets = rng.random(8) * 0.4
    peer = SwitchOffsets(8, 2, alpha=1.0, learning_rate=0.2)
    vio = [max_vio(peer.update(rng.random((512, 8)) + offsets).sum(axis=0)) for _ in range(300)]
    assert np.mean(vio[-20:]) < 0.5 * vio[0]


def test_bad_settings_are_refused_by_name() -> None:
    """Sweeps, temperature, step."""
    problem = AlfProblem([[0.1, 0.2]], 1)
    for call, argument in (
        (lambda: bip(problem, 0), "sweeps"),
        (lambda: two_sided_quantile(AlfProblem([[0.1, 0.2]] * 4, 1), 0), "sweeps"),
        (lambda: sinkhorn(problem, 0.0), "tau"),
        (lambda: SwitchOffsets(4, 1, alpha=-1), "alpha"),
    ):
        with pytest.raises(ArgumentError) as caught:
            call()
        assert caught.value.argument == argument


def test_empty_batches_pass_through() -> None:
    """No tokens, no prices."""
    problem = AlfProblem(np.zeros((0, 4)), 2)
    for peer in (bip(problem), two_sided_quantile(problem), sinkhorn(problem), expert_choice(problem)):
        assert peer.chosen.shape == (0, 4)


def test_group_limited_routing_equals_a_loop(rng: np.random.Generator) -> None:
    """4 groups of 3, two of them a token; and with all groups it is plain routing."""
    from sfumato_alflb.peers import group_limited

    problem = AlfProblem(rng.random((60, 12)), 3)
    bias = rng.random(12) * 0.2
    chosen = group_limited(problem, bias, 4, 2).chosen
    for total, got in zip(problem.scores + bias, chosen, strict=True):
        strength = [sum(sorted(total[3 * g : 3 * g + 3])[-2:]) for g in range(4)]
        groups = sorted(range(4), key=lambda g: -strength[g])[:2]
        allowed = [e for e in range(12) if e // 3 in groups]
        assert set(np.flatnonzero(got)) == set(sorted(allowed, key=lambda e: -total[e])[:3])
    assert (group_limited(problem, bias, 4, 4).chosen == problem.route(bias).chosen).all()
    for groups, top, argument in ((5, 1, "groups"), (4, 5, "top_groups"), (12, 2, "top_groups")):
        with pytest.raises(ArgumentError) as caught:
            group_limited(problem, bias, groups, top)
        assert caught.value.argument == argument


def test_the_default_step_of_the_switch_loss_is_one_that_balances() -> None:
    """A peer is compared at a setting that suits it: with a tenth of this step MaxVio stays above 0.5."""
    from sfumato_alflb import fixed_scores

    scores = fixed_scores("skew", 1024, 32, np.random.default_rng(1))
    vio = {}
    for peer in (SwitchOffsets(32, 4), SwitchOffsets(32, 4, learning_rate=1.0)):
        for _ in range(300):
            peer.update(scores)
        vio[peer.learning_rate] = max_vio(AlfProblem(scores, 4).route(peer.offsets).loads)
    assert vio[10.0] < 0.05 and vio[1.0] > 0.5
