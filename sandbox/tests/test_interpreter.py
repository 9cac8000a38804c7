"""The warmed process: what happens when it cannot start, and when it dies."""

import os
import signal
import time

import pytest

from sfumato_sandbox import Interpreter, SandboxError, SessionClosed, zygote


def test_a_zygote_that_fails_to_start_is_an_error_with_its_last_words(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no such luck')")
    monkeypatch.setattr(zygote, "MAIN", broken)
    with pytest.raises(SandboxError, match="RuntimeError: no such luck"):
        Interpreter(packages=())


def test_sessions_end_with_the_interpreter_and_say_so():
    interpreter = Interpreter(packages=())
    session = interpreter.open()
    session.step("1")
    interpreter.close()
    interpreter.close()
    with pytest.raises(SessionClosed):
        interpreter.open()
    with pytest.raises(SessionClosed, match="or its interpreter"):
        session.step("1")
    before = len(os.listdir("/proc/self/fd"))
    session.close()
    session.close()
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_killed_zygote_takes_its_children_along_and_is_told():
    interpreter = Interpreter(packages=())
    session = interpreter.open()
    pid = int(session.step("import os; print(os.getpid())").stdout)
    os.kill(interpreter._zygote.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}"), "the child asked to die with its parent"
    with pytest.raises(SandboxError, match="open a new"):
        session.step("1")
    session.close()
    root = interpreter._zygote.root
    interpreter.close()
    assert not os.path.exists(root)


def test_a_forgotten_interpreter_is_cleaned_up():
    interpreter = Interpreter(packages=())
    process, root = interpreter._zygote.process, interpreter._zygote.root
    del interpreter
    assert process.wait(5) is not None and not os.path.exists(root)


def test_importing_the_package_is_light():
    import subprocess
    import sys

    code = "import sys, sfumato_sandbox; print([m for m in ('attrs', 'attr', 'numpy', 'pyseccomp') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
