"""What the tests share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that is the same in every test."""
    return np.random.default_rng(20261125)


#: Settings under which every search has to build the oracle's tree.
OPTIONS = {
    "default": {},
    "whole tree": {"backup": "tree"},
    "children": {"log_sum": "children"},
    "children, constant": {"log_sum": "children", "backup": "tree", "initial_preference": "constant", "initial_constant": 0.1},
    "all, constant": {"subtract": "all", "initial_preference": "constant"},
    "survivors, mixed": {"denominator": "survivors", "root_mixing": 0.2},
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS.keys())
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    """The options of the method, one combination after another."""
    return request.param  # type: ignore[no-any-return]
