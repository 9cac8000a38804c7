"""Promises of a session: what is kept, what is told, what is capped."""

import asyncio
import threading
import time

import pytest

from sfumato_sandbox import Interpreter, Limits, SessionClosed, Tool, ToolCallError, ToolError

FAST = Limits(timeout_seconds=0.3, grace_seconds=0.2)


def test_variables_last_in_a_persistent_session(persistent):
    with persistent.open() as session:
        session.step("x = 1\ndef f(): return x + 1")
        result = session.step("print(f())")
    assert result.ok and result.stdout == "2\n" and result.state == "kept"
    assert [row.name for row in result.globals] == ["x", "f"]


def test_variables_do_not_last_in_a_stateless_session(stateless):
    with stateless.open() as session:
        first = session.step("x = 1")
        second = session.step("x")
    assert first.ok and first.state == "reset"
    assert (
        second.error.type == "NameError" and second.error.missing_name == "x" and second.error.bound_earlier
    )


def test_a_name_never_bound_is_told_apart_from_one_lost(interpreter):
    with interpreter.open() as session:
        assert session.step("never").error.bound_earlier is False


def test_an_exception_keeps_what_was_bound_and_printed_before_it(persistent):
    with persistent.open() as session:
        result = session.step("a = 5\nprint('before')\n1 / 0\nb = 6")
        assert result.stdout == "before\n" and result.error.type == "ZeroDivisionError"
        assert session.step("print(a)").stdout == "5\n"
        assert session.step("b").error.missing_name == "b"


def test_a_traceback_shows_the_frames_of_the_code_alone(persistent):
    with persistent.open() as session:
        session.step("def f(n):\n    return 1 // n")
        trace = session.step("f(0)").error.traceback
    assert "return 1 // n" in trace and '"<action 2>", line 1' in trace and "runner" not in trace
    assert trace.endswith("ZeroDivisionError: integer division or modulo by zero")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("exit()", "SystemExit"),
        ("import sys; sys.exit('bye')", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(): f()\nf()", "RecursionError"),
        ("x = (", "SyntaxError"),
        ("x = '\\0", "SyntaxError"),
        ("a\0b", "ValueError"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("await thing()", "SyntaxError"),
        ("input()", "EOFError"),
        ("class E(Exception):\n def __str__(self): raise ValueError\nraise E", "E"),
        ("raise BaseException('odd')", "BaseException"),
        ("b = bytearray(1 << 34)", "MemoryError"),
        ("[" * 5000 + "]" * 5000, "SyntaxError"),
    ],
)
def test_errors_of_every_kind_are_observations_and_the_state_is_kept(persistent, code, kind):
    with persistent.open() as session:
        session.step("kept = 1")
        result = session.step(code)
        expected = (kind, "ValueError") if kind == "ValueError" else (kind,)
        assert (
            result.error.type in (*expected, "SyntaxError" if "\0" in code else kind)
            and result.state == "kept"
        )
        assert session.step("print(kept)").stdout == "1\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(3)", "status 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
)
def test_a_dead_process_is_an_observation_and_the_loss_is_told(persistent, code, words):
    with persistent.open() as session:
        session.step("gone = 1")
        result = session.step("print('last words', flush=True)\n" + code)
        assert result.error.type == "ProcessDied" and words in result.error.message
        assert result.state == "lost" and result.stdout == "last words\n"
        assert session.step("gone").error.missing_name == "gone"


def test_recursion_through_native_code_is_an_error_or_a_death_but_never_silence(persistent):
    """Python 3.12 and later notice it; before that the stack overflows."""
    with persistent.open() as session:
        code = "import sys; sys.setrecursionlimit(10**9)\nclass A:\n def __repr__(s): return repr([s])\nrepr(A())"
        error = session.step(code).error
        assert error.type == "RecursionError" or "SIGSEGV" in error.message
        assert session.step("print(1)").ok


def test_memory_exhausted_little_by_little_is_a_memory_error(persistent):
    with persistent.open({}, Limits(memory_bytes=64 << 20)) as session:
        result = session.step("hoard = []\nwhile True: hoard.append(bytearray(100_000))")
        assert result.error.type == "MemoryError" and result.state == "kept"
        assert session.step("del hoard\nprint('on')").stdout == "on\n"


def test_a_busy_loop_is_interrupted_and_the_state_kept(persistent):
    with persistent.open({}, FAST) as session:
        session.step("x = 7")
        started = time.monotonic()
        result = session.step("while True: pass")
        assert time.monotonic() - started < 0.3 + 0.5
        assert result.error.type == "ActionTimeout" and result.state == "kept"
        assert session.step("print(x)").stdout == "7\n"


@pytest.mark.parametrize(
    "code",
    [
        "sum(range(10**12))",
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "class E(Exception):\n def __str__(self):\n  while True:\n   try:\n    while True: pass\n   except BaseException: pass\nraise E",
        "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    ],
)
def test_an_action_that_ignores_the_interrupt_is_killed_in_time(persistent, code):
    with persistent.open({}, FAST) as session:
        started = time.monotonic()
        result = session.step("print('so far')\n" + code)
        assert time.monotonic() - started < 0.3 + 0.5
        assert result.error.type == "ActionTimeout" and result.stdout == "so far\n"
        assert result.state in ("lost", "kept")
        alive = session.step("print(1)")
        assert alive.ok and alive.stdout == "1\n"


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(60)", "import threading; threading.Event().wait()"]
)
def test_a_blocking_call_is_interrupted(persistent, code):
    with persistent.open({}, FAST) as session:
        started = time.monotonic()
        result = session.step(code)
        assert result.error.type == "ActionTimeout" and result.state == "kept"
        assert time.monotonic() - started < 0.8


def test_catching_the_interrupt_does_not_make_a_timed_out_action_a_success(persistent):
    with persistent.open({}, FAST) as session:
        result = session.step("import time\ntry: time.sleep(60)\nexcept BaseException: print('caught')")
    assert not result.ok and result.error.type == "ActionTimeout" and result.stdout == "caught\n"


def test_output_is_capped_with_head_and_tail(interpreter):
    with interpreter.open({}, Limits(output_bytes=1000)) as session:
        result = session.step("print('a' * 10_000_000)\nprint('end')")
    (cut,) = result.truncated
    assert (cut.stream, cut.total) == ("stdout", 10_000_005)
    assert (
        result.stdout.startswith("a" * 500)
        and result.stdout.endswith("a\nend\n")
        and len(result.stdout) < 1100
    )
    assert "left out" in result.stdout


def test_every_way_of_writing_is_captured(interpreter):
    code = """
import sys, os, logging, threading
print('print'); sys.stdout.write('write\\n'); print('err', file=sys.stderr); sys.__stdout__.write('dunder\\n')
logging.warning('logged')
t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()
sys.stdout.buffer.write(b'\\xff raw\\n'); sys.stdout.flush(); os.write(1, b'fd\\n'); os.write(2, b'fd2\\n')
print('no newline', end='')
"""
    with interpreter.open() as session:
        result = session.step(code)
    assert result.ok
    assert result.stdout == "print\nwrite\ndunder\nthread\n\ufffd raw\nfd\nno newline"
    assert result.stderr == "err\nWARNING:root:logged\nfd2\n"


def test_closing_stdout_harms_only_the_action_that_does_it(persistent):
    with persistent.open() as session:
        session.step("import sys; sys.stdout.close()")
        assert session.step("print('again')").stdout == "again\n"


def double(n):
    """Twice n."""
    return 2 * n


def test_a_tool_is_a_function_with_its_documentation(interpreter):
    with interpreter.open({"double": Tool("double", double, "(n: int) -> int", "Twice n.")}) as session:
        result = session.step("print(double(21), double(n=4)); print(double.__doc__)")
    assert result.stdout == "42 8\ndouble(n: int) -> int\n\nTwice n.\n"
    assert [(c.name, c.args, c.kwargs, c.value) for c in result.tool_calls] == [
        ("double", [21], {}, 42),
        ("double", [], {"n": 4}, 8),
    ]


def test_values_cross_the_channel_unharmed(interpreter):
    with interpreter.open({"same": lambda value: value}) as session:
        result = session.step(
            "v = [None, True, -5, 2**62, 1.5, 'ü\\n\\u2028', {'a': [1, {'b': ''}]}]\nassert same(v) == v\n"
            "assert same((1, 2)) == [1, 2]\nassert same('') == ''\nassert same(float('inf')) == float('inf')"
        )
    assert result.ok, result.error


@pytest.mark.parametrize(
    "value", ["object()", "{1, 2}", "b'x'", "2**70", "{(1,): 2}", "'a' * 10_000_000", "deep", "loop"]
)
def test_a_value_that_does_not_cross_is_a_tool_call_error(interpreter, value):
    with interpreter.open({"same": lambda value: value}) as session:
        result = session.step(
            "deep = 1\nfor _ in range(3000): deep = [deep]\nloop = []; loop.append(loop)\n"
            f"try: same({value})\nexcept TypeError as e: print(type(e).__name__)"
        )
        assert result.stdout == "ToolCallError\n", result.error


def test_bad_calls_and_refusals_are_two_kinds_of_error(interpreter):
    def refuse(item):
        if not isinstance(item, str):
            raise ToolCallError("item must be a str")
        raise ToolError("no such item")

    with interpreter.open({"refuse": refuse}) as session:
        result = session.step(
            "for a in ((), (1,), ('x',)):\n try: refuse(*a)\n except Exception as e: print(type(e).__name__, e)"
        )
    assert result.stdout.splitlines()[1:] == ["ToolCallError item must be a str", "ToolError no such item"]
    assert result.stdout.startswith(
        "ToolCallError refuse(*args, **kwargs): missing a required argument: 'item'"
    )
    assert [c.kind for c in result.tool_calls] == ["call", "call", "failed"]


def test_a_defect_in_a_tool_is_raised_to_the_host(interpreter):
    def broken():
        raise ZeroDivisionError

    with interpreter.open({"broken": broken}) as session:
        with pytest.raises(ZeroDivisionError):
            session.step("broken()")
        assert session.step("print(1)").stdout == "1\n"


def test_swallowing_the_tool_limit_does_not_make_the_action_a_success(interpreter):
    with interpreter.open({"double": double}, Limits(tool_calls=3)) as session:
        result = session.step("for i in range(9):\n try: double(i)\n except Exception: pass\nprint('done')")
        assert not result.ok and result.error.type == "ToolCallLimit" and len(result.tool_calls) == 3
        assert result.stdout == "done\n"
        assert session.step("double(1)").ok, "the counter begins anew with each action"


def test_time_spent_in_a_tool_is_not_the_actions(interpreter):
    with interpreter.open({"slow": lambda: time.sleep(0.5)}, FAST) as session:
        assert session.step("slow()").ok


def test_tools_get_their_names_back_and_hidden_builtins_appear_again(persistent):
    with persistent.open({"double": double}) as session:
        result = session.step("double = 3; list = 4; mine = 5")
        assert sorted(result.restored) == ["double", "list"]
        assert session.step("print(double(2), list('a'), mine)").stdout == "4 ['a'] 5\n"


def test_a_tool_called_by_a_thread_after_the_action_is_refused(persistent):
    with persistent.open({"double": double}) as session:
        session.step(
            "import threading, time\nlog = []\ndef later():\n time.sleep(0.2)\n try: double(1)\n"
            " except Exception as e: log.append(str(e))\nt = threading.Thread(target=later); t.start()"
        )
        time.sleep(0.4)
        result = session.step("t.join(); print(log)")
    assert "only while an action runs" in result.stdout and not result.tool_calls


def test_the_random_state_follows_the_seed(interpreter):
    def draws(seed):
        with interpreter.open({}, seed=seed) as session:
            return [session.step("import random; print(random.random())").stdout for _ in range(3)]

    assert draws(1) == draws(1) != draws(2)
    assert len(set(draws(1))) == 3


def test_the_order_of_sets_is_the_same_in_every_process(interpreter):
    orders = set()
    for _ in range(3):
        with interpreter.open() as session:
            orders.add(session.step("print({'a', 'b', 'c', 'd', 'e'}, hash('x'))").stdout)
    assert len(orders) == 1


def test_echo_and_await_are_options():
    with (
        Interpreter(packages=(), echo=True, top_level_await=True) as interpreter,
        interpreter.open({}, FAST) as session,
    ):
        assert session.step("x = 20\nx + 1").value_repr == "21"
        assert session.step("import asyncio\nawait asyncio.sleep(0, 'slept')").value_repr == "'slept'"
        stuck = session.step("await asyncio.sleep(60)")
        assert stuck.error.type == "ActionTimeout" and stuck.state == "kept"
        assert session.step("await asyncio.sleep(0, x)").value_repr == "20"
        assert session.step("None").value_repr is None


def test_echo_is_off_unless_asked_for(persistent):
    with persistent.open() as session:
        assert session.step("1 + 1").value_repr is None


def test_reset_forgets_and_close_is_final(persistent):
    with persistent.open() as session:
        session.step("x = 1")
        session.reset()
        assert session.step("x").error.missing_name == "x"
    session.close()
    with pytest.raises(SessionClosed, match="open a new one"):
        session.step("1")


def test_code_that_is_no_text_is_refused(persistent):
    with persistent.open() as session, pytest.raises(TypeError, match="got bytes"):
        session.step(b"1")


def test_a_process_that_dies_between_two_actions_is_told(persistent):
    with persistent.open() as session:
        session.step("import threading, os, time\nx = 1\nthreading.Timer(0.1, os._exit, (4,)).start()")
        time.sleep(0.4)
        result = session.step("print('ran')")
        assert result.state == "lost" and result.stdout == "" and "status 4" in result.error.message


def test_another_thread_can_end_an_action_and_the_state_is_kept(persistent):
    with persistent.open() as session:
        session.step("x = 3")
        threading.Timer(0.3, session.interrupt).start()
        started = time.monotonic()
        result = session.step("import time; time.sleep(60)")
        assert time.monotonic() - started < 1.5
        assert result.error.type == "ActionInterrupted" and result.state == "kept"
        session.interrupt()
        assert session.step("print(x)").stdout == "3\n", "an interrupt between actions is none"


def test_steps_can_be_awaited_side_by_side_and_cancelled(persistent):
    async def scenario():
        with persistent.open() as one, persistent.open() as two:
            started = time.monotonic()
            results = await asyncio.gather(
                *(s.astep("import time; time.sleep(0.5); print(1)") for s in (one, two))
            )
            assert [r.stdout for r in results] == ["1\n", "1\n"] and time.monotonic() - started < 0.95
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.astep("while True: x = 1"), 0.2)
            assert (await one.astep("print(x)")).stdout == "1\n"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "kind"),
    [("x = '\ud800'", "UnicodeEncodeError"), ("print('a\x00b')", "SyntaxError"), ("print(", "SyntaxError")],
)
def test_code_that_is_no_text_of_a_program_is_a_normal_error(interpreter, code, kind):
    """A lone surrogate, as a broken decoder of UTF-8 gives, and a null byte: nothing runs, the session goes on."""
    with interpreter.open() as session:
        result = session.step(code)
        assert (result.ok, result.error.type, result.stdout) == (False, kind, "")
        assert session.step("print(1)").stdout == "1\n"
