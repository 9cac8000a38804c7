"""Levels are asked for, granted or refused in words."""

import warnings

import pytest

from sfumato_sandbox import Interpreter, IsolationUnavailable, capability


@pytest.fixture
def poor_machine(monkeypatch):
    monkeypatch.setattr(capability, "_probe", lambda: (0, True, (), ("the kernel has no Landlock",)))


def test_strict_refuses_and_says_what_is_missing(poor_machine):
    with pytest.raises(IsolationUnavailable, match="permits 0: the kernel has no Landlock"):
        Interpreter(level=1, strict=True)


def test_without_strict_the_level_that_holds_is_told_and_recorded(poor_machine):
    with pytest.warns(UserWarning, match="level 1 asked for, 0 holds"):
        interpreter = Interpreter(level=1)
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
