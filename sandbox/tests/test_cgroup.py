"""The sum of all sessions is bounded where the system allows it, and the refusal is plain where not."""

import pathlib

import pytest

from sfumato_sandbox import Interpreter, IsolationUnavailable, Limits, cgroup


@pytest.fixture
def allowed():
    try:
        group = cgroup.ControlGroup(64 << 20, 10)
    except IsolationUnavailable as refusal:
        pytest.skip(str(refusal))
    group.close()


def groups():
    return set(pathlib.Path("/sys/fs/cgroup").rglob("sfumato-*"))


def test_processes_of_all_sessions_together_are_bounded_even_at_level_0(allowed):
    before = groups()
    with Interpreter(packages=(), level=0, total_processes=30, spare=False) as interpreter:
        with interpreter.open({}, Limits(timeout_seconds=3)) as session:
            session.step("import os, time")
            bomb = "made = 0\ntry:\n while made < 200:\n  if os.fork() == 0: time.sleep(60); os._exit(0)\n  made += 1\nexcept OSError: pass\nprint(made)"
            result = session.step(bomb)
            assert 5 < int(result.stdout) < 30
        with interpreter.open() as session:
            assert session.step("print('free again')").stdout == "free again\n"
    assert groups() == before, "the group is gone"


def test_memory_of_all_sessions_together_is_bounded(allowed):
    with Interpreter(packages=(), level=0, total_memory_bytes=200 << 20, spare=False) as interpreter:
        sessions = [interpreter.open({}, Limits(memory_bytes=1 << 30)) for _ in range(2)]
        for session in sessions:
            session.step("hoard = bytearray(b'x') * (150 << 20)")
        after = [session.step("print(len(hoard) >> 20)") for session in sessions]
        assert [result.stdout for result in after].count("150\n") == 1, "the kernel ended one of the two"


def test_a_system_that_allows_none_is_told_about(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "absent")
    with pytest.raises(IsolationUnavailable, match="leave these limits out"):
        Interpreter(packages=(), total_processes=10)
