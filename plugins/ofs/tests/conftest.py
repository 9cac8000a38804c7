"""Shared fixtures: where the real data lies, and small loops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs.constraints import Constraints
from sfumato_ofs.loops import BetaLoop, PoolLoop, shared_arms, threshold_grid


@pytest.fixture
def data_dir() -> Path:
    """The folder with fairness/german.data and the COMPAS file."""
    named = os.environ.get("SFUMATO_DATA")
    if not named or not (Path(named) / "fairness" / "german.data").is_file():
        pytest.skip("SFUMATO_DATA names no folder with fairness/german.data")
    return Path(named)


@pytest.fixture
def beta_loop() -> BetaLoop:
    """Environment A of the reference design."""
    return BetaLoop(shared_arms(threshold_grid(41)))


@pytest.fixture
def constraints() -> Constraints:
    return Constraints(eps=0.10, rho_min=0.30)


@pytest.fixture
def small_pool() -> PoolLoop:
    """Two groups of five people each with scores on grid points, so that `>=` matters."""
    scores = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.25, 0.25, 0.5, 0.5, 0.75])
    good = np.array([0, 0, 1, 1, 1, 0, 1, 0, 1, 1])
    groups = np.repeat([0, 1], 5)
    return PoolLoop(shared_arms(threshold_grid(5)), scores, good, groups)
