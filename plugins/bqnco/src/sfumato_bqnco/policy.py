"""`BQPolicy`: the neural method as one object. Arrays of instances in, complete solutions out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from . import decode, reconstruct, weights
from .decode import Limits, Scorer, Solutions
from .env import Environment, environment
from .errors import WeightsError
from .instances import Plan
from .network import BQNetwork


@frozen(eq=False)
class Result:
    """`solutions`: one for each instance; `cost` float64 [B], minimised (prizes and values count negative);
    `greedy_cost` [B] before re-construction; `rounds`: re-construct rounds done; `merged`: share of beams merged.
    """

    solutions: list[Plan]
    cost: NDArray[np.float64]
    greedy_cost: NDArray[np.float64]
    rounds: int = 0
    merged: float = 0.0


class BQPolicy:
    """A trained network that solves batches of one problem.

    `BQPolicy.shipped("tsp").solve({"xy": points})` with points [B, N, 2] solves B instances; see `generate` for the
    arrays of each problem. Deterministic for a given seed and thread count unless a time limit is set.
    """

    def __init__(self, network: BQNetwork, *, device: str = "cpu", limits: Limits | None = None) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise WeightsError(
                f"device {device!r} was asked for, but torch {torch.__version__} sees no CUDA device; use device='cpu'"
            )
        self.network = network.to(device).eval()
        if limits is None:
            limits = Limits(65536 if device.startswith("cuda") else 4096)
        self.scorer = Scorer(self.network, limits)

    @classmethod
    def load(cls, path: str | Path, problem: str | None = None, **options: Any) -> BQPolicy:
        """From a safetensors file and its card; raises WeightsError (see `weights.load`)."""
        return cls(weights.load(path, problem), **options)

    @classmethod
    def shipped(cls, problem: str, **options: Any) -> BQPolicy:
        """With the weights inside this package; raises WeightsError when it has none for `problem`."""
        path = weights.shipped(problem)
        if path is None:
            have = ", ".join(sorted(p.stem for p in weights.FOLDER.glob("*.safetensors"))) or "none"
            raise WeightsError(
                f"this package ships no trained weights for {problem} (it has: {have}); train some with "
                f"'sfumato bqnco train {problem}', or use a method without a network"
            )
        return cls.load(path, problem, **options)

    @property
    def problem(self) -> str:
        """Which problem it solves."""
        return self.network.config.problem

    def solve(
        self,
        instances: Mapping[str, Any] | Environment,
        *,
        width: int = 1,
        merge: bool = True,
        n_symmetries: int = 1,
        n_rounds: int = 0,
        seconds: float | None = None,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.perf_counter,
        on_round: Callable[[NDArray[np.float64]], None] | None = None,
    ) -> Result:
        """Construct, then re-construct.

        `width`: 1 is greedy, more is beam search (bisimulation-aware unless `merge` is off). `n_symmetries`: best of so
        many symmetries of the square, greedy only. `n_rounds` or `seconds` (in all, of `clock`): random re-construct
        with `rng`. The construction is never cut short, so very small time limits are overrun by it.
        """
        began = clock()
        env = instances if isinstance(instances, Environment) else environment(self.problem, instances)
        found = self._construct(env, width, merge, n_symmetries)
        solutions, cost = reconstruct.plans(self.problem, found), found.cost.numpy().copy()
        first = cost.copy()
        if on_round:
            on_round(cost.copy())
        rounds = 0

        def count(costs: NDArray[np.float64]) -> None:
            nonlocal rounds
            rounds += 1
            if on_round:
                on_round(costs)

        if n_rounds or seconds is not None:
            if rng is None:
                raise ValueError(
                    "BQPolicy.solve: re-construction draws at random; pass rng=numpy.random.default_rng(seed)"
                )
            left = None if seconds is None else seconds - (clock() - began)
            solutions, cost = reconstruct.reconstruct(
                self.scorer,
                env,
                solutions,
                rng,
                n_rounds=n_rounds or None,
                seconds=left,
                clock=clock,
                on_round=count,
            )
        return Result(solutions, cost, first, rounds, found.merged)

    def _construct(self, env: Environment, width: int, merge: bool, n_symmetries: int) -> Solutions:
        if env.problem != self.problem:
            raise WeightsError(
                f"expected instances of {self.problem}, got {env.problem}; load weights for that problem"
            )
        if width > 1:
            return decode.beam(self.scorer, env, width, merge=merge)
        if n_symmetries > 1 and env.problem in ("tsp", "cvrp", "cvrptw", "op"):
            return decode.symmetries(self.scorer, env, n_symmetries)
        return decode.greedy(self.scorer, env)
