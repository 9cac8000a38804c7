"""The runtime as the driver sees it, with a task small enough to check by hand."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sfumato.errors import ProtocolError
from sfumato.protocols import Episode
from sfumato.records import Start, Step
from sfumato_runtime_persistent import PersistentConfig, PersistentPython

PUBLIC = {
    "tools": {
        "add": {"signature": "(n: int) -> int", "doc": "Add n to the total and return it."},
        "finish": {"signature": "() -> None", "doc": "End the episode."},
    },
    "tool_calls_per_action": 3,
    "secret_of_nobody": 1,
}


class Counter(Episode):
    """Adds up numbers; the reward is the number added; 13 is refused."""

    def __init__(self):
        self.total = 0
        self.calls = []

    def reset(self):
        return Start("Add up.", PUBLIC)

    def step(self, action):
        self.calls.append(action)
        if action["tool"] == "finish":
            return Step({"ok": True, "value": None}, 0.0, True)
        if not (len(action["args"]) == 1 and type(action["args"][0]) is int):
            return Step({"ok": False, "kind": "call", "message": "add takes one int"}, 0.0, False)
        (n,) = action["args"]
        if n == 13:
            return Step({"ok": False, "kind": "failed", "message": "not 13"}, 0.0, False)
        self.total += n
        return Step({"ok": True, "value": self.total}, float(n), False)


class Ctx:
    """The one method of the context that the runtime uses."""

    def stream(self, name, *keys):
        return np.random.default_rng([1, *keys])


@pytest.fixture(scope="module")
def runtime():
    runtime = PersistentPython(PersistentConfig())
    yield runtime
    runtime.close()


@pytest.fixture
def played(runtime):
    native = Counter()
    with runtime.open(native, Ctx()) as session:
        start = session.reset()
        yield native, session, start


def test_public_tells_the_contract(played):
    _, _, start = played
    assert start.observation == "Add up." and start.public["secret_of_nobody"] == 1
    told = start.public["runtime"]
    assert told["persistent"] is True and told["tool_calls_per_action"] == 3 and told["isolation_level"] == 1
    assert "stay from one action to the next" in told["note"]


def test_code_becomes_tool_calls_and_rewards_add_up(played):
    native, session, _ = played
    step = session.step("x = add(2)\nprint(x + add(5))")
    assert (step.observation, step.reward, step.over) == ("9", 7.0, False)
    assert native.calls == [{"tool": "add", "args": [n], "kwargs": {}} for n in (2, 5)]
    assert session.step("print(x)").observation == "2", "variables last"


def test_errors_of_tools_have_their_two_types(played):
    _, session, _ = played
    assert session.step("add('a')").info["error"]["type"] == "ToolCallError"
    assert session.step("add(13)").info["error"]["type"] == "ToolError"


def test_the_cap_stops_calls_before_they_reach_the_task(played):
    native, session, _ = played
    step = session.step("for n in range(9):\n try: add(1)\n except Exception: pass")
    assert native.total == 3 and len(native.calls) == 3 and step.info["error"]["type"] == "ToolCallLimit"


def test_the_end_of_the_episode_passes_through_and_later_calls_do_not(played):
    native, session, _ = played
    step = session.step("finish()\ntry: add(1)\nexcept RuntimeError as e: print(e)")
    assert step.terminated and step.over and step.observation == "the episode is over"
    assert native.total == 0


def test_an_action_after_the_end_is_an_error(played, runtime):
    """However the episode ended; its code could reach nothing."""
    _, session, _ = played
    session.step("finish()")
    with pytest.raises(ProtocolError, match="after the episode was over"):
        session.step("print(1)")
    native = Counter()
    native.reset = lambda: Start("", {**PUBLIC, "max_turns": 1})
    with runtime.open(native, Ctx()) as session:
        session.reset()
        session.step("print(1)")
        with pytest.raises(ProtocolError, match="after the episode was over"):
            session.step("print(1)")


def test_a_second_reset_ends_the_first_process(runtime):
    """Else it lives as long as the program."""
    with runtime.open(Counter(), Ctx()) as session:
        session.reset()
        first = session._turns
        closed = []
        first.close = lambda: closed.append(True)
        session.reset()
        assert closed == [True]
        assert session.step("print(add(2))").observation == "2"
        type(first).close(first)


def test_max_turns_truncates(runtime):
    native = Counter()
    native.reset = lambda: Start("", {**PUBLIC, "max_turns": 2})
    with runtime.open(native, Ctx()) as session:
        session.reset()
        assert [session.step({"message": "no code"}).truncated for _ in range(2)] == [False, True]


def test_truth_is_the_runtimes_own_account(played):
    _, session, _ = played
    session.step("a = 1")
    session.step("b")
    first, second = session.truth()["actions"]
    assert first["ok"] and not second["ok"]
    assert (second["error_type"], second["missing_name"], second["bound_earlier"]) == (
        "NameError",
        "b",
        False,
    )


def test_code_cannot_reach_what_the_host_keeps(played):
    """Tamper: the score, the counters and the task live in another process, which a child cannot read or signal."""
    native, session, _ = played
    step = session.step(
        "import gc, os\nfound = [o for o in gc.get_objects() if type(o).__name__ in ('Counter', 'Recorder', 'Session')]\n"
        "cells = [c.cell_contents for c in add.__closure__ or ()]\nprint(found, [type(c).__name__ for c in cells])\n"
        "for call in (lambda: open(f'/proc/{os.getppid()}/mem', 'rb'), lambda: os.kill(os.getppid(), 9)):\n"
        " try: call(); print('reached')\n except PermissionError: print('refused')"
    )
    assert step.observation == "[] ['str', 'Runner']\nrefused\nrefused" or step.observation == (
        "[] ['Runner', 'str']\nrefused\nrefused"
    )
    assert native.total == 0 and step.reward == 0.0


def test_forged_frames_on_the_channel_change_no_score(played):
    """A child may write to its own channel; what it forges is at best a tool call that counts like any other."""
    native, session, _ = played
    step = session.step(
        "import os, json, struct\n"
        "def forge(message):\n b = json.dumps(message).encode(); os.write(3, struct.pack('<I', len(b)) + b)\n"
        "forge({'t': 'done', 'n': 'guess', 'ok': True, 'reward': 1e9})"
    )
    assert step.info["error"]["type"] == "ProtocolViolation" and step.info["state"] == "lost"
    assert step.reward == 0.0 and native.total == 0
    assert session.step("print(add(1))").observation == "1"


def test_a_task_without_tools_is_refused(runtime):
    native = Counter()
    native.reset = lambda: Start("", None)
    with runtime.open(native, Ctx()) as session, pytest.raises(TypeError, match="'tools', got NoneType"):
        session.reset()


def test_two_episodes_at_once_do_not_meet(runtime):
    one, two = Counter(), Counter()
    with runtime.open(one, Ctx()) as a, runtime.open(two, Ctx()) as b:
        a.reset(), b.reset()
        a.step("x = add(1)")
        assert b.step("x").info["error"]["bound_earlier"] is False
        assert (one.total, two.total) == (1, 0)


def test_the_two_runtimes_differ_in_nothing_but_the_contract():
    """Word for word the same adapter, but for names and the one constant."""
    here = pathlib.Path(__file__).parents[1] / "src/sfumato_runtime_persistent/runtime.py"
    there = pathlib.Path(__file__).parents[2] / "runtime_stateless/src/sfumato_runtime_stateless/runtime.py"
    if not there.exists():
        pytest.skip("the other runtime is not beside this one")
    mine = here.read_text().replace("ersistent", "*").replace("PERSISTENT = True", "?")
    other = there.read_text().replace("tateless", "*").replace("PERSISTENT = False", "?")
    first = [
        a for a, b in zip(mine.splitlines(), other.splitlines()) if a.lower() != b.lower().replace("s*", "p*")
    ]
    assert len(mine.splitlines()) == len(other.splitlines())
    assert [line for line in first if "process" not in line.lower()] == []


def test_eight_episodes_at_once_give_what_they_give_one_by_one(runtime):
    """Results depend on the episode alone: not on its neighbours, nor on the order in which processes are made."""

    def play(k):
        native = Counter()
        seen = []
        with runtime.open(native, Ctx()) as session:
            session.reset()
            for code in (
                f"import random, os\nx = add({k})\nopen('f', 'w').write(str(x))",
                "print(sorted(os.listdir('.')) if 'os' in globals() else 'fresh', random.random() if 'os' in globals() else '')",
                "print({'a', 'b', 'c', add(1)})\nadd('bad')",
                "while True: add(2)",
                "finish()",
            ):
                step = session.step(code)
                seen.append(
                    (
                        step.observation,
                        step.reward,
                        step.over,
                        step.info["error"] and step.info["error"]["type"],
                    )
                )
        return native.calls, seen

    alone = [play(k) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(play, range(16)))
    assert together == alone


def test_doctor_says_which_level_this_machine_permits():
    from sfumato_runtime_persistent import plugin

    (finding,) = plugin.sfumato_doctor()
    assert finding.subject == "runtime-persistent/isolation" and "level" in finding.message
