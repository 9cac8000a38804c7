"""CrowdNav: cross a hall full of people, some curious and some shy, who differ only in how they move.

Source: Hoerger, Sudrajat, Kurniawati, "Vectorized Online POMDP Planning", 2025 (arXiv:2510.27191), §V. One departure: a
pedestrian's speed in the planner's states follows from the type sampled for it; in the released code it is copied from the
world, which gives the hidden type away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.belief import Belief
from sfumato_vopp.errors import BeliefError
from sfumato_vopp.model import Array, CompiledModel
from sfumato_vopp.scalar import ScalarModel

__all__ = ["CrowdFilter", "CrowdNav", "CrowdWorld"]

LENGTH, HALF_WIDTH = 50.0, 20.0
NEAR = 6
YELL = 4
#: x, y steps of the robot in metres.
MOVES = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (0.0, 0.0))
REACH, NOISE = 4.0, 0.05
SPEEDS = (0.8, 0.3)  # shy, curious


class CrowdNav(ScalarModel):
    """The planner's view: the robot and the six nearest pedestrians.

    State, float64 [20]: robot x, y in metres; then x, y and type (0 shy, 1 curious) of each pedestrian. Actions: one metre
    along +x, -x, +y, -y, or yell. Within 4 m a pedestrian moves with probability 0.9, the curious 0.3 m towards the robot,
    the shy 0.8 m away from it; after a yell all of them go 2 m away. All jitter by 0.05 m. Rewards: -1 a step; -200 instead
    when somebody is within 1 m; +1000 at x > 49.99 m, which ends; -25 more for a yell. Observation: six bits, set where the
    distance to the robot's previous position has shrunk.
    """

    n_actions = 5
    n_observations = 1 << NEAR
    state_width = 2 + 3 * NEAR
    state_dtype = np.float64
    reward_range = (-200.0, 0.0)

    def __init__(self, discount: float = 0.95) -> None:
        self.discount = discount
        powers = discount ** np.arange(60)
        self._floats = -(1 - powers) / (1 - discount) + 1000.0 * powers if discount < 1 else 1000.0 - np.arange(60.0)

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n states at the start of the hall, six of 300 pedestrians each; float64 [n, 20]."""
        world = CrowdWorld(rng)
        return CrowdFilter(self, n, rng, world.observe()).belief.particles

    def make_filter(self, n_particles: int, rng: np.random.Generator, observation: Any) -> CrowdFilter:
        """Return the filter of this problem, for its observations are positions and not ids."""
        return CrowdFilter(self, n_particles, rng, observation)

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import crowdnav_numba as k

        return CompiledModel(k.step, k.hint, k.log_likelihood, np.zeros(1, np.int64), self._floats, "builtin:crowdnav")


class CrowdWorld:
    """The hall itself with all its pedestrians.

    Arguments:
        rng: the world's randomness; n_pedestrians: uniform over the hall, curious with probability one half.
    """

    def __init__(self, rng: np.random.Generator, n_pedestrians: int = 300) -> None:
        if n_pedestrians < NEAR:
            raise ValueError(f"expected at least {NEAR} pedestrians, got {n_pedestrians}")
        self._rng = rng
        self.robot = np.array([1.0, 0.0])
        self.people = np.column_stack(
            [rng.uniform(0.0, LENGTH, n_pedestrians), rng.uniform(-HALF_WIDTH, HALF_WIDTH, n_pedestrians)]
        )
        self.curious = rng.random(n_pedestrians) < 0.5

    def observe(self) -> Array:
        """Return what is seen: robot x, y, then number, x, y of the six nearest; float64 [20]."""
        near = np.argsort(np.hypot(*(self.people - self.robot).T), kind="stable")[:NEAR]
        return np.concatenate([self.robot, np.column_stack([near, self.people[near]]).ravel()])

    def step(self, action: int) -> tuple[Array, float, bool]:
        """Carry out an action; returns what is seen, the reward, and whether the far end is reached."""
        rng, away = self._rng, self.people - self.robot
        distance = np.hypot(*away.T)
        unit = away / np.maximum(distance, 1e-9)[:, None]
        draws = rng.random(len(away))
        close = distance <= REACH
        if action == YELL:
            shift = np.where(close, 2.0, 0.0)
        else:
            shift = np.where(close & (draws < 0.9), np.where(self.curious, -SPEEDS[1], SPEEDS[0]), 0.0)
        moved = self.people + shift[:, None] * unit + NOISE * rng.standard_normal(away.shape)
        self.people = np.clip(moved, [0.0, -HALF_WIDTH], [LENGTH, HALF_WIDTH])
        self.robot = np.clip(self.robot + MOVES[action], [0.0, -HALF_WIDTH], [LENGTH, HALF_WIDTH])
        reward = -1.0
        if np.hypot(*(self.people - self.robot).T).min() <= 1.0:
            reward = -200.0
        done = bool(self.robot[0] > LENGTH - 0.01)
        if done:
            reward += 1000.0
        return self.observe(), reward - (25.0 if action == YELL else 0.0), done


class CrowdFilter:
    """Positions are seen; the type of each pedestrian met so far is held as a probability.

    A pedestrian within reach that came nearer is curious with odds 0.77 : 0.23 (it moves with probability 0.9, and a bit is
    trusted with 0.8), one that went away is shy with the same odds; after a yell, or out of reach, nothing is learnt.
    """

    TRUST = 0.8 * 0.95 + 0.2 * 0.05

    def __init__(self, model: CrowdNav, n_particles: int, rng: np.random.Generator, observation: Any) -> None:
        self._n, self._rng = n_particles, rng
        self._curious: dict[int, float] = {}
        self._see(observation)

    def _see(self, observation: Any) -> None:
        seen = np.asarray(observation, np.float64)
        if seen.shape != (2 + 3 * NEAR,) or not np.all(np.isfinite(seen)):
            raise BeliefError(f"expected {2 + 3 * NEAR} finite numbers (robot, then number, x, y of six people), got {seen!r}")
        self._robot, people = seen[:2], seen[2:].reshape(NEAR, 3)
        self._near = {int(row[0]): row[1:] for row in people}

    @property
    def belief(self) -> Belief:
        """The belief now: positions as seen, types drawn independently; [n_particles, 20]."""
        out = np.empty((self._n, 2 + 3 * NEAR))
        out[:, :2] = self._robot
        for i, (number, position) in enumerate(self._near.items()):
            out[:, 2 + 3 * i : 4 + 3 * i] = position
            out[:, 4 + 3 * i] = self._rng.random(self._n) < self._curious.get(number, 0.5)
        return Belief(out)

    def update(self, action: int, observation: Any) -> Belief:
        """Condition on an action and what was seen after it; returns the new belief."""
        robot, before = self._robot, self._near
        self._see(observation)
        for number, position in self._near.items():
            if action == YELL or number not in before:
                continue
            old = float(np.hypot(*(before[number] - robot)))
            if old <= REACH:
                nearer = float(np.hypot(*(position - robot))) < old
                p, trust = self._curious.get(number, 0.5), self.TRUST if nearer else 1.0 - self.TRUST
                self._curious[number] = p * trust / (p * trust + (1.0 - p) * (1.0 - trust))
        return self.belief
