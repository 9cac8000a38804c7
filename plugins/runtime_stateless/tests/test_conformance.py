"""The promises that every plugin makes."""

import pytest

from sfumato.testing import pytest_generate_tests as pytest_generate_tests
from sfumato.testing import test_plugin_keeps_its_promise as test_plugin_keeps_its_promise


@pytest.fixture
def sfumato_plugin():
    return "runtime-stateless"
