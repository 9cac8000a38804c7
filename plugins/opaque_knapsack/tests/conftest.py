"""Shared helpers of the tests."""

from __future__ import annotations

import pytest

from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, Instance, generate
from sfumato_opaque_knapsack.world import World


@pytest.fixture
def easy() -> Instance:
    """The first instance of the evaluation split."""
    return generate("easy", EVAL_SEED_BASE)


@pytest.fixture
def world(easy: Instance) -> World:
    return World(easy)
