"""Turns of an agent: from an action (code, or a message with a fenced block) to what it is shown.

Free of any framework: the two runtimes, and the bridges to other frameworks, stand on this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import validators as v

from sfumato_sandbox.errors import ToolCallError, ToolError
from sfumato_sandbox.fences import FenceProblem, single_block
from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits, StepResult, Tool

NOTES = {
    True: "Your code runs in one Python process for the whole episode: variables, functions and imports stay "
    "from one action to the next.",
    False: "Each of your actions runs in a fresh Python process: variables, functions and imports do not survive it.",
}
LOST = "The Python process was replaced: all variables, imports and files of earlier actions are gone."
KEPT = "The Python process goes on: variables bound before the interruption are still there."


@attrs.frozen
class TurnSettings:
    """How code is run and shown. Settings of the same name in `Interpreter` and `Limits` mean the same.

    `packages` None takes those of numpy, pandas and matplotlib that are installed. `tool_calls_per_action` None takes the task's own cap (`public["tool_calls_per_action"]`), or 1000.
    `cues` say what the agent is told of its variables before each action: nothing, their names
    (`globals_list`), or names with a bounded preview (`values_preview`). `render` is the form of an
    observation: `text`, or `json` with the four keys success, result, output, error.
    """

    level: int = attrs.field(default=1, validator=v.in_((0, 1, 2)))
    strict: bool = False
    packages: tuple[str, ...] | None = None
    timeout_seconds: float = attrs.field(default=10.0, validator=v.gt(0))
    tool_calls_per_action: int | None = attrs.field(default=None, validator=v.optional(v.ge(0)))
    output_limit: int = attrs.field(default=16384, validator=v.ge(64))
    memory_mib: int = attrs.field(default=1024, validator=v.ge(16))
    cues: str = attrs.field(default="none", validator=v.in_(("none", "globals_list", "values_preview")))
    render: str = attrs.field(default="text", validator=v.in_(("text", "json")))
    echo: bool = False
    top_level_await: bool = False
    artifacts: bool = False

    def interpreter(self, persistent: bool) -> Interpreter:
        """Start a warmed interpreter with these settings."""
        return Interpreter(
            persistent=persistent,
            level=self.level,
            strict=self.strict,
            packages=None if self.packages is None else tuple(self.packages),
            echo=self.echo,
            top_level_await=self.top_level_await,
            cues=self.cues,
            artifacts=self.artifacts,
        )

    def limits(self, tool_calls: int | None) -> Limits:
        """Return the limits of a session; `tool_calls` is the task's own cap."""
        cap = self.tool_calls_per_action if self.tool_calls_per_action is not None else tool_calls
        return Limits(
            timeout_seconds=self.timeout_seconds,
            tool_calls=1000 if cap is None else cap,
            output_bytes=self.output_limit,
            memory_bytes=self.memory_mib << 20,
        )


@attrs.frozen
class Turn:
    """What one action came to: the text that the agent is shown, and all that is known about it."""

    observation: str
    info: Mapping[str, Any]


class Turns:
    """One episode's conversation: parses actions, runs them, renders results, keeps the account.

    Arguments:
        interpreter: where sessions come from; shared between episodes.
        settings, persistent: as the interpreter was made.
        name: reference of the runtime, shown to the agent.
        tools: name → {"signature", "doc"}, as the task publishes them.
        call: carries out one tool call {"tool", "args", "kwargs"} and returns its answer,
            {"ok": True, "value"} or {"ok": False, "kind": "call" | "failed", "message"}.
        tool_calls: the task's cap of calls an action, or None.
        modules: put into each fresh namespace.
        seed: of the random state inside.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        settings: TurnSettings,
        persistent: bool,
        name: str,
        tools: Mapping[str, Mapping[str, str]],
        call: Callable[[dict[str, Any]], Mapping[str, Any]],
        tool_calls: int | None = None,
        modules: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self.persistent = persistent
        self.account: list[dict[str, Any]] = []
        limits = settings.limits(tool_calls)
        made = {
            tool: Tool(
                tool, _forward(tool, call), about.get("signature", "(*args, **kwargs)"), about.get("doc", "")
            )
            for tool, about in tools.items()
        }
        self.session = interpreter.open(made, limits, seed=seed, modules=modules)
        self.public = {
            "name": name,
            "persistent": persistent,
            "note": NOTES[persistent],
            "tool_calls_per_action": limits.tool_calls,
            "timeout_seconds": settings.timeout_seconds,
            "output_limit": settings.output_limit,
            "packages": list(interpreter.packages.preload),
            "echo": settings.echo,
            "await": settings.top_level_await,
            "cues": settings.cues,
            "isolation_level": interpreter.isolation.level,
        }

    def act(self, action: Any) -> Turn:
        """Carry out one action: Python source, or {"message": text with one fenced block}.

        A message with no block runs nothing and shows nothing; with two blocks, or one that never
        ends, it runs nothing and says so. Raises TypeError for any other action.
        """
        code, blocks = action, 1
        if isinstance(action, Mapping) and isinstance(action.get("message"), str):
            found = single_block(action["message"])
            if found is None:
                return self._nothing("", None, 0)
            if isinstance(found, FenceProblem):
                return self._nothing(found.message, "FenceError", 2)
            code = found.code
        elif not isinstance(action, str):
            raise TypeError(
                f"an action must be a str of Python source or a mapping with the text 'message', got "
                f"{type(action).__name__}"
            )
        result = self.session.step(code)
        info = describe(result, self.settings.cues) | {"code": code, "blocks": blocks}
        return self._keep(Turn(render(result, self.settings.render), info))

    def truth(self) -> dict[str, Any]:
        """Return the account of all actions so far, as the runtime saw them."""
        return {
            "actions": list(self.account),
            "persistent": self.persistent,
            "isolation_level": self.session.isolation_level,
        }

    def close(self) -> None:
        """End the session."""
        self.session.close()

    def _nothing(self, message: str, kind: str | None, blocks: int) -> Turn:
        """A turn in which no code ran."""
        error = None
        if kind is not None:
            error = {
                "type": kind,
                "message": message,
                "traceback": "",
                "missing_name": None,
                "bound_earlier": None,
            }
        shown = message
        if self.settings.render == "json":
            shown = _json(kind is None, "", message) if kind is not None else ""
        info = {
            "ok": kind is None, "stdout": "", "stderr": "", "value_repr": None, "error": error, "tool_calls": [],
            "wall_seconds": 0.0, "cpu_seconds": 0.0, "peak_rss_bytes": 0, "truncated": [], "globals": [], "restored": [],
            "state": "kept" if self.persistent else "reset", "artifacts": [], "cue": "",
            "isolation_level": self.session.isolation_level, "code": None, "blocks": blocks,
        }  # fmt: skip
        return self._keep(Turn(shown, info))

    def _keep(self, turn: Turn) -> Turn:
        info = turn.info
        error = info["error"] or {}
        self.account.append(
            {
                "ok": info["ok"],
                "error_type": error.get("type"),
                "missing_name": error.get("missing_name"),
                "bound_earlier": error.get("bound_earlier"),
                "truncated": bool(info["truncated"]),
                "state": info["state"],
                "tool_calls": len(info["tool_calls"]),
                "blocks": info["blocks"],
                "wall_seconds": info["wall_seconds"],
            }
        )
        return turn


def _forward(name: str, call: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[..., Any]:
    def tool(*args: Any, **kwargs: Any) -> Any:
        answer = call({"tool": name, "args": list(args), "kwargs": kwargs})
        if answer["ok"]:
            return answer["value"]
        raise (ToolCallError if answer["kind"] == "call" else ToolError)(answer["message"])

    return tool


def describe(result: StepResult, cues: str = "none") -> dict[str, Any]:
    """Return a result as plain data (numbers, text, lists, mappings), with its visibility cue."""
    info = attrs.asdict(result, filter=lambda attribute, _: attribute.name != "artifacts")
    info["globals"] = [row for row in info["globals"] if row["type"] != "module"]
    for field in ("tool_calls", "truncated", "restored"):
        info[field] = list(info[field])
    info["artifacts"] = [{"path": file.path, "bytes": file.content} for file in result.artifacts]
    info["cue"] = cue(result, cues)
    return info


def cue(result: StepResult, cues: str) -> str:
    """Say which variables there are (in a persistent process), or which are just being lost."""
    if cues == "none":
        return ""
    rows = [row for row in result.globals if row.type != "module"]
    names = ", ".join(row.name if cues == "globals_list" else f"{row.name} = {row.preview}" for row in rows)
    if result.state == "reset":
        return f"Variables that the last action had and that are gone now: {names or 'none'}."
    return f"Variables that exist now: {names or 'none'}."


def render(result: StepResult, form: str = "text") -> str:
    """Show a result to an agent, as `text` or as the four-key `json`."""
    failure = _failure(result)
    if form == "json":
        output = result.stdout + result.stderr
        if result.value_repr is not None:
            output += result.value_repr + "\n"
        return _json(result.ok, output, failure or None)
    parts = [result.stdout]
    if result.stderr:
        parts.append(f"[stderr]\n{result.stderr}")
    if result.value_repr is not None:
        parts.append(result.value_repr)
    if failure:
        parts.append(f"[error]\n{failure}")
    if result.restored:
        parts.append(
            f"[note] These names are reserved and were put back: {', '.join(sorted(result.restored))}."
        )
    return "\n".join(part.rstrip("\n") for part in parts if part)


def _failure(result: StepResult) -> str:
    error = result.error
    if error is None:
        return ""
    lines = [error.traceback] if error.traceback else []
    if not error.traceback or error.type in ("ActionTimeout", "ActionInterrupted", "ToolCallLimit"):
        lines.append(f"{error.type}: {error.message}")
    if result.state == "lost":
        lines.append(LOST)
    elif error.type in ("ActionTimeout", "ActionInterrupted") and result.state == "kept":
        lines.append(KEPT)
    return "\n".join(lines)


def _json(success: bool, output: str, error: str | None) -> str:
    return json.dumps(
        {"success": success, "result": None, "output": output, "error": error}, ensure_ascii=False
    )
