"""Solvers: the neural policy, and every classical method behind the same contract."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.protocols import Context, Policy, Solver
from sfumato.records import Refusal, Start

from . import methods, rehearsal
from .config import BASELINES, BaselineConfig, MethodConfig, PolicyConfig
from .errors import InstanceError
from .instances import Instance, Plan
from .tasks import RoutingTask, encode, instance_of
from .validate import objective


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
        heard: list[tuple[int, float, float]] = []
        for members in groups.values():
            parts = [items[b].arrays() for b in members]
            arrays = {
                k: parts[0][k] if isinstance(parts[0][k], str) else np.concatenate([p[k] for p in parts])
                for k in parts[0]
            }
            began = time.perf_counter()

            def report(costs: Any, members: list[int] = members, began: float = began) -> None:
                now = time.perf_counter() - began
                heard.extend((b, now, abs(float(c))) for b, c in zip(members, costs, strict=True))

            result = self.policy.solve(
                arrays,
                width=c.width,
                merge=c.merge,
                n_symmetries=c.symmetries,
                n_rounds=c.rounds,
                seconds=c.seconds * len(members) or None,
                rng=self.rng,
                on_round=report if c.seconds else None,
            )
            merged.append(result.merged)
            for b, solution in zip(members, result.solutions, strict=True):
                out[b] = solution
        self.said = {"merged_share": float(np.mean(merged)) if merged else 0.0}
        if c.seconds:
            # A group shares its time, and each of its items sees all of it.
            limit = c.seconds * max((len(m) for m in groups.values()), default=1)
            self.said |= incumbents([h for i, h in enumerate(heard) if _better(heard, i)], limit)
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
    """A classical method, one instance after another.

    Of anytime methods the notes hold every incumbent that was reported: `incumbent_item`, `incumbent_seconds`,
    `incumbent_value`, and `limit_seconds`.
    """

    def __init__(self, method: str, seconds: float, cpu_clock: bool) -> None:
        self.method, self.seconds = method, seconds
        self.clock = time.process_time if cpu_clock else time.perf_counter

    def solutions(self, items: list[Instance]) -> list[Plan]:
        """See `_BatchPolicy`."""
        out: list[Plan] = []
        heard: list[tuple[int, float, float]] = []
        for item in items[:1]:
            _rehearse(item, self.method)
        for b, item in enumerate(items):
            began = self.clock()

            def report(plan: Plan, b: int = b, item: Instance = item, began: float = began) -> None:
                heard.append((b, self.clock() - began, objective(item, plan)))

            plan = methods.run(self.method, item, self.seconds, self.rng, report, self.clock)
            report(plan)
            out.append(plan)
        # The times would differ from run to run, so methods that promise bits say nothing.
        self.said = incumbents(heard, self.seconds) if methods.METHODS[self.method].anytime else {}
        return out


def _rehearse(item: Instance, name: str) -> None:
    """Compile what the method needs before the first item's clock starts."""
    if methods.METHODS[name].module or methods.trivial(item) is not None:
        return
    kind = "none" if item.problem == "kp" else item.metric().kind
    small, other = rehearsal.piece(item), np.random.default_rng(0)

    def until_quick() -> None:
        for _ in range(8):
            began = time.perf_counter()
            methods.run(name, small, 0.02, other)
            if time.perf_counter() - began < 0.5:
                return

    rehearsal.rehearse(f"{item.problem} {kind} {name}", until_quick, 7.0)


def _better(heard: list[tuple[int, float, float]], i: int) -> bool:
    """Whether entry i says something new of its item: no earlier entry has the same value."""
    return all(h[0] != heard[i][0] or h[2] != heard[i][2] for h in heard[max(0, i - 64) : i])


def incumbents(heard: list[tuple[int, float, float]], limit: float) -> dict[str, Any]:
    """Incumbents (item, seconds, objective) as notes."""
    return {
        "incumbent_item": np.array([h[0] for h in heard], np.int64),
        "incumbent_seconds": np.array([h[1] for h in heard], float),
        "incumbent_value": np.array([h[2] for h in heard], float),
        "limit_seconds": float(limit),
    }


class BaselineSolver(Solver[Any, Any, Any]):
    """A method of `sfumato_bqnco.methods` as a solver; subclasses name the method."""

    method = ""

    def __init__(self, config: BaselineConfig | None = None) -> None:
        self.config = config or BaselineConfig()

    def supports(self, task: Any, runtime: Any) -> Refusal | None:
        """Refuse problems that the method does not solve and packages that are not installed."""
        if not isinstance(task, RoutingTask):
            return Refusal("this baseline solves the tasks of bqnco only", "choose a bqnco task")
        try:
            methods.method(self.method, task.problem)
        except InstanceError:
            raise
        except ValueError as error:
            reason, _, advice = str(error).partition("; ")
            return Refusal(reason, advice)
        return None

    def solve(self, task: Any, ctx: Context) -> MethodPolicy:
        """Nothing to prepare."""
        return MethodPolicy(self.method, self.config.seconds, self.config.cpu_clock)

    def replay_promise(self) -> str:
        """Bits for constructions, statistical where a clock decides."""
        return "statistical" if methods.METHODS[self.method].anytime else "bits"


class MethodSolver(BaselineSolver):
    """Any method by its name, under the one component `bqnco/classical`. Deprecated: each has a component now."""

    def __init__(self, config: MethodConfig | None = None) -> None:
        chosen = config or MethodConfig()
        super().__init__(BaselineConfig(chosen.seconds, chosen.cpu_clock))
        self.method = chosen.method
        own = {method: name for name, method in BASELINES.items()}.get(chosen.method)
        if own:
            warnings.warn(
                f"'bqnco/classical' with method={chosen.method!r} is deprecated; use the solver 'bqnco/{own}'",
                DeprecationWarning,
                stacklevel=2,
            )


def __getattr__(name: str) -> Any:
    """`Baseline_<method>`: the solver class of one baseline (`-` written as `_`), made when it is asked for."""
    for component, method in BASELINES.items():
        if name == f"Baseline_{component.replace('-', '_')}":
            made = type(name, (BaselineSolver,), {"method": method, "__doc__": methods.METHODS[method].summary})
            globals()[name] = made
            return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
