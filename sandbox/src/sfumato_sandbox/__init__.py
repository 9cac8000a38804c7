"""Run Python that nobody vouches for: fast, confined, persistent or stateless.

from sfumato_sandbox import Interpreter
with Interpreter(persistent=True) as interpreter, interpreter.open({"double": lambda n: 2 * n}) as session:
    session.step("x = double(21)")
    print(session.step("print(x)").stdout)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato_sandbox.errors import (
        IsolationUnavailable,
        SandboxError,
        SessionClosed,
        ToolCallError,
        ToolError,
    )
    from sfumato_sandbox.interpreter import Interpreter
    from sfumato_sandbox.records import (
        ActionError,
        Artifact,
        Global,
        Isolation,
        Limits,
        Saved,
        StepResult,
        Tool,
        ToolCall,
        Truncated,
    )
    from sfumato_sandbox.session import STATELESS, Session

__version__ = "0.1.0"

_WHERE = {
    "Interpreter": "interpreter",
    "STATELESS": "session",
    "Session": "session",
    **dict.fromkeys(
        ["IsolationUnavailable", "SandboxError", "SessionClosed", "ToolCallError", "ToolError"], "errors"
    ),
    **dict.fromkeys(
        ["ActionError", "Artifact", "Global", "Isolation", "Limits", "Saved", "StepResult", "Tool", "ToolCall", "Truncated"],
        "records",
    ),
}  # fmt: skip
__all__ = [
    "STATELESS",
    "ActionError",
    "Artifact",
    "Global",
    "Interpreter",
    "Isolation",
    "IsolationUnavailable",
    "Limits",
    "SandboxError",
    "Saved",
    "Session",
    "SessionClosed",
    "StepResult",
    "Tool",
    "ToolCall",
    "ToolCallError",
    "ToolError",
    "Truncated",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(f"sfumato_sandbox.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'sfumato_sandbox' has no attribute {name!r}")
