"""What the benchmarks share: paired episodes on one filter and one clock, and intervals."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sfumato_vopp import ExactFilter, ParticleFilter

#: The order in which start states are visited; the same for every planner, so episodes are paired.
ORDER_SEED = 20260101


def interval(values: np.ndarray) -> str:
    """Return mean and 95 % half-width as text."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():7.2f} ± {half:.2f}"


def listed_starts(model: Any) -> np.ndarray | None:
    """Return the start states in the fixed random order, or None when they are not listed."""
    listed = model.initial_distribution()
    if listed is None:
        return None
    return listed[0][np.random.default_rng(ORDER_SEED).permutation(len(listed[0]))]


def play(planner: Any, model: Any, episode: int, max_steps: int, n_particles: int = 10_000) -> tuple[float, bool, list[Any]]:
    """Play one episode; returns discounted return, whether it ended by itself, and the stats of each decision.

    The world's draws depend on the episode alone, the planner's are separate, the filter is exact where it can be.
    """
    starts = listed_starts(model)
    world, own = np.random.default_rng([1, episode]), np.random.default_rng([2, episode])
    state = model.initial(1, world) if starts is None else starts[episode % len(starts)][None]
    exact = starts is not None and len(starts) <= 4096 and model.transitions(starts[:1], 0) is not None
    belief = ExactFilter(model) if exact else ParticleFilter(model, n_particles, own)
    planner.reseed(own)
    total, scale, stats = 0.0, 1.0, []
    for _ in range(max_steps):
        decision = planner.plan(belief.belief)
        stats.append(decision.stats)
        out = model.step(state, np.array([decision.action]), world)
        state = out.states
        total += scale * float(out.rewards[0])
        scale *= model.discount
        if out.terminal[0]:
            return total, True, stats
        belief.update(decision.action, int(out.observations[0]))
    return total, False, stats


def cpu() -> float:
    """Return this process's CPU seconds."""
    return time.process_time()
