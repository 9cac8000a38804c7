"""The authors' released VOPP (a checkout of RDLLab/VOPP, torch on the CPU) on our RockSample, behind our planner interface.

Only the problem is ours: search, tree, backup and policy are theirs, with their options. Their search clock is wall time; here
it reads this thread's processor time, so that it gets what every planner gets.
"""

from __future__ import annotations

import importlib
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sfumato_vopp import Belief
from sfumato_vopp.models.rocksample_torch import TorchRockSample


class _Draws:
    def random(self, n: int) -> torch.Tensor:
        return torch.rand(n, dtype=torch.float64)


class _Problem:
    """What their code asks of a problem: float states [B, 1], actions [B], observations [B]."""

    def __init__(self, model: TorchRockSample) -> None:
        self._model, self.num_actions, self.obs_shape = model, model.n_actions, (1,)
        self.steps = 0

    def __call__(self, state: torch.Tensor, action: torch.Tensor, active: Any, **_: Any) -> dict[str, torch.Tensor]:
        self.steps += len(state)
        out = self._model.step(state, action.reshape(-1).long(), _Draws())
        return {
            "next_state": out.states, "observation": out.observations, "reward": out.rewards.float(), "terminal": out.terminal
        }  # fmt: skip

    def heuristics(self, state: torch.Tensor, action: torch.Tensor, current_nodes: Any = None) -> torch.Tensor:
        return self._model.value_hint(state, action).float()


class ReleasedVOPP:
    """Their planner: ``plan(belief)`` and ``reseed(rng)``, as ours.

    Arguments: their settings; ``depth`` is their ``max_search_depth``.
    """

    def __init__(
        self, path: str, seconds: float, n: int = 2000, eta: float = 0.5, depth: int = 40, size: tuple[int, int] = (7, 8)
    ) -> None:
        torch.set_num_threads(1)
        if path not in sys.path:
            sys.path.insert(0, path)
        args = SimpleNamespace(
            device="cpu", num_envs=n, eta=eta, max_search_depth=depth, alpha_t=0.5, beta_t=1.0, discount_factor=0.95,
            planning_time_per_step=seconds, max_sampled_episodes=0,
        )  # fmt: skip
        module = importlib.import_module("vopp")
        module.time = SimpleNamespace(time=time.thread_time)  # type: ignore[attr-defined]
        self._problem = _Problem(TorchRockSample(*size))
        self._pomdp = importlib.import_module("pomdp").POMDP(self._problem, num_belief_particles=10_000, num_envs=n, device="cpu")
        self._planner = module.VOPP(args, self._pomdp)
        self._rng = np.random.default_rng(0)

    def reseed(self, rng: np.random.Generator) -> None:
        """Seed torch's global generator, which theirs draws from."""
        self._rng = rng
        torch.manual_seed(int(rng.integers(2**31)))

    def warmup(self) -> None:
        """Do nothing: there is nothing to compile."""

    def plan(self, belief: Belief) -> Any:
        """Return an action and the model steps simulated."""
        particles = torch.as_tensor(belief.sample(10_000, self._rng))
        self._pomdp._update_belief_distr(particles)
        self._problem.steps = 0
        with torch.no_grad():
            action, _ = self._planner.plan()
        return SimpleNamespace(action=int(action), stats=SimpleNamespace(steps=self._problem.steps))
