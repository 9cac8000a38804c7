"""Levels are asked for, granted or refused in words."""

import subprocess
import sys
import warnings

import pytest

from sfumato_sandbox import Interpreter, IsolationUnavailable, capability


@pytest.fixture
def poor_machine(monkeypatch):
    monkeypatch.setattr(capability, "_probe", lambda: (0, True, (), ("the kernel has no Landlock",)))


def test_strict_refuses_and_says_what_is_missing(poor_machine):
    with pytest.raises(IsolationUnavailable, match="permits 0: the kernel has no Landlock"):
        Interpreter(packages=(), level=1, strict=True)


def test_without_strict_the_level_that_holds_is_told_and_recorded(poor_machine):
    with pytest.warns(UserWarning, match="level 1 asked for, 0 holds"):
        interpreter = Interpreter(packages=(), level=1)
    with interpreter:
        assert interpreter.isolation.level == 0
        with interpreter.open() as session:
            assert session.step("print(1)").isolation_level == 0


def test_a_higher_level_than_needed_is_not_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert capability.isolation(0, strict=True).level == 0


def test_unknown_levels_are_refused():
    with pytest.raises(ValueError, match="0, 1 or 2, got 3"):
        capability.isolation(3, strict=False)


POORER = """
import errno, sys, warnings, pyseccomp
if {denied!r}:
    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in {denied!r}:
        program.add_rule(pyseccomp.ERRNO({error}), name)
    program.load()
from sfumato_sandbox import Interpreter, IsolationUnavailable
from sfumato_sandbox.capability import isolation
warnings.simplefilter("ignore")
found = isolation(2, strict=False)
print(found.level, *found.missing)
with Interpreter(packages=(), level=2) as interpreter, interpreter.open() as session:
    print(session.step("print('ran')").stdout.strip(), session.step("1").isolation_level)
try:
    Interpreter(packages=(), level=found.level + 1, strict=True) if found.level < 2 else print("highest")
except IsolationUnavailable as refusal:
    print("refused")
"""


@pytest.mark.parametrize(
    ("denied", "error", "level", "words"),
    [
        (["unshare"], "errno.EPERM", 1, "user namespaces are refused"),  # as in a container's default profile
        (["landlock_create_ruleset"], "errno.ENOSYS", 0, "no Landlock"),  # an older kernel, or gVisor
        (["seccomp"], "errno.ENOSYS", 0, "refuses a seccomp filter"),
    ],
)
def test_a_machine_that_refuses_something_gives_the_level_below(denied, error, level, words):
    """On a machine made poorer for one process by a filter of its own: the level is found, told, and works."""
    if capability.isolation(2, strict=False).level < 2:
        pytest.skip("this machine permits less than level 2 to begin with")
    code = POORER.format(denied=denied, error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith(str(level)) and words in first
    assert (second, third) == (f"ran {level}", "refused")
