"""What goes into a session and what comes out of it: limits, tools, results. Frozen, plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
from attrs import validators as v

State = Literal["kept", "lost", "reset"]


@attrs.frozen
class Limits:
    """What one session may use. Sizes in bytes, times in seconds.

    `timeout_seconds` is wall clock for one action, time inside host tools excluded; an action that
    does not answer an interrupt for `grace_seconds` is killed. `tool_calls` is the most calls of one
    action. `output_bytes` caps stdout and stderr each, first and last half kept.
    `memory_bytes` is address space beyond the warmed interpreter's. `cpu_seconds` counts the whole
    life of a process: the episode when persistent, the action when stateless. `disk_bytes` is all
    files of the session together, looked at every 0.2 s and after each action; `file_bytes` one file.
    """

    timeout_seconds: float = attrs.field(default=10.0, validator=v.gt(0))
    grace_seconds: float = attrs.field(default=0.25, validator=v.ge(0))
    tool_calls: int = attrs.field(default=1000, validator=v.ge(0))
    output_bytes: int = attrs.field(default=16384, validator=v.ge(64))
    message_bytes: int = attrs.field(default=1 << 18, validator=v.ge(4096))
    memory_bytes: int = attrs.field(default=1 << 30, validator=v.ge(16 << 20))
    cpu_seconds: int = attrs.field(default=600, validator=v.ge(1))
    file_bytes: int = attrs.field(default=64 << 20, validator=v.ge(0))
    disk_bytes: int = attrs.field(default=128 << 20, validator=v.ge(0))
    disk_files: int = attrs.field(default=1000, validator=v.ge(0))
    open_files: int = attrs.field(default=64, validator=v.ge(16))


@attrs.frozen
class Tool:
    """A host function that the code inside may call by name.

    `function(*args, **kwargs)` receives JSON-like values (None, bool, int, float, str, list, dict)
    and returns one. It raises `ToolCallError` for a bad call and `ToolError` when it refuses; any other
    exception is a defect of the host and ends the session. `signature` and `doc` are shown to the code.
    """

    name: str = attrs.field()
    function: Callable[..., Any]
    signature: str = "(*args, **kwargs)"
    doc: str = ""

    @name.validator
    def _is_a_name(self, _: Any, value: str) -> None:
        if not value.isidentifier() or value.startswith("_"):
            raise ValueError(f"a tool's name must be an identifier without leading underscore, got {value!r}")


@attrs.frozen
class ToolCall:
    """One call that reached the host. `error` and `kind` are None when `ok`; `t` is seconds into the action."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    ok: bool
    value: Any = None
    kind: Literal["call", "failed", "limit", "timeout"] | None = None
    error: str | None = None
    t: float = 0.0
    seconds: float = 0.0


@attrs.frozen
class ActionError:
    """Why an action failed.

    `type` is the exception's class name, or one the sandbox gives: ActionTimeout, ActionInterrupted,
    ToolCallLimit, ProcessDied, DiskLimit, ProtocolViolation. `missing_name` is set by an uncaught NameError,
    `bound_earlier` then says whether an earlier action of this session had bound that name.
    """

    type: str
    message: str
    traceback: str = ""
    missing_name: str | None = None
    bound_earlier: bool | None = None


@attrs.frozen
class Truncated:
    """A stream that was longer than it may be: `kept` of `total` bytes remain."""

    stream: str
    kept: int
    total: int


@attrs.frozen
class Global:
    """A name bound at the end of an action. `size` is `len()` of builtin containers; `preview` on request."""

    name: str
    type: str
    size: int | None = None
    preview: str | None = None


@attrs.frozen
class Artifact:
    """A file that the code left in its working directory: relative POSIX path and content."""

    path: str
    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")


@attrs.frozen
class StepResult:
    """What one action did.

    `cpu_seconds`, `peak_rss_bytes`, `value_repr`, `globals` and `error` are what the process inside
    says of itself; calls, times, output, `state` and `isolation_level` are the host's own account.
    """

    ok: bool
    stdout: str
    stderr: str
    value_repr: str | None
    error: ActionError | None
    tool_calls: tuple[ToolCall, ...]
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    truncated: tuple[Truncated, ...]
    globals: tuple[Global, ...]
    restored: tuple[str, ...]
    state: State
    isolation_level: int
    artifacts: tuple[Artifact, ...] = ()


@attrs.frozen
class Isolation:
    """Which isolation holds. `missing` says why not more, one reason each."""

    level: int
    requested: int
    landlock_abi: int
    seccomp: bool
    namespaces: tuple[str, ...]
    missing: tuple[str, ...]


@attrs.frozen
class Saved:
    """Variables written down by `Session.save`.

    `content` is pickled by code that nobody vouches for: unpickle it nowhere but inside a sandbox. `names` are
    the variables it holds, `missed` those that could not be pickled, each with the reason. `log` is every action
    of the session so far, from which the rest can be computed anew.
    """

    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")
    names: tuple[str, ...]
    missed: dict[str, str]
    log: tuple[str, ...]
