"""Beliefs: weighted particles, the SIR filter that keeps them, and the exact filter for models that can be listed.

Source of the filter: Gordon, Salmond, Smith, "Novel approach to nonlinear/non-Gaussian Bayesian state estimation", 1993;
systematic resampling: Kitagawa, "Monte Carlo filter and smoother", 1996.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from sfumato_vopp.errors import BeliefError, DegenerateBelief
from sfumato_vopp.model import Array, Model

__all__ = ["Belief", "ExactFilter", "ParticleFilter", "effective_sample_size", "normalise_log", "systematic"]


@attrs.frozen(eq=False)
class Belief:
    """A distribution over states as weighted samples.

    Attributes:
        particles: [N, state_width].
        weights: float64 [N], not negative, summing to one; or None when all are equal.
    """

    particles: Array
    weights: Array | None = None

    @staticmethod
    def of(value: Any, state_width: int) -> Belief:
        """Make a checked belief of a Belief, a pair (particles, weights), or particles alone.

        Raises:
            BeliefError: no particles, a wrong shape, or weights that are negative, not finite or all zero.
        """
        if isinstance(value, Belief):
            particles, weights = value.particles, value.weights
        elif isinstance(value, tuple):
            if len(value) != 2:
                raise BeliefError(f"expected a pair (particles, weights), got a tuple of {len(value)}")
            particles, weights = value
        else:
            particles, weights = value, None
        if not hasattr(particles, "shape"):
            particles = np.asarray(particles)
        if len(particles.shape) == 1 and state_width == 1:
            particles = particles[:, None]
        if len(particles.shape) != 2 or particles.shape[1] != state_width:
            raise BeliefError(f"expected particles of shape [N, {state_width}], got {tuple(particles.shape)}")
        if len(particles) == 0:
            raise BeliefError("expected at least one particle, got an empty belief; check the filter before planning")
        if particles.dtype == object:
            raise BeliefError(f"expected numeric particles, got dtype {particles.dtype}")
        floating = isinstance(particles, np.ndarray) and np.issubdtype(particles.dtype, np.floating)
        if floating and not np.all(np.isfinite(particles)):
            raise BeliefError("expected finite particles, got NaN or infinity; check the filter before planning")
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            if weights.shape != (len(particles),):
                raise BeliefError(f"expected one weight a particle, shape ({len(particles)},), got {weights.shape}")
            total = float(weights.sum())
            if not np.isfinite(total) or np.any(weights < 0):
                raise BeliefError("expected finite weights that are not negative; give linear, not logarithmic, weights")
            if total <= 0:
                raise BeliefError("expected a positive weight somewhere, got all zero: the belief is impossible")
            weights = weights / total
        return Belief(particles, weights)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n states with replacement; [n, state_width]."""
        return self.particles[rng.choice(len(self.particles), n, p=self.weights)]

    def probability(self, event: Array) -> float:
        """Return the probability of an event given as flags [N]."""
        return float(np.mean(event) if self.weights is None else np.sum(self.weights[event]))


def normalise_log(log_weights: Array) -> tuple[Array, float]:
    """Return weights [N] that sum to one and the log of the sum before; (zeros, -inf) when nothing is possible."""
    top = float(np.max(log_weights, initial=-np.inf))
    if top == -np.inf or np.isnan(top):
        return np.zeros(len(log_weights)), -np.inf
    weights = np.exp(log_weights - top)
    total = float(weights.sum())
    return weights / total, top + float(np.log(total))


def effective_sample_size(weights: Array) -> float:
    """Return 1/Σw² for weights [N] that sum to one."""
    return 1.0 / float(np.sum(weights * weights))


def systematic(weights: Array, n: int, rng: np.random.Generator) -> Array:
    """Return n indices by systematic resampling of weights [N]; one random number, O(N + n)."""
    points = (np.arange(n) + rng.random()) / n
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative, points * cumulative[-1], side="right"), len(weights) - 1)


class ParticleFilter:
    """Sampling-importance-resampling filter with N particles, weights in log space.

    After each action: propagate every particle, drop the terminal ones, weigh by the likelihood of the observation. Weights
    are kept while the effective sample size is at least ``ess_fraction``·N and resampled systematically below it. When no
    particle explains the observation it draws up to four more times, then asks the model's ``reinvigorate``, and then
    raises.

    Arguments:
        model: the POMDP.
        n_particles: N.
        rng: the only source of randomness.
        belief: where to start; the model's initial belief when not given.
    """

    def __init__(
        self,
        model: Model,
        n_particles: int,
        rng: np.random.Generator,
        belief: Any = None,
        ess_fraction: float = 0.5,
    ) -> None:
        if n_particles < 1:
            raise BeliefError(f"expected at least one particle, got {n_particles}")
        self._model, self._n, self._rng, self._ess = model, n_particles, rng, ess_fraction
        self._history: list[tuple[int, int]] = []
        self.log_evidence = 0.0
        if belief is None:
            self._belief = Belief(model.initial(n_particles, rng))
        else:
            start = Belief.of(belief, model.state_width)
            self._belief = Belief(start.sample(n_particles, rng))

    @property
    def belief(self) -> Belief:
        """The belief now."""
        return self._belief

    def update(self, action: int, observation: int) -> Belief:
        """Condition on an action carried out and what was then observed; returns the new belief.

        Raises:
            DegenerateBelief: no state explains the observation, not even after reinvigoration.
        """
        self._history.append((int(action), int(observation)))
        prior = self._belief
        for attempt in range(5):
            source, log_prior = prior.particles, prior.weights
            if attempt > 0 or len(source) != self._n:
                source, log_prior = prior.sample(self._n, self._rng), None
            states, log_weights = self._propagate(source, log_prior, action, observation)
            weights, evidence = normalise_log(log_weights)
            if evidence > -np.inf:
                self.log_evidence += evidence
                self._belief = self._resample(prior, states, weights, action, observation)
                return self._belief
        repaired = self._model.reinvigorate(
            prior.sample(self._n, self._rng), int(action), int(observation), prior.particles[:0], self._rng
        )
        if len(repaired) == 0:
            raise DegenerateBelief(
                f"no particle explains observation {observation} after action {action} (step {len(self._history)}); "
                "use more particles, a wider likelihood, or give the model a reinvigorate method",
                tuple(self._history),
            )
        self._belief = Belief(repaired)
        return self._belief

    def _propagate(self, source: Array, weights: Array | None, action: int, observation: int) -> tuple[Array, Array]:
        actions = np.full(len(source), action, np.int64)
        out = self._model.step(source, actions, self._rng)
        alive = ~out.terminal
        states = out.states[alive]
        if len(states) == 0:
            return states, np.zeros(0)
        log_weights = self._model.log_likelihood(int(observation), source[alive], int(action), states)
        if weights is None:
            return states, log_weights - np.log(len(source))
        with np.errstate(divide="ignore"):
            return states, log_weights + np.log(weights[alive])

    def _resample(self, prior: Belief, states: Array, weights: Array, action: int, observation: int) -> Belief:
        kept: Array | None = weights
        if effective_sample_size(weights) < self._ess * self._n or len(states) != self._n:
            states, kept = states[systematic(weights, self._n, self._rng)], None
        fresh = self._model.reinvigorate(prior.particles, int(action), int(observation), states, self._rng)
        return Belief(fresh, kept if len(fresh) == len(states) else None)


class ExactFilter:
    """The exact Bayes filter over the states that are possible, for models that list their outcomes.

    Cost per update: the size of the support times the outcomes of a state. Equal states are merged.
    """

    def __init__(self, model: Model, belief: Any = None) -> None:
        start = model.initial_distribution() if belief is None else None
        if belief is not None:
            given = Belief.of(belief, model.state_width)
            weights = given.weights
            start = (given.particles, np.full(len(given.particles), 1.0 / len(given.particles)) if weights is None else weights)
        if start is None or model.transitions(start[0][:1], 0) is None:
            raise BeliefError(
                f"{type(model).__name__} does not list its start states and outcomes (initial_distribution, transitions); "
                "use ParticleFilter"
            )
        self._model = model
        self._history: list[tuple[int, int]] = []
        self._belief = _merged(np.asarray(start[0]), np.asarray(start[1], np.float64))
        self.log_evidence = 0.0

    @property
    def belief(self) -> Belief:
        """The belief now: every possible state once, with its probability."""
        return self._belief

    def update(self, action: int, observation: int) -> Belief:
        """Condition on an action and an observation; returns the new belief.

        Raises:
            DegenerateBelief: the observation has probability zero.
        """
        self._history.append((int(action), int(observation)))
        particles, weights = self._belief.particles, self._belief.weights
        outcomes = self._model.transitions(particles, int(action))
        assert outcomes is not None and weights is not None
        alive = ~outcomes.terminal
        source, states = outcomes.source[alive], outcomes.states[alive]
        likelihood = self._model.log_likelihood(int(observation), particles[source], int(action), states)
        with np.errstate(divide="ignore"):
            log_joint = np.log(weights[source] * outcomes.probabilities[alive]) + likelihood
        posterior, evidence = normalise_log(log_joint)
        if evidence == -np.inf:
            raise DegenerateBelief(
                f"observation {observation} after action {action} has probability zero under the belief (step "
                f"{len(self._history)}); check that the observation was made after this action",
                tuple(self._history),
            )
        self.log_evidence += evidence
        self._belief = _merged(states, posterior)
        return self._belief


def _merged(states: Array, weights: Array) -> Belief:
    """Return a belief in which every state occurs once and none has probability zero."""
    states, weights = states[weights > 0], weights[weights > 0]
    unique, inverse = np.unique(states, axis=0, return_inverse=True)
    return Belief(unique, np.bincount(inverse.reshape(-1), weights=weights, minlength=len(unique)))
