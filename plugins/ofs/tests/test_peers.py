"""Peers play the same tasks; skipped where they are not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sfumato.context", reason="needs the core")
from sfumato.context import RunContext
from sfumato_ofs.config import MabwiserConfig, SyntheticConfig, VowpalWabbitConfig
from sfumato_ofs.peers import MabwiserSolver, VowpalWabbitSolver, at_steady_state, fairlearn_answers
from sfumato_ofs.tasks import SyntheticTask

pytestmark = pytest.mark.optional


def play(solver, rounds: int = 150):
    task = SyntheticTask(SyntheticConfig(rounds=rounds, n_thresholds=11))
    ctx = RunContext(indices=range(2))
    (instance,) = list(task.instances(ctx))
    assert solver.supports(task, None) is None
    episode, policy = task.start(instance, ctx, ctx.stream("world", 0)), solver.solve(task, ctx)
    start = episode.reset()
    policy.reset(start, ctx.stream("policy", 0))
    observation, over = start.observation, False
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
    return policy, episode.truth(), instance


@pytest.mark.parametrize("policy", ["ucb1", "softmax", "thompson"])
def test_mabwiser_plays(policy: str) -> None:
    """After trying each arm it settles where the reward is; with a penalty it violates less."""
    pytest.importorskip("mabwiser", reason="needs mabwiser (extra peers)")
    _, free, _ = play(MabwiserSolver(MabwiserConfig(policy=policy)))
    _, held, _ = play(MabwiserSolver(MabwiserConfig(policy=policy, penalty=2.0)))
    assert free["plays"].sum() == 300 and (free["plays"] > 0).all()
    if policy == "ucb1":
        assert held["violation"].mean() < 0.5 * free["violation"].mean()


def test_vowpal_wabbit_plays() -> None:
    pytest.importorskip("vowpalwabbit", reason="needs vowpalwabbit (extra peers)")
    policy, truth, _ = play(VowpalWabbitSolver(VowpalWabbitConfig()))
    assert truth["plays"].sum() == 300
    assert (policy.notes()["recommended"] == truth["plays"].argmax(axis=1)).all()


def test_peers_decline_delayed_labels() -> None:
    task = SyntheticTask(SyntheticConfig(rounds=10, label_delay=3))
    refusal = MabwiserSolver(MabwiserConfig()).supports(task, None)
    assert refusal is not None and "label_delay=0" in refusal.advice


def test_a_rule_at_its_steady_state_by_hand() -> None:
    """Accepting everybody leaves the composition at rest; the reward is good minus bad."""
    groups = np.repeat([0, 1], [6, 4])
    good = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    answer = at_steady_state("all", np.ones(10), good, groups)
    assert (answer.reward, answer.gap, answer.rate, answer.share) == pytest.approx((0.0, 0.0, 1.0, 0.4))


def test_fairlearn_bounds_a_shared_threshold(data_dir: Path) -> None:
    """On COMPAS group thresholds (randomised) earn more than the best shared one at a smaller gap."""
    pytest.importorskip("fairlearn", reason="needs fairlearn (extra peers)")
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra data)")
    from sfumato_ofs import data
    from sfumato_ofs.score_model import out_of_fold_scores

    table = data.load_compas(data_dir / data.COMPAS_MINIMAL_FILE)
    answers = fairlearn_answers(out_of_fold_scores(table), table.good, table.groups, grid_size=9)
    assert answers[0].reward > 0.1367 and abs(answers[0].gap) < 0.02
    for answer in answers:
        assert abs(answer.gap) <= 0.1
