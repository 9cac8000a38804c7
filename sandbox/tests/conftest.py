"""Interpreters shared by the tests, with the default packages: starting one costs seconds, a session a millisecond."""

from collections.abc import Iterator

import pytest

from sfumato_sandbox import Interpreter
from sfumato_sandbox.capability import isolation

BEST = isolation(2, strict=False)


@pytest.fixture(scope="session")
def persistent() -> Iterator[Interpreter]:
    with Interpreter(persistent=True, level=min(BEST.level, 1)) as interpreter:
        yield interpreter


@pytest.fixture(scope="session")
def stateless() -> Iterator[Interpreter]:
    with Interpreter(persistent=False, level=min(BEST.level, 1)) as interpreter:
        yield interpreter


@pytest.fixture(params=["persistent", "stateless"])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    return request.getfixturevalue(request.param)
