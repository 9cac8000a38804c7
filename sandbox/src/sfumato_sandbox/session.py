"""A session: one conversation with code that nobody vouches for, action by action."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import attrs

from sfumato_sandbox import scratch
from sfumato_sandbox._inside import wire
from sfumato_sandbox.child import Child
from sfumato_sandbox.errors import SandboxError, SessionClosed, ToolCallError, ToolError
from sfumato_sandbox.output import Capped
from sfumato_sandbox.records import ActionError, Global, Limits, State, StepResult, Tool, ToolCall
from sfumato_sandbox.zygote import Zygote

DISK_SECONDS = 0.2
INT_BITS = 64
MAX_DEPTH = 64


class Violation(Exception):
    """The far side broke the channel's rules."""


@attrs.frozen
class Options:
    """How actions of a session are run; see `Interpreter`."""

    persistent: bool = True
    echo: bool = False
    top_level_await: bool = False
    cues: str = "none"
    restore_names: bool = True
    artifacts: bool = False
    spare: bool = True
    modules: tuple[str, ...] = ()


@attrs.define
class _Outcome:
    """What one conversation came to, before it is put into a StepResult."""

    report: dict[str, Any] | None = None
    calls: list[ToolCall] = attrs.field(factory=list)
    call_bytes: int = 0
    over_limit: bool = False
    timed_out: bool = False
    error: ActionError | None = None
    lost: bool = False


class Session:
    """Runs actions one after another. Made by `Interpreter.open`; a context manager.

    Thread-safe in that a second `step` waits for the first. Different sessions run side by side.
    """

    def __init__(
        self,
        zygote: Zygote,
        tools: Mapping[str, Tool],
        limits: Limits,
        options: Options,
        seed: int,
        level: int,
    ) -> None:
        self.limits = limits
        self.isolation_level = level
        self._zygote = zygote
        self._tools = tools
        self._signatures = {name: inspect.signature(tool.function) for name, tool in tools.items()}
        self._options = options
        self._seed = seed
        self._lock = threading.RLock()
        self._closed = False
        self._actions = 0
        self._bound: set[str] = set()
        self._child: Child | None = None
        self._dying: list[Child] = []
        self._child = self._spawn(0)

    # --- public ------------------------------------------------------------------------------

    def step(self, code: str, timeout_seconds: float | None = None) -> StepResult:
        """Run one action and say what it did. Errors of the code are in the result, never raised.

        Arguments:
            code: Python source.
            timeout_seconds: wall-clock seconds for this action; None takes the session's limit.

        Raises TypeError when `code` is no str, SessionClosed after `close`, SandboxError when the
        sandbox itself fails, and whatever a tool raises besides ToolCallError and ToolError.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str of Python source, got {type(code).__name__}")
        with self._lock:
            if self._closed:
                raise SessionClosed("the session is closed; open a new one with Interpreter.open")
            self._bury()
            self._actions += 1
            started = time.monotonic()
            child = self._child or self._spawn(self._actions - 1)
            self._child = child
            child.wait_ready()
            outcome = _Outcome()
            stdout = Capped("stdout", self.limits.output_bytes)
            stderr = Capped("stderr", self.limits.output_bytes)
            try:
                self._converse(
                    child, code, timeout_seconds or self.limits.timeout_seconds, outcome, stdout, stderr
                )
            except Violation as violation:
                outcome.error = ActionError("ProtocolViolation", f"{violation}; the process was killed")
                outcome.lost = True
            except BaseException:
                self._discard(child)
                raise
            return self._result(child, outcome, stdout, stderr, started)

    def reset(self) -> None:
        """Forget everything: the next action starts in a fresh process and an empty directory."""
        with self._lock:
            if self._child is not None:
                self._discard(self._child)
            self._bound.clear()

    def close(self) -> None:
        """Kill the process, remove the files. May be called again."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._discard(self._child)
            self._bury()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    # --- processes ---------------------------------------------------------------------------

    def _spawn(self, action: int) -> Child:
        """Ask for a process, without waiting. Stateless actions draw from (seed, action) each."""
        init = {
            "tools": {
                name: {"signature": tool.signature, "doc": tool.doc} for name, tool in self._tools.items()
            },
            "modules": self._options.modules,
            "message_bytes": self.limits.message_bytes,
            "restore_names": self._options.restore_names,
            "seed": (self._seed * 1_000_003 + action) % (1 << 63),
        }
        return Child(self._zygote, self.limits, init)

    def _discard(self, child: Child) -> None:
        """Have a process killed; its end is waited for later, before the next action or at `close`."""
        child.kill()
        self._dying.append(child)
        if self._child is child:
            self._child = None

    def _bury(self) -> None:
        while self._dying:
            self._dying.pop().end()

    # --- one action --------------------------------------------------------------------------

    def _converse(
        self, child: Child, code: str, timeout: float, outcome: _Outcome, stdout: Capped, stderr: Capped
    ) -> None:
        """Send the code, serve its tool calls, keep its time, until it is done or dead."""
        if child.reader.buffer:
            raise Violation("data arrived between two actions")
        message = {
            "t": "run",
            "n": child.nonce,
            "code": code,
            "filename": f"<action {self._actions}>",
            "echo": self._options.echo,
            "await": self._options.top_level_await,
            "cues": self._options.cues,
        }
        child.send(message)
        started = now = time.monotonic()
        deadline = started + timeout
        disk_due = started + DISK_SECONDS
        while True:
            wait = max(min(deadline, disk_due) - now, 0.0)
            events = child.poll.poll(int(wait * 1000) + 1)
            now = time.monotonic()
            for fd, _ in events:
                if fd == child.out:
                    stdout.add(child.drain(fd))
                elif fd == child.err:
                    stderr.add(child.drain(fd))
                else:
                    pause = self._hear(child, outcome, started)
                    if outcome.report is not None or outcome.lost:
                        return
                    deadline += pause
                    now = time.monotonic()
            if now >= disk_due:
                disk_due = now + DISK_SECONDS
                if child.disk_full():
                    outcome.lost = True
                    outcome.error = ActionError(
                        "DiskLimit",
                        f"the files of the session exceed {self._disk_words()}; the process was killed",
                    )
                    return
            if now >= deadline:
                if outcome.timed_out:
                    outcome.lost = True
                    return
                outcome.timed_out = True
                deadline = now + self.limits.grace_seconds
                child.interrupt()

    def _disk_words(self) -> str:
        return f"{self.limits.disk_bytes} bytes or {self.limits.disk_files} entries"

    def _hear(self, child: Child, outcome: _Outcome, started: float) -> float:
        """Take what came over the channel; return the seconds spent in tools."""
        pause = 0.0
        try:
            data = child.channel.recv(wire.READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            outcome.lost = True
            return 0.0
        child.reader.feed(data)
        try:
            while (message := child.reader.next()) is not None:
                if message.get("n") != child.nonce or outcome.report is not None:
                    raise Violation("a message that belongs to no action")
                if message.get("t") == "done":
                    outcome.report = message
                elif message.get("t") == "call":
                    before = time.monotonic()
                    child.send(self._serve(message, outcome, started))
                    pause += time.monotonic() - before
                else:
                    raise Violation("a message of an unknown kind")
        except wire.WireError as error:
            raise Violation(str(error)) from error
        return pause

    def _serve(self, message: dict[str, Any], outcome: _Outcome, started: float) -> dict[str, Any]:
        """Carry out one tool call; the counters and the world live on this side only."""
        name, args, kwargs, number = (message.get(key) for key in ("tool", "args", "kwargs", "id"))
        if (
            type(name) is not str
            or type(args) is not list
            or type(kwargs) is not dict
            or type(number) is not int
        ):
            raise Violation("a malformed tool call")
        begun = time.monotonic()
        name = name[:100].encode("utf-8", "backslashreplace").decode()
        kind: Any = None
        value = error = None
        try:
            args, kwargs = plain(args), plain(kwargs)
        except ToolCallError as problem:
            args, kwargs, kind, error = [], {}, "call", str(problem)
        outcome.call_bytes += len(name) + _size(args) + _size(kwargs)
        if outcome.timed_out:
            return {
                "t": "answer",
                "id": number,
                "ok": False,
                "kind": "timeout",
                "message": "the action's time is over",
            }
        if (
            len(outcome.calls) >= self.limits.tool_calls
            or outcome.call_bytes > 16 * self.limits.message_bytes
        ):
            outcome.over_limit = True
            text = f"at most {self.limits.tool_calls} tool calls in one action"
            return {"t": "answer", "id": number, "ok": False, "kind": "limit", "message": text}
        if kind is None:
            kind, value, error = self._carry_out(name, args, kwargs)
        answer = {"t": "answer", "id": number, "ok": kind is None}
        answer |= {"value": value} if kind is None else {"kind": kind, "message": error}
        try:
            if len(wire.encode(answer)) > self.limits.message_bytes:
                raise ValueError(f"more than {self.limits.message_bytes} bytes")
        except (TypeError, ValueError) as problem:
            raise SandboxError(
                f"tool {name!r} returned what the channel does not carry: {problem}"
            ) from problem
        seconds = time.monotonic() - begun
        call = ToolCall(name, args, kwargs, kind is None, value, kind, error, begun - started, seconds)
        outcome.calls.append(call)
        return answer

    def _carry_out(
        self, name: str, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[str | None, Any, str | None]:
        tool = self._tools.get(name)
        if tool is None:
            return "call", None, f"there is no tool {name!r}; there are {', '.join(self._tools) or 'none'}"
        try:
            self._signatures[name].bind(*args, **kwargs)
        except TypeError as problem:
            return "call", None, f"{name}{tool.signature}: {problem}"
        try:
            return None, tool.function(*args, **kwargs), None
        except ToolCallError as problem:
            return "call", None, str(problem)
        except ToolError as problem:
            return "failed", None, str(problem)

    # --- the result --------------------------------------------------------------------------

    def _result(
        self, child: Child, outcome: _Outcome, stdout: Capped, stderr: Capped, started: float
    ) -> StepResult:
        report = None
        if outcome.report is not None:
            try:
                report = _Report.read(outcome.report)
            except Violation as violation:
                outcome.error = ActionError("ProtocolViolation", f"{violation}; the process was killed")
                outcome.lost = True
        artifacts = ()
        if self._options.artifacts:
            artifacts = scratch.collect(child.directory, self.limits.disk_bytes, child.known)
        if not outcome.lost and child.disk_full():
            outcome.lost = True
            text = f"the files of the session exceed {self._disk_words()}; the process was killed"
            outcome.error = ActionError("DiskLimit", text)
        stdout.add(child.drain(child.out))
        stderr.add(child.drain(child.err))
        cpu, rss = (report.cpu, report.rss) if report else (0.0, 0)
        state: State = "kept" if self._options.persistent else "reset"
        if outcome.lost:
            child.kill()
            stdout.add(child.drain(child.out))
            ending = child.end()
            self._child = None
            cpu, rss = ending.cpu, ending.rss
            state = "lost" if self._options.persistent else "reset"
            error = outcome.error
            if error is None and outcome.timed_out:
                error = ActionError(
                    "ActionTimeout", "it ran too long, did not react to the interrupt and was killed"
                )
            elif error is None:
                error = ActionError("ProcessDied", ending.explain())
        else:
            assert report is not None
            error = self._judge(report, outcome)
            if not self._options.persistent:
                self._discard(child)
        earlier = set(self._bound)
        names = report.globals if report and not outcome.lost else ()
        self._bound.update(entry.name for entry in names)
        if error is not None and error.missing_name is not None:
            error = attrs.evolve(error, bound_earlier=error.missing_name in earlier)
        if self._options.spare and self._child is None:
            self._child = self._spawn(self._actions)
        out, out_cut = stdout.finish()
        err, err_cut = stderr.finish()
        return StepResult(
            ok=error is None,
            stdout=out,
            stderr=err,
            value_repr=report.value_repr if report and not outcome.lost else None,
            error=error,
            tool_calls=tuple(outcome.calls),
            wall_seconds=time.monotonic() - started,
            cpu_seconds=cpu,
            peak_rss_bytes=rss,
            truncated=tuple(cut for cut in (out_cut, err_cut) if cut is not None),
            globals=names,
            restored=report.restored if report else (),
            state=state,
            isolation_level=self.isolation_level,
            artifacts=artifacts,
        )

    def _judge(self, report: _Report, outcome: _Outcome) -> ActionError | None:
        """What failed an action that came back; the host's own knowledge goes before the report."""
        told = report.error
        trace = told.traceback if told else ""
        if outcome.timed_out:
            return ActionError("ActionTimeout", "it ran too long and was interrupted", trace)
        if outcome.over_limit:
            text = f"at most {self.limits.tool_calls} tool calls in one action"
            return ActionError("ToolCallLimit", text, trace)
        return told


@attrs.frozen
class _Report:
    """The far side's own account of an action, checked field by field."""

    error: ActionError | None
    value_repr: str | None
    globals: tuple[Global, ...]
    restored: tuple[str, ...]
    cpu: float
    rss: int

    @classmethod
    def read(cls, message: dict[str, Any]) -> _Report:
        try:
            error = None
            if (told := message["error"]) is not None:
                missing = told["missing_name"]
                error = ActionError(
                    _text(told["type"], 200),
                    _text(told["message"], 5000),
                    _text(told["traceback"], 20000),
                    None if missing is None else _text(missing, 200),
                )
            value = message["value_repr"]
            rows = tuple(
                Global(
                    _text(row[0], 64),
                    _text(row[1], 64),
                    row[2] if type(row[2]) is int else None,
                    _text(row[3], 200) if len(row) > 3 else None,
                )
                for row in _list(message["globals"], 1000)
            )
            restored = tuple(_text(name, 200) for name in _list(message["restored"], 1000))
            value = None if value is None else _text(value, 5000)
            return cls(error, value, rows, restored, float(message["cpu"]), int(message["rss"]))
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as problem:
            raise Violation(f"a malformed report ({type(problem).__name__})") from problem


def _text(value: Any, limit: int) -> str:
    if type(value) is not str:
        raise TypeError("a text belongs here")
    return value[:limit].encode("utf-8", "backslashreplace").decode()


def _list(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise TypeError("a short list belongs here")
    return value


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a copy in which every text is valid Unicode; refuse huge integers and deep nesting."""
    if not depth:
        raise ToolCallError(f"values nested deeper than {MAX_DEPTH} are not passed on")
    kind = type(value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "backslashreplace").decode()
        return value
    if kind is int and value.bit_length() >= INT_BITS:
        raise ToolCallError(
            f"an integer of {value.bit_length()} bits; at most {INT_BITS - 1} and a sign are passed on"
        )
    if kind is list:
        return [plain(item, depth - 1) for item in value]
    if kind is dict:
        return {plain(key): plain(item, depth - 1) for key, item in value.items()}
    return value


def _size(value: Any) -> int:
    """Return roughly how many bytes a JSON-like value takes."""
    if type(value) is str:
        return len(value) + 8
    if type(value) is list:
        return 8 + sum(map(_size, value))
    if type(value) is dict:
        return 8 + sum(_size(key) + _size(item) for key, item in value.items())
    return 8
