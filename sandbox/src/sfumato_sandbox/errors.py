"""Errors that the host sees. Errors of the code inside are data: `StepResult.error`."""

from __future__ import annotations


class SandboxError(Exception):
    """Something is wrong with the sandbox itself, not with the code that ran in it."""


class IsolationUnavailable(SandboxError):
    """This machine cannot give the isolation level that was asked for with `strict`."""


class SessionClosed(SandboxError):
    """A session or interpreter was used after `close()`."""


class ToolCallError(TypeError):
    """Raise it in a tool for a bad call (arity, types). The code inside sees a `ToolCallError`."""


class ToolError(RuntimeError):
    """Raise it in a tool that was called well but refuses or fails. The code inside sees a `ToolError`."""
