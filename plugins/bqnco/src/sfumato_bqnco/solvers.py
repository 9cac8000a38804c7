"""Solvers: the neural policy, and every classical method behind the same contract."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.protocols import Context, Policy, Solver
from sfumato.records import Refusal, Start

from . import methods
from .config import MethodConfig, PolicyConfig
from .errors import InstanceError
from .instances import Instance, Plan
from .tasks import RoutingTask, encode, instance_of


class _BatchPolicy(Policy[Any, Any]):
    """Reads the problem and the generator in `reset`; subclasses solve a list of instances."""

    problem = ""
    rng: np.random.Generator

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Forget the last batch."""
        self.problem = start.public["problem"]
        self.rng = rng
        self.said: dict[str, Any] = {}

    def act(self, observation: Any) -> NDArray[np.int64]:
        """Solve every item."""
        items = [instance_of(o) for o in observation]
        return encode(self.problem, self.solutions(items))

    def solutions(self, items: list[Instance]) -> list[Plan]:
        """One solution for each item."""
        raise NotImplementedError

    def notes(self) -> Mapping[str, Any] | None:
        """What the method says of itself."""
        return self.said or None


class NeuralPolicy(_BatchPolicy):
    """`BQPolicy` over a batch; items of equal size and rounding are decoded together."""

    def __init__(self, policy: Any, config: PolicyConfig) -> None:
        self.policy, self.config = policy, config

    def solutions(self, items: list[Instance]) -> list[Plan]:
        """See `_BatchPolicy`."""
        c = self.config
        out: list[Plan | None] = [methods.trivial(i) for i in items]
        groups: dict[Any, list[int]] = {}
        for b, item in enumerate(items):
            if out[b] is None:
                groups.setdefault((item.n, item.weight_type), []).append(b)
        merged = []
        for members in groups.values():
            parts = [items[b].arrays() for b in members]
            arrays = {
                k: parts[0][k] if isinstance(parts[0][k], str) else np.concatenate([p[k] for p in parts])
                for k in parts[0]
            }
            result = self.policy.solve(
                arrays,
                width=c.width,
                merge=c.merge,
                n_symmetries=c.symmetries,
                n_rounds=c.rounds,
                seconds=c.seconds * len(members) or None,
                rng=self.rng,
            )
            merged.append(result.merged)
            for b, solution in zip(members, result.solutions, strict=True):
                out[b] = solution
        self.said = {"merged_share": float(np.mean(merged)) if merged else 0.0}
        return [s for s in out if s is not None]


class PolicySolver(Solver[Any, Any, Any]):
    """Loads weights and decodes (Drakulic et al., NeurIPS 2023)."""

    def __init__(self, config: PolicyConfig | None = None) -> None:
        self.config = config or PolicyConfig()

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        """Refuse other tasks and problems without weights."""
        if not isinstance(task, RoutingTask):
            return Refusal(
                "bqnco/policy solves the tasks of this plugin only", "choose bqnco/tsp, atsp, cvrp, op or kp"
            )
        from .weights import shipped

        if not self.config.weights and shipped(task.problem) is None:
            return Refusal(
                f"this package ships no trained weights for {task.problem}",
                "train some with 'sfumato bqnco train' and pass -s weights=FILE",
            )
        return None

    def solve(self, task: Any, ctx: Context) -> NeuralPolicy:
        """Load the weights onto the run's device."""
        from .decode import Limits
        from .policy import BQPolicy

        limits = Limits(self.config.tokens, self.config.neighbours)
        if self.config.weights:
            policy = BQPolicy.load(self.config.weights, task.problem, device=ctx.device, limits=limits)
        else:
            policy = BQPolicy.shipped(task.problem, device=ctx.device, limits=limits)
        return NeuralPolicy(policy, self.config)

    def replay_promise(self) -> str:
        """Bits on one machine, unless time decides."""
        return "statistical" if self.config.seconds else "bits"


class MethodPolicy(_BatchPolicy):
    """A classical method, one instance after another."""

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def solutions(self, items: list[Instance]) -> list[Plan]:
        """See `_BatchPolicy`."""
        clock = time.process_time if self.config.cpu_clock else time.perf_counter
        out = []
        for item in items:
            out.append(methods.run(self.config.method, item, self.config.seconds, self.rng, None, clock))
        return out


class MethodSolver(Solver[Any, Any, Any]):
    """Any method of `sfumato_bqnco.methods` by name."""

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        """Refuse problems that the method does not solve and packages that are not installed."""
        if not isinstance(task, RoutingTask):
            return Refusal("bqnco/classical solves the tasks of this plugin only", "choose a bqnco task")
        try:
            methods.method(self.config.method, task.problem)
        except InstanceError:
            raise
        except ValueError as error:
            reason, _, advice = str(error).partition("; ")
            return Refusal(reason, advice)
        return None

    def solve(self, task: Any, ctx: Context) -> MethodPolicy:
        """Nothing to prepare."""
        return MethodPolicy(self.config)

    def replay_promise(self) -> str:
        """Bits for constructions, statistical where a clock decides."""
        return "statistical" if methods.METHODS[self.config.method].anytime else "bits"
