"""The evaluator recomputes from the world's truth."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato.context", reason="needs the core")
from sfumato.context import RunContext
from sfumato_ofs.config import SyntheticConfig
from sfumato_ofs.errors import OfsError
from sfumato_ofs.evaluators import ClosedLoopEvaluator
from sfumato_ofs.tasks import SyntheticTask


def score(arm: int, recommended: int, rounds: int = 600) -> dict[str, np.ndarray]:
    """Hold one arm for two items and score it."""
    ctx = RunContext(indices=range(2))
    task = SyntheticTask(SyntheticConfig(rounds=rounds))
    (instance,) = list(task.instances(ctx))
    episode = task.start(instance, ctx, ctx.stream("world", 0))
    episode.reset()
    for _ in range(rounds):
        episode.step(np.full(2, arm))
    trace = SimpleNamespace(truth=episode.truth(), notes={"recommended": np.full(2, recommended)})
    return {m.name: np.asarray(m.value) for m in ClosedLoopEvaluator().score(instance, trace)}


def test_holding_the_oracles_arm_has_no_gap_and_no_violation() -> None:
    """Threshold 0.275 held: gap within 0.0005, tail violation 0, recommendation gap exactly 0."""
    figures = score(11, 11)
    assert figures["tail_gap"] == pytest.approx(0.0, abs=5e-4)
    assert figures["tail_violation"] == pytest.approx(0.0, abs=1e-3)
    assert (figures["recommendation_gap"] == 0).all()
    assert (figures["infeasible_plays"] == 0).all()


def test_holding_the_unconstrained_arm_violates_all_the_time() -> None:
    """Threshold 0.45 at rest: gap 0.372 there, so about 0.27 a round; reward above the oracle, so a negative gap."""
    figures = score(18, 18)
    assert (figures["violating_rounds"] == 1).all() and (figures["infeasible_plays"] == 1).all()
    assert (figures["tail_gap"] < -0.03).all()
    assert (figures["recommendation_feasible"] == 0).all()


def test_a_recommendation_cannot_claim_a_value() -> None:
    """Only the arm's index is taken from the policy; its worth is looked up."""
    assert score(11, 20)["recommendation_gap"] == pytest.approx(0.2041228 - 0.2314712, abs=1e-6)


def test_a_trace_without_truth_is_refused() -> None:
    with pytest.raises(OfsError, match="no truth"):
        list(ClosedLoopEvaluator().score(None, SimpleNamespace(truth=None, notes=None)))
