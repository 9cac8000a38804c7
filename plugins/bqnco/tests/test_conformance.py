"""The promises that the core asks of every plugin."""

from __future__ import annotations

import pytest

testing = pytest.importorskip("sfumato.testing", reason="needs the core's conformance suite")
from sfumato.testing import pytest_generate_tests, test_plugin_keeps_its_promise  # noqa: E402, F401


@pytest.fixture
def sfumato_plugin() -> str:
    return "bqnco"
