"""Random five-lane planning scenes for verification and benchmarks; every draw from the generator handed in."""

from __future__ import annotations

import numpy as np

from sfumato_cpto.config import Bounds
from sfumato_cpto.problem import Hypotheses, Obstacles, State

LANES = np.array([-7.5, -3.75, 0.0, 3.75, 7.5])
BOUNDS = Bounds(y=(-9.4, 9.4))


def scene(
    rng: np.random.Generator, n_candidates: int, n_obstacles: int = 6, dense: bool = False
) -> tuple[State, Obstacles, Hypotheses]:
    """Return a scene that braking alone could survive.

    The ego vehicle is in the middle lane at 10 to 18 m/s; cars within -20 to 80 m at 7 to 20 m/s, or, dense, ten cars
    within -10 to 65 m at 6 to 12 m/s. Cars of one lane are at least 8 m apart, none starts near the ego vehicle, a
    leader in its lane leaves room to brake at 3 m/s^2, and nobody behind in it is about to run into it. Every
    hypothesis holds every car; the goals are different lanes.
    """
    m = 10 if dense else n_obstacles
    while True:
        speed = rng.uniform(10.0, 18.0)
        lane = rng.integers(0, len(LANES), m)
        x = rng.uniform(-10.0, 65.0, m) if dense else rng.uniform(-20.0, 80.0, m)
        v = rng.uniform(6.0, 12.0, m) if dense else rng.uniform(7.0, 20.0, m)
        if m == 0:
            break
        apart = (
            np.abs(x[:, None] - x[None])
            + np.where(lane[:, None] != lane[None], 100.0, 0.0)
            + 100.0 * np.eye(m)
        )
        distance = np.hypot(x / 6.8, LANES[lane] / 3.2)
        mine = lane == 2
        closing = np.maximum(speed - v, 0.0)
        short = mine & (x > 0.0) & (x < 7.0 + closing**2 / 6.0 + 0.4 * closing)
        chased = mine & (x < 0.0) & (v > speed) & (-x < 8.0 + 2.0 * (v - speed))
        if apart.min() >= 8.0 and distance.min() > 1.15 and not short.any() and not chased.any():
            break
    order = np.argsort(np.hypot(x / 6.8, LANES[lane] / 3.2)) if m else np.zeros(0, dtype=int)
    goals = np.resize(LANES[[2, 3, 1, 4, 0]], n_candidates)
    position = np.stack([x, LANES[lane]], axis=1)[order]
    velocity = np.stack([v, np.zeros(m)], axis=1)[order]
    return (
        State(0.0, 0.0, 0.0, float(speed)),
        Obstacles(position, velocity, np.tile([5.6, 2.9], (m, 1))),
        Hypotheses(np.ones((n_candidates, m), dtype=bool), goals, np.full(n_candidates, 15.0)),
    )
