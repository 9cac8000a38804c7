"""A session: one conversation with code that nobody vouches for, action by action."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import attrs

from sfumato_sandbox import scratch, snapshots
from sfumato_sandbox.child import Child
from sfumato_sandbox.conversation import Conversation, signature_of
from sfumato_sandbox.errors import SandboxError, SessionClosed
from sfumato_sandbox.records import (
    ActionError,
    Artifact,
    Limits,
    Saved,
    State,
    StepResult,
    Tool,
)
from sfumato_sandbox.reports import Report, Violation, clean_text, short_list, text_pairs
from sfumato_sandbox.scratch import Directory
from sfumato_sandbox.snapshots import Parked
from sfumato_sandbox.zygote import Zygote

ToolState = tuple[Callable[[], Any], Callable[[Any], object]]
STATELESS: ToolState = (lambda: None, lambda state: None)


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
    snapshots: int = 0
    keep_files: bool = False


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
        tool_state: ToolState | None = None,
    ) -> None:
        self.limits = limits
        self.isolation_level = level
        self._zygote = zygote
        self._tools = tools
        self._signatures = {name: signature_of(tool) for name, tool in tools.items()}
        self._options = options
        self._seed = seed
        self._tool_state = tool_state
        self._lock = threading.RLock()
        self._closed = False
        self._running: Conversation | None = None
        self._actions = 0
        self._bound: set[str] = set()
        self._parked: OrderedDict[str, Parked] = OrderedDict()
        self._notify = -1
        self._leader = 0
        self._log: list[str] = []
        self._kept: dict[str, bytes | None] = {}
        self._dying: list[tuple[Child, Directory]] = []
        self._directory: Directory
        self._child: Child | None = self._spawn(0)

    # --- public ------------------------------------------------------------------------------

    def step(
        self,
        code: str,
        timeout_seconds: float | None = None,
        on_tick: Callable[[float, int], None] | None = None,
    ) -> StepResult:
        """Run one action and say what it did. Errors of the code are in the result, never raised.

        Arguments:
            code: Python source.
            timeout_seconds: wall-clock seconds for this action; None takes the session's limit.
            on_tick: called about every 0.2 s while the action runs, with the seconds so far and the
                bytes of output so far.

        Raises TypeError when `code` is no str, SessionClosed after `close`, SandboxError when the
        sandbox itself fails, and whatever a tool raises besides ToolCallError and ToolError.
        """
        if not isinstance(code, str):
            raise TypeError(f"code must be a str of Python source, got {type(code).__name__}")
        with self._lock:
            self._actions += 1
            self._log.append(code)
            started = time.monotonic()
            child = self._ready_child()
            action = self._running = Conversation(self._tools, self._signatures, self.limits)
            child.nonce = secrets.token_hex(
                8
            )  # whatever was forged or left over from an earlier action is void
            message = {
                "t": "run",
                "n": child.nonce,
                "code": code,
                "filename": f"<action {self._actions}>",
                "echo": self._options.echo,
                "await": self._options.top_level_await,
                "cues": self._options.cues,
            }
            try:
                action.run(
                    child,
                    message,
                    timeout_seconds or self.limits.timeout_seconds,
                    lambda: self._disk_full(child),
                    on_tick,
                )
            except BaseException:
                self._discard(child)
                raise
            finally:
                self._running = None
            return self._result(child, action, started)

    async def astep(self, code: str, timeout_seconds: float | None = None) -> StepResult:
        """Run one action in a thread, for use in an event loop. Cancelling it interrupts the action."""
        import asyncio

        work = asyncio.get_running_loop().run_in_executor(None, self.step, code, timeout_seconds)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.interrupt()
            await asyncio.wait([work])
            raise

    def interrupt(self) -> None:
        """End the running action from another thread, within 0.2 s and the grace time; no action, no effect."""
        running = self._running
        if running is not None:
            running.stopped = True

    def reset(self) -> None:
        """Forget everything, snapshots included: the next action starts in a fresh process and directory."""
        with self._lock:
            self._drop_all()
            self._bound.clear()
            self._kept = {}

    def snapshot(self) -> str:
        """Keep a copy of the process and its files as they are now; return an id for `restore`.

        Neither side is pickled: the copy is a fork that shares memory until one of them writes. At most
        `Options.snapshots` are kept, the one used longest ago goes first. State of the random generators
        is part of it; open threads cannot be.

        Raises SandboxError when the session was not opened with `snapshots`, when threads are running
        inside, or when there are tools whose state nobody saves (`tool_state`).
        """
        with self._lock:
            if not self._options.snapshots:
                raise SandboxError("snapshots were not asked for: open the session with snapshots=4, say")
            if self._tools and self._tool_state is None:
                raise SandboxError(
                    "the session has tools, whose state a snapshot must hold as well: open it with "
                    "tool_state=(save, load), or with tool_state=STATELESS when they have none"
                )
            child = self._ready_child()
            orders = snapshots.take(child)
            files = scratch.save(self._directory.fd, self.limits.disk_bytes)
            state = self._tool_state[0]() if self._tool_state else None
            name = secrets.token_hex(8)
            self._parked[name] = Parked(orders, files, frozenset(self._bound), self._actions, state)
            while len(self._parked) > self._options.snapshots:
                self._parked.popitem(last=False)[1].close()
            return name

    def restore(self, snapshot: str) -> None:
        """Go back to a snapshot: variables, random state, files, and the tools' state.

        Works after a time-out or a crash as well. The snapshot stays and can be restored again.
        Raises KeyError for one that is unknown or was dropped.
        """
        with self._lock:
            if snapshot not in self._parked:
                raise KeyError(f"no snapshot {snapshot!r}; there are {', '.join(self._parked) or 'none'}")
            parked = self._parked[snapshot]
            self._parked.move_to_end(snapshot)
            before, self._child = self._child, None
            if before is not None:
                before.kill(group=False)  # its memory is given back while the copy forks
            child = Child(self._zygote, self.limits)
            try:
                snapshots.restore(child, parked.orders, self._notify, self._leader)
            except BaseException:
                child.end(group=False)
                raise
            finally:
                if before is not None:
                    before.end(group=False)
            scratch.load(self._directory.fd, parked.files)
            if self._tool_state:
                self._tool_state[1](parked.tool_state)
            self._child = child
            self._bound = set(parked.bound)

    def save(self) -> Saved:
        """Write down each variable on its own, by pickle (cloudpickle where it is a declared package).

        For keeping a session beyond its process or machine; `snapshot` is quicker and complete. The bytes
        come from code that nobody vouches for: this package unpickles them only inside a sandbox, and so
        should you. Raises SandboxError when the process does not answer within its time limit.
        """
        with self._lock:
            answer, content = self._store("save", b"")
            try:
                names = tuple(clean_text(name, 200) for name in short_list(answer.get("kept"), 10_000))
                return Saved(content, names, text_pairs(answer.get("missed")), tuple(self._log))
            except TypeError as problem:
                raise SandboxError(f"save failed: a malformed answer ({problem})") from problem

    def load(self, saved: Saved) -> dict[str, str]:
        """Bind what was saved, inside; return the names that could not be bound, each with the reason."""
        with self._lock:
            answer, _ = self._store("load", saved.content)
            self._bound.update(saved.names)
            try:
                return text_pairs(answer.get("missed"))
            except TypeError as problem:
                raise SandboxError(f"load failed: a malformed answer ({problem})") from problem

    def _store(self, kind: str, content: bytes) -> tuple[dict[str, Any], bytes]:
        if not self._options.persistent:
            raise SandboxError(
                "a stateless session has no variables to keep; open an Interpreter(persistent=True)"
            )
        child = self._ready_child()
        child.nonce = secrets.token_hex(8)
        name = f".{secrets.token_hex(8)}"
        scratch.write(self._directory.fd, name, content)
        try:
            child.send({"t": kind, "n": child.nonce, "file": name})
            answer = snapshots.wait_for(child, self.limits.timeout_seconds, kind)
            if answer.get("t") != "stored" or answer.get("n") != child.nonce:
                raise SandboxError(f"{kind} failed: a message that belongs to no such request")
            files = scratch.collect(self._directory.fd, self.limits.file_bytes, {}, only=name)
        except BaseException:
            self._discard(child)
            raise
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory.fd)
        return answer, files[0].content if files else b""

    def files(self) -> dict[str, bytes | None]:
        """Return the session's files by relative path; folders have None for content."""
        with self._lock:
            self._ready_child()
            return scratch.save(self._directory.fd, self.limits.disk_bytes)

    def put_file(self, path: str, content: bytes) -> None:
        """Write a file into the session's directory, making the folders that it needs.

        Raises ValueError for a path that is absolute or leads outside, and OSError where a part of it
        is no folder (a link that the code made included).
        """
        with self._lock:
            self._ready_child()
            scratch.write(self._directory.fd, path, content)

    def close(self) -> None:
        """Kill the process, remove the files. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._zygote.gone:
                self._abandon()
            else:
                self._drop_all()

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
        if self._zygote.closed:
            raise SessionClosed("the interpreter is closed; make a new one")
        self._directory = Directory(self._zygote.root, self._zygote.root_fd)
        self._free = scratch.free(self._directory.fd)
        if self._kept:
            scratch.load(self._directory.fd, self._kept)
        return Child.by_zygote(
            self._zygote, self.limits, self._directory, init, bool(self._options.snapshots)
        )

    def _ready_child(self) -> Child:
        """Return the process that the next action runs in, confined and waiting."""
        if self._closed or self._zygote.closed:
            raise SessionClosed(
                "the session is closed, or its interpreter; open a new one with Interpreter.open"
            )
        self._bury()
        child = self._child
        if child is None:
            self._drop_all()  # a lost process whose snapshots nobody restored: they go with it
            child = self._child = self._spawn(self._actions - 1)
        if not child.ready:
            child.wait_ready()
            self._leader = child.leader
            if child.notify >= 0:
                self._notify = child.notify
        return child

    def _discard(self, child: Child) -> None:
        """Have the whole session's processes killed; their end is waited for later (`_bury`)."""
        child.kill()
        self._dying.append((child, self._directory))
        self._child = None
        self._forget_group()

    def _forget_group(self) -> None:
        """Let go of what belonged to processes that are gone or going."""
        while self._parked:
            self._parked.popitem()[1].close()
        self._leader = 0
        if self._notify >= 0:
            os.close(self._notify)
            self._notify = -1

    def _bury(self) -> None:
        while self._dying:
            child, directory = self._dying.pop()
            child.end()
            directory.close()

    def _abandon(self) -> None:
        """Close descriptors of processes and directories that went with the interpreter."""
        pairs = [*self._dying, *([(self._child, self._directory)] if self._child else [])]
        if self._child is None and self._leader:
            self._directory.close(gone=True)
        for child, directory in pairs:
            child.close()
            directory.close(gone=True)
        self._dying, self._child = [], None
        self._forget_group()

    def _drop_all(self) -> None:
        """End the process, all parked copies, and remove the files."""
        if self._child is not None:
            self._discard(self._child)
        elif self._leader:  # the process is gone, its parked copies are not
            self._zygote.request({"op": "kill", "pid": 0, "leader": self._leader, "group": True}).wait()
            self._directory.close()
            self._forget_group()
        self._bury()

    # --- one action --------------------------------------------------------------------------

    def _grown(self) -> bool:
        """Say, at the price of one call, whether a persistent process may hold much that has no name."""
        taken = self._free - scratch.free(self._directory.fd)
        return self._options.persistent and taken > self.limits.disk_bytes // 2

    def _disk_full(self, child: Child | None = None) -> bool:
        """Say whether the files exceed their limits: those with a name, and those that `child` keeps without one."""
        size, count = scratch.usage(self._directory.fd, self.limits.disk_files)
        if child is not None and child.host_pid:
            size += scratch.unnamed(child.host_pid, self._directory.path, self.limits.file_bytes)
        return size > self.limits.disk_bytes or count > self.limits.disk_files

    # --- the result --------------------------------------------------------------------------

    def _result(self, child: Child, action: Conversation, started: float) -> StepResult:
        report = None
        if action.report is not None:
            try:
                report = Report.read(action.report)
            except Violation as violation:
                action.violated(violation)
        artifacts: tuple[Artifact, ...] = ()
        if self._options.artifacts:
            artifacts = scratch.collect(self._directory.fd, self.limits.disk_bytes, self._directory.known)
        if not action.lost and self._disk_full(child if self._grown() else None):
            action.overfull()
        if self._options.keep_files and not (action.error and action.error.type == "DiskLimit"):
            self._kept = scratch.save(self._directory.fd, self.limits.disk_bytes)
        action.stdout.add(child.drain(child.out))
        action.stderr.add(child.drain(child.err))
        cpu, rss = (report.cpu, report.rss) if report else (0.0, 0)
        state: State = "kept" if self._options.persistent else "reset"
        if action.lost:
            child.kill(group=not self._parked)
            action.stdout.add(child.drain(child.out))
            ending = child.end(group=not self._parked)
            self._child = None
            if not self._parked:
                self._directory.close()
                self._forget_group()
            cpu, rss = ending.cpu, ending.rss
            state = "lost" if self._options.persistent else "reset"
            error = action.error
            if error is None and action.timed_out:
                error = action.late("but it did not react to the interrupt and was killed")
            elif error is None:
                error = ActionError("ProcessDied", ending.explain())
        else:
            assert report is not None
            error = action.judge(report)
            if not self._options.persistent:
                self._discard(child)
        earlier = set(self._bound)
        names = report.globals if report and not action.lost else ()
        self._bound.update(entry.name for entry in names)
        if error is not None and error.missing_name is not None:
            error = attrs.evolve(error, bound_earlier=error.missing_name in earlier)
        if self._options.spare and self._child is None and not self._parked:
            self._child = self._spawn(self._actions)
        out, out_cut = action.stdout.finish()
        err, err_cut = action.stderr.finish()
        return StepResult(
            ok=error is None,
            stdout=out,
            stderr=err,
            value_repr=report.value_repr if report and not action.lost else None,
            error=error,
            tool_calls=tuple(action.calls),
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
