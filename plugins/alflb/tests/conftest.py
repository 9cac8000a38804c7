"""Shared instances: the fixed score matrices, and small random ones."""

from __future__ import annotations

import numpy as np
import pytest


def fixed_scores(kind: str, n_tokens: int = 4096, n_experts: int = 64) -> np.ndarray:
    """Return the reference matrices: uniform scores, or sigmoid scores with unequal experts."""
    rng = np.random.default_rng(0)
    if kind == "unif":
        return rng.random((n_tokens, n_experts))
    z = rng.standard_normal((n_tokens, n_experts))
    return 1.0 / (1.0 + np.exp(-(z + rng.standard_normal(n_experts))))


@pytest.fixture(scope="session")
def skew() -> np.ndarray:
    return fixed_scores("skew")


@pytest.fixture(scope="session")
def unif() -> np.ndarray:
    return fixed_scores("unif")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251203)
