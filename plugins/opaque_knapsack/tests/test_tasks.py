"""The task behind the core's protocols: what an agent may know, and that it cannot reach further."""

import json

import attrs
import numpy as np
import pytest

from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.errors import ProtocolError
from sfumato.runtimes import Direct
from sfumato_opaque_knapsack.config import ExpertConfig, TaskConfig
from sfumato_opaque_knapsack.evaluators import AgentEvaluator, ScoreEvaluator
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, generate
from sfumato_opaque_knapsack.solvers import ExpertSolver
from sfumato_opaque_knapsack.tasks import EasyTask, HardTask, MicroTask


def _episode(task, k=0, ctx=None):
    ctx = ctx or RunContext(indices=range(k, k + 1))
    (instance,) = task.instances(ctx)
    return instance, task.start(instance, ctx, np.random.default_rng(0))


def _text(start):
    return json.dumps([start.observation, start.public], default=str)


def test_nothing_hidden_is_in_what_an_episode_shows_first():
    """Two worlds that differ in hidden facts alone look the same, byte for byte."""
    task = EasyTask()
    instance, episode = _episode(task)
    labels = {item.label for item in instance.items}
    shuffled = attrs.evolve(
        instance,
        items=tuple(
            attrs.evolve(item, weight=other.weight, value=other.value, label=other.label)
            for item, other in zip(instance.items, reversed(instance.items), strict=True)
        ),
        allowed=tuple(sorted(labels))[-3:],
        optimal_value=1,
        optimal_ids=(),
        seed=0,
    )
    other = task.start(shuffled, RunContext(), np.random.default_rng(0))
    assert _text(episode.reset()) == _text(other.reset())


def test_options_reveal_what_they_say_and_declare_it():
    plain, revealing = EasyTask(), EasyTask(TaskConfig(reveal_allowed=True, reveal_items=True))
    assert "allowed" not in plain.offers
    assert {"allowed", "items"} <= revealing.offers
    instance, episode = _episode(revealing)
    start = episode.reset()
    assert start.public["allowed"] == list(instance.allowed)
    assert ", ".join(instance.allowed) in start.observation


def test_tampering_with_what_was_shown_changes_nothing():
    """Public parts and answers are copies: an agent that rewrites them plays the same world."""
    instance, episode = _episode(EasyTask())
    start = episode.reset()
    start.public["capacity"] = 10**9
    start.public["classes"].clear()
    start.public["tools"].clear()
    answer = episode.step({"tool": "inspect", "args": [instance.items[0].id]})
    answer.observation["value"] = '{"class":"A","value":10000,"weight":0}'
    again = episode.step({"tool": "inspect", "args": [instance.items[0].id]})
    assert json.loads(again.observation["value"])["weight"] == instance.items[0].weight
    heavy = [episode.step({"tool": "take_item", "args": [item.id]}) for item in instance.items]
    assert sum(step.reward for step in heavy) <= instance.optimal_value


@pytest.mark.parametrize(
    "action",
    [
        None,
        "finish()",
        [],
        {},
        {"tool": None},
        {"tool": "inspect"},
        {"tool": "inspect", "args": "item", "kwargs": {}},
        {"tool": "inspect", "args": [{"a": 1}], "kwargs": []},
        {"tool": "inspect", "args": [1.5]},
        {"tool": "__init__", "args": []},
        {"tool": "outcome"},
        {"tool": ["inspect"]},
    ],
)
def test_hostile_actions_are_answered_and_never_raise(action):
    """A malformed call is answered as one, gains nothing and ends nothing."""
    _, episode = _episode(EasyTask())
    episode.reset()
    step = episode.step(action)
    assert step.observation["ok"] is False
    assert step.observation["kind"] == "call"
    assert (step.reward, step.over) == (0.0, False)


def test_refusals_are_of_the_other_kind():
    _, episode = _episode(EasyTask())
    episode.reset()
    assert episode.step({"tool": "inspect", "args": ["nothing"]}).observation["kind"] == "failed"


def test_finish_ends_the_episode_and_the_call_limit_cuts_it_off():
    _, episode = _episode(MicroTask(TaskConfig(max_calls=2)))
    episode.reset()
    assert not episode.step({"tool": "list_items"}).over
    assert episode.step({"tool": "list_items"}).truncated
    _, episode = _episode(MicroTask())
    assert episode.step({"tool": "finish"}).terminated


def test_a_step_after_the_end_is_an_error():
    _, episode = _episode(MicroTask())
    episode.reset()
    episode.step({"tool": "finish"})
    with pytest.raises(ProtocolError, match="after the episode's end"):
        episode.step({"tool": "list_items"})


def test_item_k_is_the_instance_of_seed_base_plus_k_however_the_work_is_cut():
    """Shards and worker counts do not matter; run seeds and splits give other instances."""
    whole = list(EasyTask().instances(RunContext(indices=range(6))))
    parts = [i for cut in (range(2), range(2, 6)) for i in EasyTask().instances(RunContext(indices=cut))]
    assert whole == parts == [generate("easy", EVAL_SEED_BASE + k) for k in range(6)]
    assert list(EasyTask().instances(RunContext(indices=range(6), seed=1))) != whole
    assert list(EasyTask(TaskConfig(split="train")).instances(RunContext(indices=range(6)))) != whole


def _drive(task, solver, n):
    evaluators = {"score": ScoreEvaluator(), "agent": AgentEvaluator()}
    assert solver.supports(task, Direct()) is None
    result = drive(task, solver, Direct(), evaluators, RunContext(indices=range(n)))
    return result, {m["name"]: m["values"][0] for row in result.rows for m in row["metrics"]}


@pytest.mark.parametrize("policy", ["dp-known", "dp", "greedy", "inspect-10", "oracle-greedy"])
def test_every_reference_policy_runs_under_direct(policy):
    task = HardTask(TaskConfig(reveal_allowed=True, reveal_items=True))
    _, metrics = _drive(task, ExpertSolver(ExpertConfig(policy=policy)), 3)
    assert metrics["finished"] == 1.0
    assert 0 < metrics["score"] <= 1
    assert "turns" not in metrics


def test_the_score_is_recomputed_from_the_calls_and_equals_the_return():
    """Value taken over the optimum, from a replay; the task's own rewards sum to the same value."""
    task = EasyTask()
    result, _ = _drive(task, ExpertSolver(), 5)
    for row, instance in zip(result.rows, task.instances(RunContext(indices=range(5))), strict=True):
        metrics = {m["name"]: m["values"][0] for m in row["metrics"]}
        assert metrics["gap"] == pytest.approx(1 - metrics["score"])
        assert metrics["score"] * instance.optimal_value == pytest.approx(
            round(metrics["score"] * instance.optimal_value)
        )


def test_a_policy_that_does_not_fit_says_what_to_set():
    refusal = ExpertSolver(ExpertConfig(policy="dp-known")).supports(EasyTask(), Direct())
    assert refusal is not None
    assert "reveal_allowed=true" in refusal.advice
    refusal = ExpertSolver(ExpertConfig(writer="stateless")).supports(EasyTask(), Direct())
    assert refusal is not None
    assert "runtime-stateless" in refusal.advice
