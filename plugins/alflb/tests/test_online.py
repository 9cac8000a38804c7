from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import ArgumentError, BiasRule
from sfumato_alflb.convexity import uniform_modulus
from sfumato_alflb.online import (
    fitted_slope,
    gradient_bound,
    growth_exponent,
    online_run,
    regret_bound,
    regret_slope,
    spectral_slope,
)
from sfumato_alflb.streams import ScoreStream, StreamSpec

T, E, K, N = 256, 16, 2, 3000
MU = uniform_modulus(T, E)


def play(rule: BiasRule, seed: int, n_batches: int = N):
    stream = ScoreStream(StreamSpec(T, E), n_batches, np.random.default_rng(seed))
    return online_run(stream, K, rule, lambda: stream.best_bias)


def test_the_slope_by_hand() -> None:
    """K (1 - K/E)(E - 1)/(2E) for uniform scores, whatever T."""
    assert regret_slope(T, E, K, MU) == pytest.approx(K * (1 - K / E) * (E - 1) / (2 * E))
    assert regret_slope(T, E, K, MU) / T == pytest.approx(0.0032, abs=5e-5)


def test_the_gradient_bound_is_reached_when_all_tokens_agree() -> None:
    """All 10 tokens on experts 0 and 1 of 4."""
    loads = np.array([10, 10, 0, 0])
    assert ((loads - 5) ** 2).sum() == pytest.approx(gradient_bound(10, 4, 2))


def test_regret_grows_with_the_logarithm_at_the_predicted_slope() -> None:
    """T6: the mean of 4 seeds is within 20 % of theory, and far below the worst-case bound."""
    runs = [play(BiasRule("ogd", mu=MU), seed) for seed in range(4)]
    smooth = np.mean([run.smooth for run in runs], axis=0)
    assert fitted_slope(smooth) == pytest.approx(regret_slope(T, E, K, MU), rel=0.2)
    assert smooth[-1] < regret_bound(N, T, E, K, MU)
    assert all((np.diff(run.smooth) >= -1e-9).all() for run in runs)
    # The raw regret is the same quantity with more noise.
    assert np.mean([run.regret[-1] for run in runs]) == pytest.approx(smooth[-1], rel=0.5)


@pytest.mark.parametrize(("name", "u"), [("prop", 0.01), ("sign", 1e-3)])
def test_constant_steps_pay_linearly(name: str, u: float) -> None:
    """After settling, each batch costs the same again: increments over two halves agree."""
    run = play(BiasRule(name, u), 0)
    early = run.smooth[1999] - run.smooth[999]
    late = run.smooth[2999] - run.smooth[1999]
    assert late == pytest.approx(early, rel=0.15) and late > 0


def test_growth_exponents_tell_the_shapes_apart() -> None:
    """On known curves."""
    n = np.arange(1, 5001)
    assert growth_exponent(3.0 * n) == pytest.approx(1.0)
    assert growth_exponent(np.sqrt(n) + 40.0) == pytest.approx(0.5, abs=0.01)
    assert growth_exponent(np.log(n)) == pytest.approx(0.0, abs=0.02)
    assert fitted_slope(2.5 * np.log(n) + 7) == pytest.approx(2.5)


def test_an_empty_stream_is_refused() -> None:
    """Nothing to learn from; nor from NaN, nor from batches of different width."""
    for batches in ([], [np.full((4, 3), np.nan)], [np.ones((4, 3)), np.ones((4, 5))]):
        with pytest.raises(ArgumentError, match="batches"):
            online_run(batches, 1, BiasRule())
    with pytest.raises(ArgumentError, match="k"):
        online_run([np.ones((4, 3))], 3, BiasRule())
    with pytest.raises(ArgumentError, match="mu"):
        regret_slope(4, 4, 1, 0.0)


def test_an_empty_batch_is_no_update() -> None:
    """Damped steps count updates, not batches."""
    batch = np.random.default_rng(0).random((12, 3))
    rule = BiasRule("sign_inv", 0.1)
    with_gap = online_run([np.zeros((0, 3)), batch, batch], 1, rule).bias
    assert with_gap.tolist() == online_run([batch, batch], 1, rule).bias.tolist()


def test_drifting_streams_are_followed(rng: np.random.Generator) -> None:
    """After a shift halfway, a constant step finds balance again; a damped one is slower."""
    vio = {}
    for name, u in [("prop", 0.05), ("prop_inv", 0.5)]:
        stream = ScoreStream(StreamSpec(1024, 8, "shift", spread=0.4), 400, np.random.default_rng(3))
        vio[name] = online_run(stream, 2, BiasRule(name, u)).max_vio
    assert vio["prop"][-50:].mean() < 0.2 < vio["prop"][200]
    assert vio["prop"][210:260].mean() < vio["prop_inv"][210:260].mean()


def test_the_spectral_slope_is_the_plain_one_where_experts_are_alike() -> None:
    """And for one direction of curvature 3 and variance 2 with mu = 2: 3*2/(2*2*(6-2)) = 0.375."""
    alike = np.eye(E) - 1 / E
    noise = T * K * (1 - K / E) / (E - 1) * alike
    assert spectral_slope(MU * alike, noise, MU) == pytest.approx(regret_slope(T, E, K, MU))
    pair = np.array([[0.5, -0.5], [-0.5, 0.5]])
    assert spectral_slope(3 * pair, 2 * pair, 2.0) == pytest.approx(0.375)
    with pytest.raises(ArgumentError, match="mu"):
        spectral_slope(3 * pair, 2 * pair, 6.0)
