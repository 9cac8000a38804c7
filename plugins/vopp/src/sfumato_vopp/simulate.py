"""Play episodes of a model with a planner: for studies, benchmarks and pictures, without the runner."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from sfumato_vopp.belief import Belief, ExactFilter, ParticleFilter
from sfumato_vopp.model import Array, Model
from sfumato_vopp.planner import Decision

__all__ = ["Episode", "Record", "listed_starts", "play"]

#: Seed of the order in which listed start states are visited; one order for every planner, so episodes are paired.
ORDER_SEED = 20260101


@attrs.frozen
class Record:
    """One step: the belief before it, what was decided, and what came of it."""

    belief: Belief
    decision: Decision
    state: Array
    reward: float
    observation: int


@attrs.frozen
class Episode:
    """One episode.

    Attributes:
        discounted_return: Σ γ^t r_t.
        ended: whether it ended by itself.
        records: its steps; beliefs and decisions are kept only when asked for.
        stats: the planner's statistics of each decision.
    """

    discounted_return: float
    ended: bool
    stats: list[Any]
    records: list[Record]


def listed_starts(model: Model) -> Array | None:
    """Return the start states in the fixed random order, or None when they cannot be listed."""
    listed = model.initial_distribution()
    if listed is None:
        return None
    return listed[0][np.random.default_rng(ORDER_SEED).permutation(len(listed[0]))]


def play(
    planner: Any,
    model: Model,
    episode: int,
    max_steps: int,
    *,
    n_particles: int = 10_000,
    seed: int = 0,
    keep: bool = False,
    start: Array | None = None,
) -> Episode:
    """Play one episode.

    Arguments:
        planner: anything with ``plan(belief)`` and ``reseed(rng)``.
        episode: its number; start state and world depend on it and on ``seed`` alone, so planners can be paired.
        n_particles: of the particle filter, where the exact filter cannot be used.
        keep: keep beliefs and decisions.
        start: [state_width], where the episode starts instead; the belief stays the model's initial one.
    """
    starts = listed_starts(model)
    world, own = np.random.default_rng([seed, 1, episode]), np.random.default_rng([seed, 2, episode])
    if start is not None:
        state = np.asarray(start, model.state_dtype).reshape(1, model.state_width)
    else:
        state = model.initial(1, world) if starts is None else starts[episode % len(starts)][None]
    exact = starts is not None and len(starts) <= 4096 and model.transitions(starts[:1], 0) is not None
    belief: Any = ExactFilter(model) if exact else ParticleFilter(model, n_particles, own)
    planner.reseed(own)
    total, scale = 0.0, 1.0
    stats: list[Any] = []
    records: list[Record] = []
    for _ in range(max_steps):
        decision = planner.plan(belief.belief)
        stats.append(decision.stats)
        out = model.step(state, np.array([decision.action]), world)
        reward, observation = float(out.rewards[0]), int(out.observations[0])
        if keep:
            records.append(Record(belief.belief, decision, state[0].copy(), reward, observation))
        state = out.states
        total += scale * reward
        scale *= model.discount
        if out.terminal[0]:
            return Episode(total, True, stats, records)
        belief.update(decision.action, observation)
        if hasattr(planner, "advance"):
            planner.advance(decision.action, observation)
    return Episode(total, False, stats, records)
