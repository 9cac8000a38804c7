"""Beliefs and filters."""

import numpy as np
import pytest

from sfumato_vopp import Belief, BeliefError, DegenerateBelief, ExactFilter, ParticleFilter, RockSample, Tiger
from sfumato_vopp.belief import effective_sample_size, normalise_log, systematic


def test_the_exact_filter_follows_bayes_rule_on_tiger() -> None:
    # After k net agreeing sounds the odds are (0.85/0.15)^k.
    exact = ExactFilter(Tiger())
    for observation, net in ((0, 1), (0, 2), (1, 1), (0, 2), (0, 3)):
        belief = exact.update(0, observation)
        odds = (0.85 / 0.15) ** net
        assert belief.probability(belief.particles[:, 0] == 0) == pytest.approx(odds / (1 + odds), abs=1e-12)
    belief = exact.update(1, 0)
    assert belief.probability(belief.particles[:, 0] == 0) == pytest.approx(0.5)


@pytest.mark.parametrize(("model", "actions"), [(Tiger(), [0, 0, 0]), (RockSample(), [1, 6, 6, 1, 8, 12])])
def test_particles_agree_with_the_exact_filter(model, actions, rng) -> None:  # type: ignore[no-untyped-def]
    n = 20_000
    exact, particles = ExactFilter(model), ParticleFilter(model, n, rng, ess_fraction=0.9)
    state = model.initial(1, rng)
    for action in actions:
        out = model.step(state, np.array([action]), rng)
        state = out.states
        exact.update(action, int(out.observations[0]))
        particles.update(action, int(out.observations[0]))
    truth = exact.belief
    keep = truth.weights > 5 / n
    got = np.array([particles.belief.probability((particles.belief.particles == s).all(axis=1)) for s in truth.particles[keep]])
    expected = truth.weights[keep] / truth.weights.sum()
    chi2 = np.sum(n * (got - expected) ** 2 / expected)
    freedom = keep.sum() - 1
    # Resampled particles are fewer independent draws than n, so the bound is wider than that of the χ² law.
    assert chi2 < 4 * (freedom + 4 * np.sqrt(2 * freedom) + 4)
    assert particles.log_evidence == pytest.approx(exact.log_evidence, abs=0.1)


def test_an_impossible_observation_is_an_error_with_the_history(rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    for belief_filter in (ExactFilter(model), ParticleFilter(model, 100, rng)):
        belief_filter.update(0, 0)
        with pytest.raises(DegenerateBelief) as caught:
            belief_filter.update(0, 2)  # a move never gives a reading
        assert caught.value.history == ((0, 0), (0, 2))


def test_terminal_particles_leave_the_belief(rng) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    edge, inside = 6, 0
    mixed = np.array([[edge], [inside]] * 50)
    updated = ParticleFilter(model, 200, rng, belief=mixed).update(1, 0)
    assert set(np.unique(updated.particles & 0xFFFF)) == {1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, 1), int), "at least one particle"),
        (np.zeros((5, 2), int), "shape"),
        ((np.zeros((3, 1), int), np.zeros(3)), "impossible"),
        ((np.zeros((3, 1), int), np.array([1.0, -1.0, 1.0])), "not negative"),
        ((np.zeros((3, 1), int), np.ones(4)), "one weight a particle"),
        (np.array([[np.nan]]), "finite particles"),
        ((np.zeros((3, 1), int), np.array([1.0, np.nan, 1.0])), "finite weights"),
    ],
)
def test_bad_beliefs_are_refused(value, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BeliefError, match=message):
        Belief.of(value, 1)


def test_log_weights_far_below_zero_are_normalised() -> None:
    weights, evidence = normalise_log(np.array([-1e5, -1e5 - np.log(3)]))
    np.testing.assert_allclose(weights, [0.75, 0.25])
    assert evidence == pytest.approx(-1e5 + np.log(4 / 3))
    assert normalise_log(np.full(3, -np.inf))[1] == -np.inf
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)


def test_systematic_resampling_keeps_each_count_within_one(rng) -> None:  # type: ignore[no-untyped-def]
    weights = rng.dirichlet(np.ones(50))
    counts = np.bincount(systematic(weights, 1000, rng), minlength=50)
    assert np.all(np.abs(counts - 1000 * weights) <= 1 + 1e-9)
