"""A snapshot brings back everything, as often as wanted, and opens no door."""

import os
import time

import pytest

from sfumato_sandbox import STATELESS, Interpreter, Limits, SandboxError


@pytest.fixture
def session(persistent):
    with persistent.open({}, Limits(timeout_seconds=1, grace_seconds=0.2), snapshots=2, seed=5) as session:
        yield session


def test_variables_files_and_random_state_come_back(session):
    session.step("import random, os\nx = [1]\nos.mkdir('d'); open('d/f', 'w').write('old')")
    mark = session.snapshot()
    first = session.step(
        "x.append(2); open('d/f', 'w').write('new'); open('g', 'w').close(); print(random.random())"
    )
    for _ in range(3):
        session.restore(mark)
        again = session.step("print(x, open('d/f').read(), os.listdir(), random.random())")
        assert again.stdout == f"[1] old ['d'] {first.stdout}"


def test_what_cannot_be_pickled_comes_back(session):
    session.step(
        "import threading\nlock = threading.Lock()\ng = (i * i for i in range(9)); next(g); next(g)\nf = open('a', 'w+')"
    )
    mark = session.snapshot()
    session.step("list(g); del lock")
    session.restore(mark)
    assert session.step("print(next(g), lock.acquire(blocking=False))").stdout == "4 True\n"


def test_restore_works_after_a_kill_and_tells_the_truth(session):
    session.step("x = 1")
    mark = session.snapshot()
    assert session.step("sum(range(10**12))").state == "lost"
    session.restore(mark)
    assert session.step("print(x)").stdout == "1\n"
    assert session.step("import os; os._exit(0)").error.type == "ProcessDied"
    session.restore(mark)
    assert session.step("print(x)").stdout == "1\n"


def test_a_lost_process_that_is_not_restored_takes_its_snapshots_along(session):
    session.step("x = 1")
    mark = session.snapshot()
    session.step("import os; os._exit(0)")
    assert session.step("x").error.missing_name == "x"
    with pytest.raises(KeyError, match="no snapshot"):
        session.restore(mark)


def test_snapshots_of_snapshots_and_the_bound(session):
    marks = []
    for n in range(3):
        session.step(f"x = {n}")
        marks.append(session.snapshot())
    with pytest.raises(KeyError):
        session.restore(marks[0])
    session.restore(marks[1])
    session.step("y = x + 10")
    deeper = session.snapshot()
    session.restore(deeper)
    assert session.step("print(x, y)").stdout == "1 11\n"


def test_a_restored_process_is_confined_and_timed_like_any_other(session):
    mark = session.snapshot()
    session.restore(mark)
    assert session.step("import os; os.fork()").error.type == "PermissionError"
    assert session.step("open('/etc/passwd')").error.type == "PermissionError"
    started = time.monotonic()
    assert session.step("while True: x = 1").state == "kept"
    assert session.step("sum(range(10**12))").state == "lost"
    assert time.monotonic() - started < 3.2


def test_code_cannot_fork_while_snapshots_are_on(session):
    result = session.step(
        "import os\nfor _ in range(3):\n try: os.fork(); print('forked')\n except PermissionError: print('no')"
    )
    assert result.stdout == "no\n" * 3


def test_threads_are_refused(session):
    session.step(
        "import threading, time; threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    )
    with pytest.raises(SandboxError, match="threads"):
        session.snapshot()
    assert session.step("print(1)").ok


def test_tools_without_a_saved_state_are_refused_and_with_one_restored(persistent):
    count = [0]

    def bump():
        count[0] += 1
        return count[0]

    with (
        persistent.open({"bump": bump}, snapshots=1) as session,
        pytest.raises(SandboxError, match="tool_state"),
    ):
        session.snapshot()
    with persistent.open(
        {"bump": bump}, snapshots=1, tool_state=(lambda: count[0], lambda n: count.__setitem__(0, n))
    ) as session:
        session.step("bump()")
        mark = session.snapshot()
        session.step("bump()")
        session.restore(mark)
        assert count == [1] and session.step("print(bump())").stdout == "2\n"
    with persistent.open({"f": lambda: 1}, snapshots=1, tool_state=STATELESS) as session:
        session.snapshot()


def test_snapshots_are_for_persistent_sessions_that_asked(persistent, stateless):
    with persistent.open() as session, pytest.raises(SandboxError, match="snapshots=4"):
        session.snapshot()
    with pytest.raises(ValueError, match="nothing to snapshot"):
        stateless.open(snapshots=1)


def test_nothing_is_left_of_parked_copies(persistent):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with persistent.open(snapshots=3) as session:
            for _ in range(4):
                session.restore(session.snapshot())
    assert len(os.listdir("/proc/self/fd")) == before
    time.sleep(0.1)
    zygote = persistent._zygote.process.pid
    with open(f"/proc/{zygote}/task/{zygote}/children") as file:
        assert len(file.read().split()) <= 2


CODE = "import math as m, threading\nx = {'a': [1, 2]}\nlock = threading.Lock()\ndef f(n): return n + x['a'][1]\nbig = 'z' * 100_000"


def test_saved_variables_outlive_the_process_and_the_rest_is_named(persistent):
    with persistent.open() as session:
        session.step(CODE)
        saved = session.save()
        assert session.step("print(len(big))").stdout == "100000\n", "the session goes on"
        assert session.step("import os; print(os.listdir())").stdout == "[]\n"
    assert {"m", "x", "big"} <= set(saved.names) and "lock" in saved.missed and saved.log[0] == CODE
    with persistent.open() as session:
        assert session.load(saved).keys() == {"f"} if "f" in saved.names else {}
        assert session.step("print(x, m.pi > 3, len(big))").stdout == "{'a': [1, 2]} True 100000\n"
        assert session.step("lock").error.missing_name == "lock"


def test_functions_are_saved_where_cloudpickle_is_declared():
    pytest.importorskip("cloudpickle", reason="extra 'durable'")
    with Interpreter(packages=("cloudpickle",)) as interpreter:
        with interpreter.open() as session:
            session.step(CODE)
            saved = session.save()
        with interpreter.open() as session:
            assert session.load(saved) == {}
            assert session.step("print(f(1))").stdout == "3\n"


def test_a_hostile_pickle_runs_in_the_sandbox_alone(persistent, tmp_path):
    target = tmp_path / "reached"
    with persistent.open() as session:
        session.step(f"class Bomb:\n def __reduce__(self): return (open, ({str(target)!r}, 'w'))\nb = Bomb()")
        saved = session.save()
    with persistent.open() as session:
        assert "PermissionError" in session.load(saved)["b"]
        assert session.step("print(1)").ok
    assert not target.exists()


def test_saving_that_never_ends_is_stopped(session):
    session.step("class Slow:\n def __reduce__(self):\n  while True: x = 1\ns = Slow()")
    with pytest.raises(SandboxError, match="no answer within 1 s"):
        session.save()
    assert session.step("print(1)").stdout == "1\n"
