from __future__ import annotations

import json

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, ArgumentError, lp_reference
from sfumato_alflb.diagnosis import diagnose, lines


def test_the_report_on_skewed_scores(rng: np.random.Generator) -> None:
    """The optimum is the exact one, one rule proves it, and plain top-K is called unbalanced."""
    scores = 1 / (1 + np.exp(-(rng.standard_normal((512, 16)) + rng.standard_normal(16))))
    found = diagnose(scores, 2, steps=400)
    assert found.optimum.objective == pytest.approx(lp_reference(AlfProblem(scores, 2), "highs-ds").objective)
    assert found.best_max_vio == 0.0 < found.greedy_max_vio and found.greedy_ratio > 1.0
    text = "\n".join(lines(found))
    assert f"{found.optimum.objective:.6f}" in text and "suggested first steps" in text
    assert json.loads(json.dumps(found.to_dict()))["rules"][0]["rule"] == "sign"


def test_a_suggested_step_balances(rng: np.random.Generator) -> None:
    """For sigmoid and for softmax gates: MaxVio below 0.1 within 300 routings."""
    from sfumato_alflb import alf_run

    logits = rng.standard_normal((1024, 16)) + rng.standard_normal(16)
    for scores in (1 / (1 + np.exp(-logits)), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)):
        found = diagnose(scores, 2, steps=5)
        for name in ("prop_sqrt", "prop_inv"):
            run = alf_run(found.problem, name, found.suggested_u[name], steps=300)
            assert run.first_below(0.1) is not None, (name, found.suggested_u)


def test_a_running_bias_is_judged_on_the_batch(rng: np.random.Generator) -> None:
    """No bias is far from the optimum, the optimal prices are at it."""
    scores = rng.random((256, 8)) + np.linspace(0, 0.5, 8)
    best = lp_reference(AlfProblem(scores, 2)).prices
    far, near = (diagnose(scores, 2, steps=1, bias=b) for b in (np.zeros(8), best))
    assert far.running_gap > 0.01 and far.running.max_vio > 0.5
    assert near.running_gap == pytest.approx(0.0, abs=1e-9)
    assert diagnose(scores, 2, steps=1).running_gap is None
    assert any("the given bias" in line for line in lines(far))


def test_regret_on_the_users_own_scores_ends_at_the_predicted_slope(rng: np.random.Generator) -> None:
    """Unequal experts, so that the plain formula does not hold; the mean of three streams is within 30 %."""
    from sfumato_alflb import fitted_slope, regrets

    scores = 1 / (1 + np.exp(-(rng.standard_normal((2048, 8)) + 0.5 * rng.standard_normal(8))))
    found = diagnose(scores, 2, steps=1)
    made = [regrets(found, np.random.default_rng(i), n_batches=1500, n_tokens=128) for i in range(3)]
    curve = np.mean([r.curves["1/(mu n)"] for r in made], axis=0)
    assert fitted_slope(curve, 100) == pytest.approx(made[0].slope, rel=0.3)
    assert len(made[0].curves) == 3 and all((np.diff(c) >= -1e-12).all() for c in made[0].curves.values())
    with pytest.raises(ArgumentError, match="scores"):
        regrets(diagnose(np.full((12, 4), 0.5), 1, steps=1), rng)


def test_tied_scores_are_reported_without_a_curvature() -> None:
    """All equal: nothing to estimate, nothing crashes."""
    found = diagnose(np.full((12, 4), 0.5), 1, steps=10)
    assert found.convexity is None and found.best_max_vio == 0.0
    assert lines(found)


def test_the_command_prints_text_and_json(tmp_path, rng: np.random.Generator) -> None:
    """And refuses k = E by name, with exit status 2."""
    testing = pytest.importorskip("click.testing", reason="needs the extra 'sfumato'")
    from sfumato_alflb.cli import diagnose as command

    path = tmp_path / "scores.npy"
    np.save(path, rng.random((300, 8)))
    runner = testing.CliRunner()
    done = runner.invoke(command, [str(path), "-k", "2", "--steps", "50", "--tokens", "100"])
    assert done.exit_code == 0 and "100 tokens, 8 experts" in done.output
    done = runner.invoke(command, [str(path), "-k", "2", "--steps", "5", "--json"])
    assert json.loads(done.stdout)["n_tokens"] == 300
    np.save(tmp_path / "bias.npy", np.zeros(8))
    done = runner.invoke(
        command, [str(path), "-k", "2", "--steps", "5", "--json", "--bias", str(tmp_path / "bias.npy")]
    )
    assert json.loads(done.stdout)["running_gap"] > 0
    for wrong, message in (
        (["--bias", str(path)], "bias: expected"),
        (["--tokens", "0"], "--tokens: expected"),
        (["--steps", "-1"], "steps: expected"),
    ):
        done = runner.invoke(command, [str(path), "-k", "2", *wrong])
        assert done.exit_code == 2 and message in done.output
    done = runner.invoke(command, [str(path), "-k", "8"])
    assert done.exit_code == 2 and "k: expected" in done.output


@pytest.mark.optional
def test_pictures_are_written(tmp_path, rng: np.random.Generator) -> None:
    """Four files, and a regret plot from curves."""
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    from sfumato_alflb.diagnosis import regrets
    from sfumato_alflb.pictures import regret_curves, save_all

    found = diagnose(rng.random((64, 4)), 1, steps=20)
    online = regrets(found, rng, n_batches=40, n_tokens=32)
    names = save_all(found, tmp_path, rng.integers(1, 9, (10, 4)), online)
    assert len(names) == 4 and all(
        (tmp_path / n).stat().st_size > 1000 for n in ("dual.png", "affinity.png", "load.png", "regret.png")
    )
    assert regret_curves({"a": np.log(np.arange(1, 100))}, 1.0).get_title() == "Regret against log n"
