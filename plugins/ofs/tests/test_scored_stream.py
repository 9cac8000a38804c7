"""Observed scores of one stream: people counted once, unseen groups."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit
from sfumato_ofs.config import ObservedScoresConfig
from sfumato_ofs.constraints import Constraints


def everybody_twice(bandit: ThresholdBandit, n: int = 400) -> None:
    """Each person is in both of two groups, scores spread evenly."""
    scores = (np.arange(n) + 0.5) / n
    bandit.partial_fit(0.5, groups=np.ones((n, 2)), accepted=scores >= 0.5, scores=scores)


def test_people_in_two_groups_count_once_for_the_service_floor() -> None:
    """400 people: the floor's slack is that of 400, not of 800; and a gap between groups of the same people is certain."""
    bandit = ThresholdBandit(corridor=None, observed=ObservedScoresConfig(discount=1.0))
    everybody_twice(bandit)
    _, residuals, _ = bandit._scored.estimates()
    slack = bandit._scored.upper_residuals(0.05) - residuals
    term = np.log(2 * 41 * 2 / 0.05)
    assert slack[:, 2] == pytest.approx(np.full(41, np.sqrt(term / (2 * 400))))
    assert slack[:, :2] == pytest.approx(np.zeros((41, 2)), abs=1e-9)


def test_decayed_people_are_worth_their_effective_number() -> None:
    """(sum w)^2 / sum w^2 with weights 1 and 0.5."""
    bandit = ThresholdBandit(corridor=None, observed=ObservedScoresConfig(discount=0.5))
    everybody_twice(bandit)
    everybody_twice(bandit)
    slack = bandit._scored.upper_residuals(0.05) - bandit._scored.estimates()[1]
    n_eff = (400 + 200) ** 2 / (400 + 100)
    assert slack[0, 2] == pytest.approx(np.sqrt(np.log(2 * 41 * 2 / 0.05) / (2 * n_eff)))


def test_a_group_never_seen_holds_the_incumbent() -> None:
    """Only group 0 applies for ten batches: the incumbent stays, with the reason; then group 1 comes and learning begins."""
    bandit = ThresholdBandit(corridor=None, constraints=Constraints(rho_min=None))
    rng = np.random.default_rng(0)

    def batch(groups: np.ndarray) -> None:
        scores = 0.6 + 0.4 * rng.random(200)
        tau = bandit.select()
        bandit.partial_fit(tau, groups=groups, accepted=scores >= tau, labels=np.ones(200), scores=scores)

    for _ in range(10):
        batch(np.zeros(200, dtype=int))
        assert bandit.select() == 0.5 == bandit.recommend()
        assert bandit.log.last["reason"] == "unseen-group" and bandit.log.last["unseen_groups"] == [1]
    assert bandit.certificate()["certified"] == []
    batch(np.arange(200) % 2)
    assert bandit.select() != 0.5 and bandit.log.last["reason"] == "feasible-optimistic"


def test_with_hidden_scores_too_a_group_never_seen_holds_the_incumbent() -> None:
    """No residual of a gap has been seen: trying another threshold would be a leap in the dark for that group."""
    bandit = ThresholdBandit(policy="ofs", corridor=None)
    for _ in range(5):
        assert bandit.select() == 0.5
        bandit.partial_fit(0.5, groups=np.zeros(200, dtype=int), accepted=[True] * 200, labels=[1.0] * 200)
    assert bandit.select() == 0.5 == bandit.recommend() and bandit.log.last["reason"] == "unseen-group"
    bandit.partial_fit(0.5, groups=np.arange(200) % 2, accepted=[True] * 200, labels=[1.0] * 200)
    assert bandit.select() != 0.5
