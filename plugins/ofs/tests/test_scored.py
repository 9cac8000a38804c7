"""Counts by grid cell."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.loops import BetaLoop, Counts, PoolLoop, batch_reward
from sfumato_ofs.scored import CellSampler


@pytest.mark.parametrize("arm", [0, 11, 20, 33])
def test_every_applicant_drawn_agrees_with_the_binomials(beta_loop: BetaLoop, arm: int) -> None:
    """1,000 seeds: rates and reward agree in mean and variance, 4 standard errors."""
    n = 1000
    state, arms = beta_loop.rest(n), np.full(n, arm)
    cells = CellSampler(beta_loop, [np.random.default_rng([1, arm, k]) for k in range(n)]).draw(state, arms)
    ours = Counts(*(part.sum(axis=2) for part in (cells.applicants, cells.labelled, cells.good)))
    theirs = beta_loop.draw(state, arms, np.random.default_rng(arm).random((n, beta_loop.n_uniforms)))
    assert (ours.applicants.sum(axis=1) == 200).all()
    pairs = [
        (batch_reward(ours, 1.0), batch_reward(theirs, 1.0)),
        *zip(ours.rates().T, theirs.rates().T, strict=True),
    ]
    for a, b in pairs:
        assert abs(a.mean() - b.mean()) < 4 * np.sqrt((a.var() + b.var()) / n) + 1e-12
        assert abs(a.var() - b.var()) < 4 * max(a.var(), b.var()) * np.sqrt(4.0 / n) + 1e-12


def test_cells_of_a_pool_are_its_histogram(small_pool: PoolLoop) -> None:
    """Scores on grid points fall into the cell above that point; rejected cells show no outcome."""
    cells = CellSampler(small_pool, [np.random.default_rng(k) for k in range(400)]).draw(
        small_pool.rest(400), np.full(400, 2)
    )
    share = cells.applicants.sum(axis=0) / cells.applicants.sum(axis=(0, 2))[:, None]
    assert share[0] == pytest.approx([0.0, 0.2, 0.2, 0.2, 0.2, 0.2], abs=0.01)
    assert share[1] == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.2, 0.0], abs=0.01)
    assert (
        cells.labelled[:, :, :3].sum() == 0 and (cells.labelled[:, :, 3:] == cells.applicants[:, :, 3:]).all()
    )
    quality = cells.good.sum(axis=0)[1, 3] / cells.labelled.sum(axis=0)[1, 3]
    assert quality == pytest.approx(0.5, abs=0.02)


def test_splines_stand_in_for_the_beta_function(beta_loop: BetaLoop) -> None:
    """Below 1e-9 everywhere on the clipped range of means."""
    state = beta_loop.rest(400)
    state[:, :2] = np.random.default_rng(0).uniform(0.05, 0.95, (400, 2))
    accept, good = beta_loop.profile(state)
    for k in range(0, 41, 5):
        exact_accept, exact_good = beta_loop.expectations(state, np.full(400, k))
        assert np.abs(accept[:, :, k] - exact_accept).max() < 1e-9
        assert np.abs(good[:, :, k] - exact_good).max() < 1e-9
