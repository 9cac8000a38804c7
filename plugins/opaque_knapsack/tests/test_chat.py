"""The policy that talks: what it shows a model, and what it makes of a failing one."""

import json

import numpy as np
import pytest

from sfumato.records import Start, Step
from sfumato_opaque_knapsack.backends import Completion, ModelCallFailed
from sfumato_opaque_knapsack.chat import ChatPolicy, OpenAISolver, ReplaySolver, TransformersSolver
from sfumato_opaque_knapsack.conversation import as_shown, merged, opening, with_cue
from sfumato_opaque_knapsack.instances import generate
from sfumato_opaque_knapsack.prompts import goal, public_part
from sfumato_opaque_knapsack.tasks import EasyTask


class _Model:
    """Gives what it was told to give, in order, and keeps what it was shown."""

    def __init__(self, *answers):
        self.answers, self.shown, self.seeds = list(answers), [], []

    def complete(self, messages, seed):
        self.shown.append(json.loads(json.dumps(list(messages))))
        self.seeds.append(seed)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(text, finish="stop"):
    return Completion(text, finish, prompt_tokens=10, completion_tokens=4, seconds=0.5)


def policy_of(*answers, cue="", seed=0):
    instance = generate("easy", 1)
    public = {
        **public_part(instance),
        "runtime": {"persistent": True, "tool_calls_per_action": 25},
        "cue": cue,
    }
    model = _Model(*answers)
    policy = ChatPolicy(model, profile="matched", prompt="full")
    policy.reset(Start(goal(instance), public), np.random.default_rng(seed))
    return policy, model


def test_a_conversation_grows_by_message_and_observation():
    policy, model = policy_of(said("one"), said("two"))
    assert policy.act("the goal, shown already") == {"message": "one"}
    assert policy.act("printed") == {"message": "two"}
    roles = [m["role"] for m in model.shown[1]]
    assert roles == ["system", "system", "system", "user", "assistant", "user"]
    assert model.shown[1][-1]["content"] == "printed\n"
    notes = policy.notes()
    assert (notes["completion_tokens"], notes["cumulative_tokens"], notes["unique_tokens"]) == (8, 28, 14)
    assert notes["model_seconds"] == 1.0


@pytest.mark.parametrize("failure", ["no answer within 300 s", "expected a chat completion, got garbage"])
def test_a_failed_call_costs_a_turn_is_shown_to_the_model_and_kept(failure):
    """Nothing runs in that turn; the next call sees the failure as a user message; the record has it."""
    policy, model = policy_of(ModelCallFailed(failure), said("again"))
    assert policy.act("") == {"message": ""}
    assert policy.act("") == {"message": "again"}
    assert model.shown[1][-1] == {"role": "user", "content": f"The model call failed: {failure}"}
    assert policy.notes()["model_failures"] == [failure]


def test_a_message_that_was_cut_off_is_not_run():
    policy, model = policy_of(said("```python\ntake_item(", "length"), said("short"))
    assert policy.act("") == {"message": ""}
    assert policy.act("") == {"message": "short"}
    assert "cut off (length)" in model.shown[1][-1]["content"]
    assert model.shown[1][-2]["role"] == "assistant"


def test_a_cue_is_shown_once_and_not_kept():
    policy, model = policy_of(said("one"), said("two"), cue="Names: a")
    policy.act("")
    policy.observe(Step("out", 0.0, False, info={"cue": "Names: b"}))
    policy.act("out")
    assert model.shown[0][-1]["content"] == "Names: a"
    assert model.shown[1][-1]["content"] == "Names: b"
    assert not any(m["content"] == "Names: a" for m in model.shown[1])


def test_every_turn_draws_with_another_seed_and_an_episode_repeats():
    first, model = policy_of(said("a"), said("b"), seed=4)
    first.act("")
    first.act("")
    again, other = policy_of(said("a"), seed=4)
    again.act("")
    assert model.seeds[0] != model.seeds[1]
    assert model.seeds[0] == other.seeds[0]


def test_the_profiles_say_what_they_promise():
    instance = generate("easy", 1)
    public = public_part(instance)
    for persistent in (True, False):
        matched = opening("goal", public, persistent=persistent)
        paper = opening("goal", public, profile="paper", persistent=persistent)
        assert matched == opening("goal", public, persistent=not persistent)
        assert ("permanent" in json.dumps(paper)) == persistent
        assert ("do not survive" in json.dumps(paper)) == (not persistent)
    assert len(opening("goal", public, prompt="short")) == 2
    assert [m["role"] for m in merged(opening("goal", public))] == ["system", "user"]


@pytest.mark.parametrize(
    ("text", "expected"), [("", ""), ("a", "a\n"), ("a\n", "a\n"), ("a\n\n", "a\n"), ("\n", "")]
)
def test_an_observation_ends_in_one_newline_or_is_empty(text, expected):
    assert as_shown(text) == expected
    assert with_cue(text, "cue") == expected + "cue"


@pytest.mark.parametrize(
    ("solver", "option"), [(TransformersSolver(), "-s model="), (ReplaySolver(), "-s traces=")]
)
def test_a_solver_without_its_file_says_what_to_give(solver, option):
    refusal = solver.supports(EasyTask(), object())
    assert option in refusal.advice


def test_a_talking_solver_declines_where_no_code_runs():
    from sfumato.runtimes import Direct

    assert "runtime" in OpenAISolver().supports(EasyTask(), Direct()).advice
