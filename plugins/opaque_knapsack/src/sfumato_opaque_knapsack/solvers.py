"""The scripted policies behind the core's protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start
from sfumato.runtimes import Direct
from sfumato_opaque_knapsack.config import ExpertConfig, InjectorConfig
from sfumato_opaque_knapsack.experts import Injector, RelayExpert, ScriptedExpert
from sfumato_opaque_knapsack.ladder import LADDER, NEEDS, Answer, Batch

NEEDED = ("tools", "capacity", "budget")


def seed_from(rng: np.random.Generator) -> int:
    """Return an integer seed drawn from a stream."""
    return int(rng.integers(2**63))


NO_CODE = Refusal(
    "it writes code, and runtime direct runs none",
    "Choose --runtime runtime-persistent/python or --runtime runtime-stateless/python.",
)


def refuse_foreign(task: Any, needs: tuple[str, ...] = ()) -> Refusal | None:
    """Return a refusal when a task does not offer what a policy of this family reads."""
    missing = [name for name in (*NEEDED, *needs) if name not in task.offers]
    if not missing:
        return None
    advice = "Run it on opaque-knapsack/easy or another level."
    if set(missing) <= {"allowed", "items"}:
        advice = "Set " + " ".join(f"-t reveal_{name}=true" for name in missing) + "."
    return Refusal(f"it needs {', '.join(missing)} in the public part, which the task does not offer", advice)


class NativePolicy(Policy[Any, Mapping[str, Any]]):
    """A policy of the ladder, one tool call an action."""

    def __init__(self, policy: str) -> None:
        self._policy = policy

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        self._plan = LADDER[self._policy](start.public, rng)
        self._batch: Batch | None = None
        self._answers: list[Answer] = []

    def act(self, observation: Any) -> Mapping[str, Any]:
        if self._batch is None:
            self._batch = next(self._plan)
        else:
            self._answers.append(
                Answer(observation["ok"], observation.get("value"), observation.get("message", ""))
            )
            failed = self._batch.stop_on_error and not observation["ok"]
            if failed or len(self._answers) == len(self._batch.arguments):
                self._batch, self._answers = self._plan.send(self._answers), []
        return {
            "tool": self._batch.tool,
            "args": list(self._batch.arguments[len(self._answers)]),
            "kwargs": {},
        }


class RelayPolicy(Policy[str, Mapping[str, str]]):
    """A policy of the ladder through an interpreter, its code only relaying calls."""

    def __init__(self, policy: str) -> None:
        self._policy = policy

    def reset(self, start: Start[str], rng: np.random.Generator) -> None:
        self._expert = RelayExpert(self._policy)
        self._expert.reset(start.public, rng)

    def act(self, observation: str) -> Mapping[str, str]:
        return {"message": self._expert.act(observation)}


class WriterPolicy(Policy[str, Mapping[str, str]]):
    """A scripted agent that writes code in its regime; `auto` takes the interpreter's own regime."""

    def __init__(self, config: ExpertConfig | InjectorConfig) -> None:
        self._config = config

    def reset(self, start: Start[str], rng: np.random.Generator) -> None:
        config = self._config
        regime = config.writer
        if regime == "auto":
            regime = "persistent" if start.public["runtime"]["persistent"] else "stateless"
        words = config.words if isinstance(config, ExpertConfig) else True
        self._agent: ScriptedExpert | Injector = ScriptedExpert(regime, style=config.style, words=words)
        if isinstance(config, InjectorConfig):
            names = tuple(name.strip() for name in config.faults.split(","))
            self._agent = Injector(self._agent, names, rate=config.rate, per=config.per)
        self._agent.reset(start.public, seed_from(rng))
        self._regime = regime

    def act(self, observation: str) -> Mapping[str, str]:
        return {"message": self._agent.act(observation)}

    def notes(self) -> Mapping[str, Any]:
        injected = self._agent.injected if isinstance(self._agent, Injector) else []
        return {"regime": self._regime, "injected": list(injected)}


class ExpertPolicy(Policy[Any, Mapping[str, Any]]):
    """A reference policy that acts as its settings say; `auto` looks at whether an interpreter is there."""

    def __init__(self, config: ExpertConfig) -> None:
        self._config = config

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        writer, policy = self._config.writer, self._config.policy
        if writer == "auto" and "runtime" not in start.public:
            writer = "native"
        if writer == "auto" and policy != "greedy":
            writer = "calls"
        self._inner: Policy[Any, Any]
        if writer == "native":
            self._inner = NativePolicy(policy)
        elif writer == "calls":
            self._inner = RelayPolicy(policy)
        else:
            self._inner = WriterPolicy(self._config)
        self._inner.reset(start, rng)

    def act(self, observation: Any) -> Mapping[str, Any]:
        action: Mapping[str, Any] = self._inner.act(observation)
        return action

    def notes(self) -> Mapping[str, Any] | None:
        return self._inner.notes()


class ExpertSolver(Solver[Any, Any, Any]):
    """Reference policies: natively, relayed through an interpreter, or written as an agent would write them."""

    def __init__(self, config: ExpertConfig = ExpertConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        writer, policy = self.config.writer, self.config.policy
        direct = isinstance(runtime, Direct)
        if writer == "native" and not direct:
            return Refusal(
                "writer 'native' makes tool calls, and this runtime runs code", "Set -s writer=calls."
            )
        if writer not in ("auto", "native") and direct:
            return NO_CODE
        if writer in ("persistent", "stateless") and policy != "greedy":
            return Refusal(
                f"writer {writer!r} is written for policy 'greedy', not {policy!r}", "Set -s writer=calls."
            )
        return refuse_foreign(task, NEEDS.get(policy, ()))

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> Policy[Any, Any]:
        return ExpertPolicy(self.config)


class InjectorSolver(Solver[Any, Any, Any]):
    """An expert that fails in known ways at a known rate: what metrics and interpreters are validated with."""

    def __init__(self, config: InjectorConfig = InjectorConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        return NO_CODE if isinstance(runtime, Direct) else refuse_foreign(task)

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> Policy[Any, Any]:
        return WriterPolicy(self.config)
