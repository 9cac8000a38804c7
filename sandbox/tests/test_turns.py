"""What an agent is shown."""

import json

import pytest

from sfumato_sandbox.turns import KEPT, LOST, Turns, TurnSettings

TOOLS = {"look": {"signature": "(where: str) -> int", "doc": "Look."}}


def answer(call):
    if call["args"] == ["there"]:
        return {"ok": True, "value": 3}
    return {"ok": False, "kind": "failed", "message": "nothing there"}


@pytest.fixture
def make(persistent, stateless):
    made = []

    def build(lasting=True, **settings):
        turns = Turns(
            persistent if lasting else stateless,
            TurnSettings(**settings),
            lasting,
            "t",
            TOOLS,
            answer,
            2,
            ("json",),
        )
        made.append(turns)
        return turns

    yield build
    for turns in made:
        turns.close()


def test_text_shows_output_then_the_error(make):
    turn = make().act("print(look('there'))\nlook('here')")
    assert turn.observation == (
        '3\n[error]\nTraceback (most recent call last):\n  File "<action 1>", line 2, in <module>\n'
        "    look('here')\nToolError: nothing there"
    )
    assert [c["ok"] for c in turn.info["tool_calls"]] == [True, False]


def test_json_has_the_four_keys(make):
    turn = make(render="json").act("print(1)")
    assert json.loads(turn.observation) == {"success": True, "result": None, "output": "1\n", "error": None}


def test_a_message_is_run_only_with_exactly_one_block(make):
    turns = make()
    assert turns.act({"message": "I think.\n```python\nprint(5)\n```"}).observation == "5"
    none, two = turns.act({"message": "I only think."}), turns.act({"message": "```\nx\n```\n```\ny\n```"})
    assert (none.observation, none.info["ok"], none.info["blocks"]) == ("", True, 0)
    assert "got 2" in two.observation and two.info["error"]["type"] == "FenceError"
    assert [row["ok"] for row in turns.account] == [True, True, False]
    with pytest.raises(TypeError, match="got int"):
        turns.act(3)


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        ("while True: x = 1", "kept", KEPT),
        ("sum(range(10**12))", "lost", LOST),
        ("import os; os._exit(0)", "lost", LOST),
    ],
)
def test_what_is_said_of_the_state_is_true(make, code, state, words):
    turns = make(timeout_seconds=0.3)
    turns.act("mark = 1")
    turn = turns.act(code)
    assert turn.info["state"] == state and words in turn.observation
    assert turns.act("mark").info["ok"] is (state == "kept")


def test_a_name_lost_by_a_reset_counts_as_bound_earlier(make):
    turns = make(lasting=False)
    turns.act("import math\nfound = 1")
    assert [turns.act(c).info["error"]["bound_earlier"] for c in ("found", "math", "never")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("lasting", "cues", "words"),
    [
        (True, "none", ""),
        (True, "globals_list", "Variables that exist now: a, b."),
        (
            False,
            "values_preview",
            "Variables that the last action had and that are gone now: a = 1, b = [1, 2, 3, 4, …].",
        ),
    ],
)
def test_cues_are_independent_of_persistence(persistent, stateless, lasting, cues, words):
    settings = TurnSettings(cues=cues, packages=())
    with settings.interpreter(lasting) as interpreter:
        turns = Turns(interpreter, settings, lasting, "t", TOOLS, answer)
        turn = turns.act("import json\na = 1\nb = [1, 2, 3, 4, 5]")
    assert turn.info["cue"] == words and words not in turn.observation.splitlines()[:0]


def test_the_tasks_cap_holds_unless_the_settings_say_otherwise(make):
    assert make().act("for _ in range(3): look('there')").info["error"]["type"] == "ToolCallLimit"
    assert make(tool_calls_per_action=3).act("for _ in range(3): look('there')").info["ok"]


def test_modules_of_the_task_are_in_every_namespace(make):
    for lasting in (True, False):
        turns = make(lasting)
        assert [turns.act("print(json.dumps([1]))").observation for _ in range(2)] == ["[1]", "[1]"]
