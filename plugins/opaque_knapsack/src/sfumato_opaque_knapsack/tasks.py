"""The task family behind the core's protocols: an action is one tool call, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sfumato.errors import ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step
from sfumato_opaque_knapsack import prompts
from sfumato_opaque_knapsack.config import TaskConfig
from sfumato_opaque_knapsack.instances import (
    EVAL_SEED_BASE,
    LEVELS,
    TRAIN_SEED_BASE,
    Instance,
    Level,
    generate,
)
from sfumato_opaque_knapsack.world import BadToolCall, Outcome, ToolFailure, World

if TYPE_CHECKING:
    from sfumato_opaque_knapsack.pomdp import KnapsackModel

Action = Mapping[str, Any]
"""`{"tool": name, "args": [...], "kwargs": {...}}`; args and kwargs may be absent."""

SEED_STRIDE = 2**32
"""Instances of run seed s start here times s further on; run seed 0 has the paper's seeds."""


class KnapsackEpisode(Episode[Any, Action]):
    """One instance being played. Answers every call, however malformed; never raises on an agent's account."""

    def __init__(self, instance: Instance, level: Level, config: TaskConfig) -> None:
        self._instance, self._level, self._config = instance, level, config
        self._world = World(instance, strict_take=config.strict_take)
        self._n_calls = 0
        self._over = False
        self._model: KnapsackModel | None = None

    def reset(self) -> Start[Any]:
        """Begin: the goal text, and the public part."""
        config = self._config
        public = prompts.public_part(
            self._instance,
            reveal_allowed=config.reveal_allowed,
            reveal_items=config.reveal_items,
            tool_calls_per_action=config.tool_calls_per_action,
            max_turns=config.max_turns,
        )
        if config.pomdp_model:
            from sfumato_opaque_knapsack.pomdp import MODELS

            self._model = MODELS[config.pomdp_actions].for_instance(self._instance, self._level)
            public["pomdp_model"] = self._model
        return Start(prompts.goal(self._instance, reveal_allowed=self._config.reveal_allowed), public)

    def step(self, action: Action) -> Step[Any]:
        """Carry out one tool call, or, with `pomdp_model`, one of the model's numbered actions. The reward is the value of what was taken, known to the caller anyway."""
        if self._over:
            raise ProtocolError(
                "opaque-knapsack: expected no step after the episode's end, got one; call reset on a new one."
            )
        self._n_calls += 1
        before = self._world.value
        number: int | None = None
        if self._model is not None and isinstance(action, int | np.integer) and not isinstance(action, bool):
            from sfumato_opaque_knapsack.pomdp import call_of, item_action

            number = item_action(int(action), self._world, self._config.pomdp_actions)
            action = call_of(number, [item.id for item in self._instance.items])
        answer: dict[str, Any]
        try:
            if not isinstance(action, Mapping):
                raise BadToolCall(f"expected a tool call as a mapping, got {type(action).__name__}")
            args, kwargs = action.get("args") or (), action.get("kwargs") or {}
            if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
                raise BadToolCall("expected args to be a list and kwargs a mapping")
            answer = {"ok": True, "value": self._world.call(action.get("tool"), args, kwargs)}
        except BadToolCall as error:
            answer = {"ok": False, "kind": "call", "message": str(error)}
        except ToolFailure as error:
            answer = {"ok": False, "kind": "failed", "message": str(error)}
        terminated = self._world.finished
        self._over = terminated or self._n_calls >= self._config.max_calls
        observation: Any = answer
        if number is not None and self._model is not None:
            observation = self._model.observation_of(number, answer)
        return Step(
            observation,
            reward=float(self._world.value - before),
            terminated=terminated,
            truncated=self._over and not terminated,
        )

    def outcome(self) -> Outcome:
        """Return the score so far, for whoever runs episodes without the core's recorder."""
        return self._world.outcome()

    def truth(self) -> Mapping[str, Any]:
        """Return what the world alone knew."""
        return {
            "seed": self._instance.seed,
            "allowed": list(self._instance.allowed),
            "optimal_value": self._instance.optimal_value,
            "strict_take": self._config.strict_take,
            **({"pomdp_actions": self._config.pomdp_actions} if self._config.pomdp_model else {}),
        }


class _LevelTask(Task[Instance, Any, Action]):
    """Instances of one level; item k has seed base + k, whatever process or worker makes it."""

    level_name: ClassVar[str]
    offers = frozenset({"tools", "capacity", "budget", "classes"})

    def __init__(self, config: TaskConfig = TaskConfig()) -> None:
        self.config = config
        self.level = LEVELS[self.level_name]
        self.max_steps = config.max_calls
        optional = {
            "allowed": config.reveal_allowed,
            "items": config.reveal_items,
            "pomdp_model": config.pomdp_model,
        }
        self.offers = type(self).offers | {name for name, on in optional.items() if on}  # type: ignore[misc]

    def instances(self, ctx: Context) -> Iterable[Instance]:
        base = EVAL_SEED_BASE if self.config.split == "eval" else TRAIN_SEED_BASE
        for k in ctx.indices:
            yield generate(self.level, base + ctx.seed * SEED_STRIDE + k)

    def start(self, instance: Instance, ctx: Context, rng: np.random.Generator) -> KnapsackEpisode:
        return KnapsackEpisode(instance, self.level, self.config)


class EasyTask(_LevelTask):
    """The paper's Easy: 25 to 40 items, 15 classes, 3 allowed."""

    level_name = "easy"


class HardTask(_LevelTask):
    """The paper's Hard: 80 to 120 items, 26 classes, 5 allowed."""

    level_name = "hard"


class LegacyHardTask(_LevelTask):
    """The level that the released configurations call hard, which is not the paper's."""

    level_name = "legacy_hard"


class MicroTask(_LevelTask):
    """Small enough for models trained in minutes: 8 to 12 items, 5 classes, 2 allowed, 4 calls a block."""

    level_name = "micro"
