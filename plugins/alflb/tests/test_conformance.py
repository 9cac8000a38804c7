from __future__ import annotations

import pytest

pytest.importorskip("sfumato", reason="needs the extra 'sfumato'")

from sfumato.testing import pytest_generate_tests as pytest_generate_tests
from sfumato.testing import test_plugin_keeps_its_promise as test_plugin_keeps_its_promise


@pytest.fixture
def sfumato_plugin() -> str:
    """The plugin whose promises are checked."""
    return "alflb"
