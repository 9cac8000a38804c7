"""The courses as a Gymnasium environment, with observations of a fixed shape (extra `gym`).

    from sfumato_cpto.gym_env import DrivingEnv
    env = DrivingEnv("occluded-intersection")
    observation, info = env.reset(seed=0)

The action is (speed m/s, yaw rate rad/s), held for one period of 0.1 s. An agent of this package drives such an environment
through `Driver`: `info["scene"]` is what may be known of the scene, `info["observation"]` what the sensors say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from sfumato_cpto.families import FAMILIES
from sfumato_cpto.simulator.world import World

FAR = 1e4  # m, m/s: wider than any scene
FEATURES = 8  # detected, x and y from the vehicle, v_x, v_y, heading, length, width
CONTACT_COST = 100.0  # m of progress


class DrivingEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One family of courses.

    Attributes: observation space: "ego" [6] (x, y, heading, speed, yaw rate, acceleration), "users" [n_users, 8] (see FEATURES;
    rows of users that are not detected are zero). Reward: metres gained along x, less CONTACT_COST at a contact that the
    vehicle is to blame for. Terminated at the goal or such a contact, truncated when time is up.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        family: str = "cruise",
        n_users: int = 32,
        make_world: Callable[[np.random.Generator], Any] | None = None,
    ) -> None:
        """Arguments: family: one of `families.FAMILIES`; make_world: in its place, how to make a world (see `highway`).

        Raises: ValueError for an unknown family.
        """
        if make_world is None:
            if family not in FAMILIES:
                raise ValueError(f"expected a family among {', '.join(FAMILIES)}, got {family!r}")
            scene = FAMILIES[family]
            make_world = lambda rng: World(scene(rng), rng)  # noqa: E731
        self._make, self.n_users = make_world, n_users
        self.world: Any = None
        self.action_space = spaces.Box(np.array([0.0, -1.0]), np.array([30.0, 1.0]), dtype=np.float64)
        self.observation_space = spaces.Dict(
            {
                "ego": spaces.Box(-FAR, FAR, (6,), dtype=np.float64),
                "users": spaces.Box(-FAR, FAR, (n_users, FEATURES), dtype=np.float64),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a course; the same seed gives the same one."""
        super().reset(seed=seed)
        self.world = self._make(np.random.default_rng(int(self.np_random.integers(2**63))))
        observation = self.world.observe()
        return self._fixed(observation), {"scene": self.world.scene.public, "observation": observation}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold (speed, yaw rate) for one period. Raises ValueError when they are not two finite numbers."""
        values = np.asarray(action, dtype=float)
        if values.shape != (2,) or not np.isfinite(values).all():
            raise ValueError(f"expected an action (speed, yaw rate) of two finite numbers, got {action!r}")
        before = float(self.world.ego[0])
        self.world.step(float(values[0]), float(values[1]))
        blamed = any(contact.at_fault for contact in self.world.contacts)
        observation = self.world.observe()
        reward = float(self.world.ego[0]) - before - (CONTACT_COST if blamed else 0.0)
        info = {"observation": observation, "at_fault": blamed, "finished": bool(self.world.finished)}
        ended = bool(self.world.finished or blamed)
        return self._fixed(observation), reward, ended, bool(self.world.timed_out), info

    def _fixed(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen = np.flatnonzero(observation["detected"])
        offset = observation["position"][seen] - observation["ego"][:2]
        # More users than rows: the nearest ones are told.
        seen = seen[np.sort(np.argsort(np.hypot(*offset.T), kind="stable")[: self.n_users])]
        rows = np.zeros((self.n_users, FEATURES))
        rows[: len(seen)] = np.column_stack(
            [
                np.ones(len(seen)), observation["position"][seen] - observation["ego"][:2], observation["velocity"][seen],
                observation["heading"][seen], observation["size"][seen],
            ]
        )  # fmt: skip
        return {"ego": np.clip(observation["ego"], -FAR, FAR), "users": np.clip(rows, -FAR, FAR)}
