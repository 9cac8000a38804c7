"""The guarantees on a frozen population, at a size that a test can afford; the claim counts 1,000 seeds."""

from __future__ import annotations

from sfumato_ofs.studies import named_loop
from sfumato_ofs.theory import count_failures


def test_no_guarantee_fails_more_often_than_delta() -> None:
    """200 seeds, 300 rounds: at most 5% break (a), (b), (c) or (d), and the bounds are not empty talk."""
    found = count_failures(named_loop("frozen", n_thresholds=11), 200, 300)
    assert all(share <= 0.05 for share in found.failures.values())
    assert found.used["d"] > 0.1


def test_a_frozen_loop_stays_where_it_is() -> None:
    import numpy as np

    loop = named_loop("frozen")
    state = loop.rest(3)
    moved = loop.advance(state, np.array([[0.9, 0.1], [0.0, 1.0], [np.nan, 0.5]]))
    assert np.abs(moved - state).max() < 1e-15
