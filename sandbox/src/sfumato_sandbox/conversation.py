"""One action as a conversation: the code goes in, tool calls come out and are answered, until it is over.

Everything that counts is kept here, on the host's side: the calls and their number, the clock, the disk.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from sfumato_sandbox import snapshots
from sfumato_sandbox._inside import wire
from sfumato_sandbox.child import Child
from sfumato_sandbox.errors import SandboxError, ToolCallError, ToolError
from sfumato_sandbox.output import Capped
from sfumato_sandbox.records import ActionError, Limits, Tool, ToolCall
from sfumato_sandbox.reports import Report, Violation, plain, rough_size

DISK_SECONDS = 0.2


class Conversation:
    """What is known of one action while it runs and when it is over.

    `report` is the process's own account once it has sent one; `lost` says that the process must go (or is
    gone); `error` is what the host found, which goes before whatever the process says.
    """

    def __init__(
        self, tools: Mapping[str, Tool], signatures: Mapping[str, inspect.Signature | None], limits: Limits
    ) -> None:
        self.tools = tools
        self.signatures = signatures
        self.limits = limits
        self.stdout = Capped("stdout", limits.output_bytes)
        self.stderr = Capped("stderr", limits.output_bytes)
        self.calls: list[ToolCall] = []
        self.report: dict[str, Any] | None = None
        self.error: ActionError | None = None
        self.lost = False
        self.timed_out = False
        self.stopped = False  # set by another thread: the action's time is over now
        self.over_limit = False
        self.started = time.monotonic()
        self._call_bytes = 0
        self._tool_seconds = 0.0

    def run(
        self,
        child: Child,
        message: dict[str, Any],
        timeout_seconds: float,
        disk_full: Callable[[], bool],
        on_tick: Callable[[float, int], None] | None = None,
    ) -> None:
        """Send the action, serve its tool calls, keep its time. Time inside tools is not the action's.

        Raises whatever a tool raises besides its two errors, and SandboxError for an answer that does
        not cross the channel.
        """
        try:
            self._run(child, message, timeout_seconds, disk_full, on_tick)
        except (Violation, wire.WireError) as violation:
            self.violated(violation)

    def violated(self, violation: Exception) -> None:
        """Note that the far side broke the rules; its process must go."""
        self.error = ActionError("ProtocolViolation", f"{violation}; the process was killed")
        self.lost = True

    def overfull(self) -> None:
        """Note that the session's files exceed its limits; its process must go."""
        words = f"{self.limits.disk_bytes} bytes or {self.limits.disk_files} entries"
        self.error = ActionError(
            "DiskLimit", f"the files of the session exceed {words}; the process was killed"
        )
        self.lost = True

    def late(self, consequence: str, trace: str = "") -> ActionError:
        """Return the error of an action whose time was over, or that `Session.interrupt` ended."""
        if self.stopped:
            return ActionError("ActionInterrupted", f"the host ended it {consequence}", trace)
        return ActionError("ActionTimeout", f"it ran too long {consequence}", trace)

    def judge(self, report: Report) -> ActionError | None:
        """Return what failed an action that came back; the host's own knowledge goes before the report."""
        told = report.error
        trace = told.traceback if told else ""
        if self.timed_out:
            return self.late("and was interrupted", trace)
        if self.over_limit:
            return ActionError("ToolCallLimit", self._limit_words(), trace)
        return told

    def _run(
        self,
        child: Child,
        message: dict[str, Any],
        timeout: float,
        disk_full: Callable[[], bool],
        on_tick: Callable[[float, int], None] | None,
    ) -> None:
        if child.reader.buffer:
            raise Violation("data arrived between two actions")
        child.send(message)
        now = time.monotonic()
        deadline = now + timeout
        disk_due = now + DISK_SECONDS
        while True:
            wait = max(min(deadline, disk_due) - now, 0.0)
            events = child.poll.poll(int(wait * 1000) + 1)
            now = time.monotonic()
            for fd, _ in events:
                if fd == child.out:
                    self.stdout.add(child.drain(fd))
                elif fd == child.err:
                    self.stderr.add(child.drain(fd))
                elif fd == child.notify:
                    snapshots.answer_fork(fd, allow=False)
                else:
                    paused = self._tool_seconds
                    self._hear(child)
                    if self.report is not None or self.lost:
                        return
                    deadline += self._tool_seconds - paused
                    now = time.monotonic()
            if now >= disk_due:
                disk_due = now + DISK_SECONDS
                if on_tick is not None:
                    on_tick(now - self.started, self.stdout.total + self.stderr.total)
                if disk_full():
                    self.overfull()
                    return
            if self.stopped and not self.timed_out:
                deadline = now
            if now >= deadline:
                if self.timed_out:
                    self.lost = True
                    return
                self.timed_out = True
                deadline = now + self.limits.grace_seconds
                child.interrupt()

    def _hear(self, child: Child) -> None:
        """Take what came over the channel."""
        try:
            data = child.channel.recv(wire.READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            self.lost = True
            return
        child.reader.feed(data)
        while (message := child.reader.next()) is not None:
            if message.get("n") != child.nonce or self.report is not None:
                raise Violation("a message that belongs to no action")
            if message.get("t") == "done":
                self.report = message
            elif message.get("t") == "call":
                child.send(self._serve(message))
            else:
                raise Violation("a message of an unknown kind")

    def _serve(self, message: dict[str, Any]) -> dict[str, Any]:
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
        self._call_bytes += len(name) + rough_size(args) + rough_size(kwargs)
        if self.timed_out:
            return {
                "t": "answer",
                "id": number,
                "ok": False,
                "kind": "timeout",
                "message": "the action's time is over",
            }
        if len(self.calls) >= self.limits.tool_calls or self._call_bytes > 16 * self.limits.message_bytes:
            self.over_limit = True
            return {"t": "answer", "id": number, "ok": False, "kind": "limit", "message": self._limit_words()}
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
        self._tool_seconds += seconds
        call = ToolCall(name, args, kwargs, kind is None, value, kind, error, begun - self.started, seconds)
        self.calls.append(call)
        return answer

    def _carry_out(
        self, name: str, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[str | None, Any, str | None]:
        tool = self.tools.get(name)
        if tool is None:
            return "call", None, f"there is no tool {name!r}; there are {', '.join(self.tools) or 'none'}"
        if (signature := self.signatures[name]) is not None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as problem:
                return "call", None, f"{name}{tool.signature}: {problem}"
        try:
            return None, tool.function(*args, **kwargs), None
        except ToolCallError as problem:
            return "call", None, str(problem)
        except ToolError as problem:
            return "failed", None, str(problem)

    def _limit_words(self) -> str:
        return f"at most {self.limits.tool_calls} tool calls in one action"


def signature_of(tool: Tool) -> inspect.Signature | None:
    """Return the function's signature; None for builtins that have none."""
    try:
        return inspect.signature(tool.function)
    except ValueError:
        return None
