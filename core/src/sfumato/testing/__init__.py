"""Conformance: what every plugin promises, checked. `sfumato check PLUGIN` and a pytest plugin stand on this.

In a plugin's own tests, opt in by `-p sfumato.testing` (or `pytest_plugins = ["sfumato.testing"]` in the root conftest),
supply one fixture, and import the test:

    from sfumato.testing import test_plugin_keeps_its_promise

    @pytest.fixture
    def sfumato_plugin():
        return "my-plugin"

The test runs once for each promise; a failure says which promise was broken, by which call, and how to mend it.
"""

from __future__ import annotations

from typing import Any

from sfumato.testing.promises import PROMISES, Broken, Subject, check

__all__ = ["PROMISES", "Broken", "Subject", "check", "pytest_generate_tests", "test_plugin_keeps_its_promise"]


def pytest_generate_tests(metafunc: Any) -> None:
    """Give the imported test one case a promise."""
    if "sfumato_promise" in metafunc.fixturenames:
        metafunc.parametrize("sfumato_promise", list(PROMISES), ids=list(PROMISES))


def test_plugin_keeps_its_promise(sfumato_plugin: str, sfumato_promise: str) -> None:
    """A plugin keeps each promise of the protocols. One that could not be put to the test is skipped, with the reason."""
    import pytest

    subject = Subject(sfumato_plugin)
    broken = list(PROMISES[sfumato_promise](subject))
    assert not broken, "\n".join(map(str, broken))
    if not subject.tried[sfumato_promise]:
        pytest.skip(f"not tried: {'; '.join(subject.why_not(sfumato_promise))}")
