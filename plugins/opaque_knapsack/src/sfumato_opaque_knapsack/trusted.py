"""An in-process interpreter for code that this package wrote itself, and for nothing else.

The scripted experts' blocks are templates of ours filled with numbers and ids, so running them here is safe and takes
milliseconds; `traces` makes its thousands of pairs this way. It confines nothing. Code from a model, or an injected
fault, belongs in a runtime.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import attrs

from sfumato_opaque_knapsack.world import TOOLS, BadToolCall, ToolFailure, World


class ToolError(RuntimeError):
    """What code sees when the world refuses a call."""


class ToolCallError(TypeError):
    """What code sees when a call is malformed."""


@attrs.frozen
class Ran:
    """What one block did: printed text, the error or None, the calls that reached the world, and the names bound since."""

    ok: bool
    stdout: str
    error: str | None
    tool_calls: tuple[tuple[str, tuple[Any, ...]], ...]
    names: tuple[str, ...] = ()


class TrustedInterpreter:
    """Runs our own blocks against a world; one namespace for the episode, or a fresh one for each block."""

    def __init__(self, world: World, *, persistent: bool) -> None:
        self.world = world
        self.persistent = persistent
        self._calls: list[tuple[str, tuple[Any, ...]]] = []
        self._namespace = self._fresh()

    def _fresh(self) -> dict[str, Any]:
        return {"json": json, "__name__": "__main__", **{tool.name: self._stub(tool.name) for tool in TOOLS}}

    def _stub(self, name: str) -> Callable[..., Any]:
        def stub(*args: Any, **kwargs: Any) -> Any:
            self._calls.append((name, args))
            try:
                return self.world.call(name, args, kwargs)
            except BadToolCall as error:
                raise ToolCallError(str(error)) from None
            except ToolFailure as error:
                raise ToolError(str(error)) from None

        return stub

    def run(self, code: str) -> Ran:
        """Run one block."""
        if not self.persistent:
            self._namespace = self._fresh()
        self._calls = []
        printed = io.StringIO()
        error = None
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(code, "<block>", "exec"), self._namespace)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
        tools = {tool.name for tool in TOOLS}
        names = tuple(
            name
            for name, value in self._namespace.items()
            if not name.startswith("__") and name not in tools and not isinstance(value, ModuleType)
        )
        return Ran(error is None, printed.getvalue(), error, tuple(self._calls), names)


def code_of(message: str) -> str:
    """Return the code of a message that this package wrote."""
    return message.split("```python\n", 1)[1].rsplit("\n```", 1)[0]


def play_expert(
    expert: Any,
    world: World,
    public: Mapping[str, Any],
    seed: int,
    *,
    max_turns: int = 40,
    lost_from: int | None = None,
    told: bool = False,
) -> list[tuple[str, Ran]]:
    """Play an episode with a scripted expert; return (message, what it did) for each turn.

    From turn `lost_from` on (counted from 0) nothing survives a block any more; with `told` the expert hears of it.
    """
    interpreter = TrustedInterpreter(world, persistent=expert.regime == "persistent")
    expert.reset(public, seed)
    observation = ""
    turns: list[tuple[str, Ran]] = []
    while not world.finished and len(turns) < max_turns:
        if len(turns) == lost_from:
            interpreter.persistent = False
            if told:
                expert.lose()
        message = expert.act(observation)
        ran = interpreter.run(code_of(message))
        turns.append((message, ran))
        observation = ran.stdout if ran.ok else ran.stdout + (ran.error or "")
    return turns
