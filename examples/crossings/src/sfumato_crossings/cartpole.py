"""Gymnasium's CartPole as a POMDP: coarse sensors, no velocities, and a batched model of the same physics.

The world is Gymnasium's own environment; nothing here steps it. The model is what a user would write to plan for it.
Axis letters: B states.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray

from sfumato.gym import GymConfig, GymEpisode, GymTask
from sfumato.protocols import Context
from sfumato.records import Start, Step
from sfumato_crossings.config import CartPoleConfig
from sfumato_vopp import Belief, CompiledModel, Model
from sfumato_vopp import Step as ModelStep

Array = NDArray[Any]
FALLEN, OFF_TRACK = 12 * math.pi / 180, 2.4  # rad, m
SECONDS = 0.02  # of one step


def advance(states: Array, pushes: Array) -> Array:
    """Return the states [B, 4] (m, m/s, rad, rad/s) one Euler step after pushes [B] of N.

    Source: Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction.
    """
    cart, pole, half = 1.0, 0.1, 0.5  # kg, kg, m
    x, speed, angle, spin = states.T
    sine, cosine = np.sin(angle), np.cos(angle)
    drive = (pushes + pole * half * spin**2 * sine) / (cart + pole)
    twist = (9.8 * sine - cosine * drive) / (half * (4.0 / 3.0 - pole * cosine**2 / (cart + pole)))
    thrust = drive - pole * half * twist * cosine / (cart + pole)
    return np.stack([x + SECONDS * speed, speed + SECONDS * thrust, angle + SECONDS * spin, spin + SECONDS * twist], axis=1)


class CartPoleModel(Model):
    """The cart-pole as a planner sees it: states [B, 4] float64, actions 0 (left) and 1 (right), 1 a step while it stands.

    An observation is the pair of sensor marks packed into one number.
    """

    n_actions = 2
    n_observations = None
    discount = 0.97
    state_width = 4
    state_dtype = np.float64
    reward_range = (0.0, 1.0)

    def __init__(self, config: CartPoleConfig) -> None:
        self.marks = np.array([config.position_mark, config.angle_mark])

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states: each number within 0.05 of zero, as Gymnasium does."""
        return rng.uniform(-0.05, 0.05, (n, 4))

    def step(self, states: Array, actions: Array, rng: Any) -> ModelStep:
        """Advance a batch."""
        states = advance(states, np.where(actions == 1, 10.0, -10.0))
        down = self.is_terminal(states)
        return ModelStep(states, self.pack(states[:, [0, 2]]), np.ones(len(states)), down)

    def pack(self, seen: Array) -> Array:
        """Return the numbers of the marks nearest to positions and angles [B, 2]; int64 [B]."""
        nearest = np.rint(seen / self.marks).astype(np.int64)
        return (nearest[:, 0] + 2**15) * 2**16 + nearest[:, 1] + 2**15

    def unpack(self, observation: int) -> Array:
        """Return position (m) and angle (rad) at the marks of an observation."""
        return (np.array(divmod(int(observation), 2**16)) - 2**15) * self.marks

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return the log-likelihood [B] up to a constant: flat between marks, falling off steeply beyond.

        The sensors round, so the likelihood is a box. Soft walls, a fifth of a mark wide, keep a particle that is a hair
        on the wrong side.
        """
        beyond = np.abs(next_states[:, [0, 2]] - self.unpack(observation)) / self.marks - 0.5
        return -12.5 * (np.maximum(beyond, 0.0) ** 2).sum(1)

    def is_terminal(self, states: Array) -> Array:
        """Return whether the pole has fallen or the cart left the track; [B]."""
        return (np.abs(states[:, 0]) > OFF_TRACK) | (np.abs(states[:, 2]) > FALLEN)

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Guess the value: less the farther the pole's and the cart's capture points are from the middle; [B].

        A falling pole of half length l tips over where angle + spin·√(4l/3g) does, whatever its sign now.
        """
        pole = (states[:, 2] + 0.26 * states[:, 3]) / FALLEN
        cart = (states[:, 0] + 0.5 * states[:, 1]) / OFF_TRACK
        return np.clip(1.0 - 0.5 * pole**2 - 0.5 * cart**2, 0.0, 1.0) / (1.0 - self.discount)

    def compiled(self) -> CompiledModel:
        """Return the compiled functions for the fused search."""
        from sfumato_crossings import cartpole_numba as k

        constants = np.array([*self.marks, self.discount])
        return CompiledModel(k.step, k.hint, k.log_likelihood, np.zeros(1, np.int64), constants, "crossings:cartpole:1")

    def make_filter(self, n_particles: int, rng: np.random.Generator, seen: Array) -> SensorFilter:
        """Return a filter that has taken the first reading in: [2], or [history, 2] with the newest last."""
        return SensorFilter(self, n_particles, rng, seen)


class SensorFilter:
    """A regularised particle filter: the physics is exact, so a little jitter keeps the particles apart.

    Attributes:
        belief: N particles [N, 4] of equal weight.
    """

    JITTER = np.array([0.001, 0.005, 0.0005, 0.008])  # m, m/s, rad, rad/s

    def __init__(self, model: CartPoleModel, n: int, rng: np.random.Generator, seen: Array) -> None:
        self._model, self._rng = model, rng
        self._weigh(model.initial(n, rng), np.atleast_2d(seen)[-1])

    def update(self, action: int, seen: Array) -> None:
        """Condition on an action and the reading [2] after it."""
        particles = advance(self.belief.particles, np.full(len(self.belief.particles), 10.0 if action == 1 else -10.0))
        self._weigh(particles + self.JITTER * self._rng.standard_normal(particles.shape), np.atleast_2d(seen)[-1])

    def _weigh(self, particles: Array, seen: Array) -> None:
        model = self._model
        log = model.log_likelihood(int(model.pack(np.asarray(seen)[None])[0]), particles, 0, particles)
        log = np.where(model.is_terminal(particles), -np.inf, log)  # the episode goes on, so nothing has fallen
        weights = np.exp(log - log.max())
        n = len(particles)
        comb = (np.arange(n) + self._rng.random()) / n
        chosen = np.searchsorted(np.cumsum(weights / weights.sum()), comb).clip(max=n - 1)
        self.belief = Belief(particles[chosen])


class CoarseSensors(gymnasium.ObservationWrapper):
    """Shows position and angle alone, each at the nearest mark; float32 [2]."""

    def __init__(self, env: gymnasium.Env[Any, Any], config: CartPoleConfig) -> None:
        super().__init__(env)
        self._marks = np.array([config.position_mark, config.angle_mark])
        high = np.array([2 * OFF_TRACK, 2 * FALLEN], np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def observation(self, observation: Array) -> Array:
        """Round what may be seen."""
        return (np.rint(observation[[0, 2]] / self._marks) * self._marks).astype(np.float32)


class HiddenCartPole(GymTask):
    """CartPole-v1 with or without its velocities; `public` also holds a model of it, for planners."""

    def __init__(self, config: CartPoleConfig = CartPoleConfig()) -> None:
        super().__init__(GymConfig(id="CartPole-v1"))
        self.sensors = config
        self.max_steps = config.max_steps
        self.offers = GymTask.offers | ({"pomdp_model"} if config.hidden else set())  # type: ignore[misc]
        self.model = CartPoleModel(config)

    def make(self) -> gymnasium.Env[Any, Any]:
        """Return a new environment, behind the sensors where they hide something."""
        env = gymnasium.make("CartPole-v1", max_episode_steps=self.sensors.max_steps)
        if not self.sensors.hidden:
            return env
        env = CoarseSensors(env, self.sensors)
        return FrameStackObservation(env, self.sensors.history) if self.sensors.history > 1 else env

    def start(self, instance: int, ctx: Context, rng: np.random.Generator) -> GymEpisode:
        """Begin an episode; the environment's luck follows from the reset seed."""
        return ModelledEpisode(self.make(), instance, self.model) if self.sensors.hidden else super().start(instance, ctx, rng)


class ModelledEpisode(GymEpisode):
    """An episode that also shows the model."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int, model: CartPoleModel) -> None:
        super().__init__(env, seed)
        self._model = model

    def reset(self) -> Start[Any]:
        """Reset with the item's seed."""
        start = super().reset()
        return Start(start.observation, public={**start.public, "pomdp_model": self._model})  # type: ignore[dict-item]

    def step(self, action: Any) -> Step[Any]:
        """Step with a plain whole number, whatever integer type the policy uses."""
        return super().step(int(action))
