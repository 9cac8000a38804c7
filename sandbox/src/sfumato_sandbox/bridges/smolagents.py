"""A smolagents `PythonExecutor` (extra `smolagents`): code of a CodeAgent runs confined.

    agent = CodeAgent(tools=[…], model=model, executor=SandboxExecutor())

Where it differs from `LocalPythonExecutor`: tools run in this process, but only JSON-like values pass
between the code and them (others arrive as text); `output` is the text of the last expression's value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from smolagents.local_python_executor import CodeOutput, InterpreterError, PythonExecutor

from sfumato_sandbox.errors import ToolError
from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits, Tool
from sfumato_sandbox.session import Session
from sfumato_sandbox.turns import render


class SandboxExecutor(PythonExecutor):
    """Runs each code action of an agent in one confined process that lasts for the whole conversation.

    Arguments are those of `Interpreter`, and `limits`. `state["_print_outputs"]` holds the last
    action's output, which is where agents look for logs after an error.
    """

    def __init__(self, limits: Limits = Limits(timeout_seconds=30), **options: Any) -> None:
        self.interpreter = Interpreter(persistent=True, echo=True, restore_names=False, **options)
        self.limits = limits
        self.state: dict[str, Any] = {"_print_outputs": ""}
        self._tools: dict[str, Callable[..., Any]] = {}
        self._names: frozenset[str] = frozenset()
        self._session: Session | None = None
        self._answer: list[Any] = []
        self._variables: dict[str, str] = {}

    def send_tools(self, tools: dict[str, Any]) -> None:
        """Take the agent's tools. New names begin a new process; the same names keep it."""
        self._tools = dict(tools)
        if self._session is not None and self._names != frozenset(tools):
            self._session.close()
            self._session = None
        self._names = frozenset(tools)

    def send_variables(self, variables: dict[str, Any]) -> None:
        """Bind JSON-like values inside. Raises TypeError for others: nothing is pickled into the sandbox."""
        for name, value in variables.items():
            if not name.isidentifier():
                raise TypeError(f"a variable's name must be an identifier, got {name!r}")
            try:
                text = json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"variable {name!r} cannot be sent: {error}. Send text, numbers, lists, dicts."
                ) from error
            self._variables[name] = text
            if self._session is not None:
                self._bind(self._session, name)

    def __call__(self, code_action: str) -> CodeOutput:
        """Run one action. Raises InterpreterError with the traceback when it fails, as agents expect."""
        self._answer.clear()
        result = self._open().step(code_action)
        logs = result.stdout + result.stderr
        self.state["_print_outputs"] = logs
        if self._answer:
            return CodeOutput(output=self._answer[-1], logs=logs, is_final_answer=True)
        if result.error is not None:
            shown = render(result).split("[error]\n", 1)[-1]
            raise InterpreterError(f"Code execution failed: {shown}")
        return CodeOutput(output=result.value_repr, logs=logs, is_final_answer=False)

    def cleanup(self) -> None:
        """End the process; called by the agent."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self.interpreter.close()

    def _bind(self, session: Session, name: str) -> None:
        session.step(f"import json as _json\n{name} = _json.loads({self._variables[name]!r})\ndel _json")

    def _open(self) -> Session:
        if self._session is None:
            made = {
                name: Tool(name, self._forward(name), doc=_about(tool)) for name, tool in self._tools.items()
            }
            self._session = self.interpreter.open(made, self.limits)
            for name in self._variables:
                self._bind(self._session, name)
        return self._session

    def _forward(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                value = self._tools[name](*args, **kwargs)
            except Exception as error:  # the agent's tools may raise what they like; the code sees it
                raise ToolError(f"{type(error).__name__}: {error}") from error
            if name == "final_answer":
                self._answer.append(value)
                raise ToolError("the final answer has been given")
            return _jsonlike(value)

        return call


def _about(tool: Any) -> str:
    return str(getattr(tool, "description", "") or getattr(tool, "__doc__", "") or "")


def _jsonlike(value: Any) -> Any:
    """Return what the channel carries: the value itself, or its text."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
