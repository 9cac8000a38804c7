"""The loop of a child: take code from the channel, run it in one namespace, report what happened.

Everything that this process reports about itself is a claim; the host counts tool calls, keeps
time, and decides about life and state on its own.
"""

from __future__ import annotations

import ast
import builtins
import io
import json
import linecache
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

import durable
import wire

MAX_MESSAGE, MAX_TRACEBACK, MAX_NAMES = 4096, 8192, 512
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class ActionTimeout(BaseException):
    """The action ran longer than it may."""


class ToolCallError(TypeError):
    """A tool was called badly: wrong number or types of arguments."""


class ToolError(RuntimeError):
    """A tool was called well, but it refused or failed."""


class ToolCallLimit(RuntimeError):
    """The action called more tools than one action may."""


for _shown in (ActionTimeout, ToolCallError, ToolError, ToolCallLimit):
    _shown.__module__ = "builtins"  # so that tracebacks show the bare name

RAISES: dict[str, type[BaseException]] = {
    "call": ToolCallError,
    "failed": ToolError,
    "limit": ToolCallLimit,
    "timeout": ActionTimeout,
}


def _jsonable(value: Any) -> Any:
    """Turn numpy scalars and arrays into numbers and lists; refuse anything else by name."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=_jsonable)


class Runner:
    """One namespace and the channel to the host."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.reader = wire.Reader(1 << 30)
        self.lock = threading.Lock()
        self.nonce = ""
        self.calls = 0
        self.memory = resource.getrlimit(resource.RLIMIT_AS)
        self.roomy = False
        self.running = False  # an interrupt may raise
        self.critical = 0  # … but not while a frame is half written
        self.pending = False
        self.tools: dict[str, Callable[..., Any]] = {}
        self.message_bytes = 0
        self.restore_names = True
        self.loop: Any = None

    # --- the channel -------------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> None:
        wire.write_all(self.fd, wire.encode(message))

    def serve(self) -> None:
        """Answer the host until it closes the channel."""
        while True:
            message = self.reader.read(self.fd)
            if message is None:
                os._exit(0)
            kind = message["t"]
            if kind == "init":
                self.start(message)
            elif kind == "run":
                self.send(self.run(message))
            elif kind == "snapshot":
                self.park()
            elif kind in ("save", "load"):
                self.nonce = message["n"]
                self.send({"t": "stored", "n": self.nonce, **durable.ACTIONS[kind](self, message["file"])})

    # --- snapshots ---------------------------------------------------------------------------

    def park(self) -> None:
        """Leave a copy of this process behind; returns here, and once more in every restored copy."""
        if len(sys._current_frames()) > 1:
            return self.send(
                {"t": "snapped", "n": self.nonce, "error": "threads are running, and a copy loses them"}
            )
        self.send({"t": "snapping", "n": self.nonce})
        with socket.socket(fileno=os.dup(self.fd)) as carrier:
            _, (orders_fd,) = wire.receive_with_fds(carrier)
        draws = random.getstate()  # the standard library seeds this generator anew in each forked copy
        try:
            copy = os.fork()
        except OSError as error:
            os.close(orders_fd)
            return self.send({"t": "snapped", "n": self.nonce, "error": str(error)})
        if copy:
            os.close(orders_fd)
            return self.send({"t": "snapped", "n": self.nonce, "error": None})
        os.close(self.fd)
        orders = socket.socket(fileno=orders_fd)
        while True:
            order, fds = wire.receive_with_fds(orders)
            if order is None:
                os._exit(0)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass  # restored processes that have ended since
            except ChildProcessError:
                pass
            try:
                restored = os.fork()
            except OSError as error:
                wire.send_with_fds(orders, {"error": str(error)}, [])
                restored = -1
            if restored == 0:
                break
            for fd in fds:
                os.close(fd)
            if restored > 0:
                wire.send_with_fds(orders, {"pid": restored}, [])
        orders.close()
        for source, target in zip(fds, (self.fd, 1, 2), strict=True):
            if source != target:
                os.dup2(source, target, inheritable=False)
                os.close(source)
        random.setstate(draws)
        self.reader = wire.Reader(1 << 30)
        self.send({"t": "ready", "n": order["nonce"]})
        return None

    # --- the namespace -----------------------------------------------------------------------

    def start(self, message: dict[str, Any]) -> None:
        """Make the namespace: a fresh `__main__`, the tools, the modules, a seeded random state."""
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.namespace = module.__dict__
        self.namespace["__builtins__"] = builtins
        self.message_bytes = message["message_bytes"]
        self.restore_names = message["restore_names"]
        self.given: dict[str, Any] = {"ToolCallError": ToolCallError, "ToolError": ToolError}
        for name, doc in message["tools"].items():
            self.tools[name] = self.given[name] = self.stub(name, doc)
        self.namespace.update(self.given)
        for name in message["modules"]:
            self.namespace[name] = __import__(name)
        self.reseed(message["seed"])
        self.redirect()
        self.rehearse()

    def rehearse(self) -> None:
        """Go through one empty action, so that the pages a first action writes to are this process's own already.

        A forked process pays for each page it first writes; paid here, ahead of time, an action does not wait.
        """
        action = {
            "n": "",
            "code": "pass",
            "filename": "<action 0>",
            "echo": False,
            "await": False,
            "cues": "none",
        }
        wire.encode(self.run(action))
        linecache.cache.clear()

    def reseed(self, seed: int) -> None:
        """Seed `random`, and numpy's legacy generator where numpy has been loaded."""
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % (1 << 32))

    def redirect(self) -> None:
        """Point the text streams at descriptors 1 and 2, flushed at every line end."""
        for name, fd in (("stdout", 1), ("stderr", 2)):
            binary = io.BufferedWriter(io.FileIO(fd, "w", closefd=False), 1 << 16)
            stream = io.TextIOWrapper(binary, "utf-8", "backslashreplace", "\n", line_buffering=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def stub(self, name: str, doc: dict[str, str]) -> Callable[..., Any]:
        def tool(*args: Any, **kwargs: Any) -> Any:
            return self.call(name, args, kwargs)

        tool.__name__ = tool.__qualname__ = name
        tool.__module__ = "__main__"
        tool.__doc__ = "\n\n".join(filter(None, (f"{name}{doc['signature']}", doc["doc"])))
        return tool

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the host carry out one tool call. Only JSON-like values cross."""
        message: dict[str, Any] = {"t": "call", "n": self.nonce, "tool": name, "args": args, "kwargs": kwargs}
        try:
            message["id"] = self.calls = self.calls + 1
            frame = wire.encode(message, _encoder)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolCallError(
                f"{name}: arguments must be None, bool, int, float, str, list or dict with str keys; got {error}"
            ) from None
        if len(frame) > self.message_bytes:
            raise ToolCallError(
                f"{name}: arguments take {len(frame)} bytes; at most {self.message_bytes} are sent"
            )
        with self.lock:
            if not self.running:
                raise ToolError(f"{name}: tools can be called only while an action runs")
            self.critical += 1
            try:
                wire.write_all(self.fd, frame)
                answer = self.reader.read(self.fd)
                while answer is not None and answer.get("id") != message["id"]:
                    answer = self.reader.read(self.fd)
            finally:
                self.critical -= 1
        if answer is None:
            os._exit(0)
        if self.pending:
            self.pending = False
            raise ActionTimeout
        if answer["ok"]:
            return answer["value"]
        raise RAISES[answer["kind"]](answer["message"])

    def interrupted(self, number: int, frame: Any) -> None:
        """The host's clock ran out: raise in the main thread, at a moment when that is safe."""
        if self.critical:
            self.pending = True
        elif self.running:
            raise ActionTimeout

    # --- one action --------------------------------------------------------------------------

    def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run one action and describe it. Whatever the code does, this returns or the process dies."""
        self.nonce = message["n"]
        self.pending = False
        signal.signal(signal.SIGINT, self.interrupted)
        cpu = time.process_time()
        report: dict[str, Any] = {"t": "done", "n": self.nonce, "error": None, "value_repr": None}
        if self.roomy:
            self.roomy = False
            resource.setrlimit(resource.RLIMIT_AS, self.memory)
        try:
            try:
                self.running = True
                try:
                    report["value_repr"] = self.execute(message)
                except BaseException as error:
                    report["error"] = self.describe(error)
                self.flush()
            finally:
                self.running = False
        except BaseException as error:  # from describing a hostile exception, or an interrupt just then
            self.running = False
            name = type(error).__name__
            report["error"] = {"type": name, "message": "", "traceback": name, "missing_name": None}
        with self.lock:
            pass  # a tool call of a thread may still be on its way; later ones are refused
        report["restored"] = self.restore()
        report["globals"] = self.inventory(message["cues"])
        report["cpu"] = time.process_time() - cpu
        report["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return report

    def execute(self, message: dict[str, Any]) -> str | None:
        source, filename = message["code"], message["filename"]
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        tail = None
        flags = AWAIT if message["await"] else 0
        if message["echo"]:
            tree = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST, True)
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                tail = ast.Expression(tree.body.pop().value)
            code = compile(tree, filename, "exec", flags, True)
        else:
            code = compile(source, filename, "exec", flags, True)
        self.evaluate(code)
        if tail is not None:
            value = self.evaluate(compile(tail, filename, "eval", flags, True))
            if value is not None:
                return repr(value)[:MAX_MESSAGE]
        return None

    def evaluate(self, code: types.CodeType) -> Any:
        result = eval(code, self.namespace)
        if not code.co_flags & 0x80:  # CO_COROUTINE: the action awaits something at its top level
            return result
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(result)
        try:
            return self.loop.run_until_complete(task)
        except ActionTimeout:
            task.cancel()
            for _ in range(10):  # let it unwind, but do not wait for code that refuses to
                if task.done():
                    break
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()
            raise

    def describe(self, error: BaseException) -> dict[str, Any]:
        """Type, message and a traceback of the action's own frames."""
        if isinstance(error, MemoryError):  # use the room above the soft limit to say so
            self.roomy = True
            resource.setrlimit(resource.RLIMIT_AS, (self.memory[1], self.memory[1]))
        missing = error.name if type(error) is NameError else None
        try:
            text = str(error)
        except Exception as problem:
            text = f"<its __str__ raised {type(problem).__name__}>"
        frames = [
            frame
            for frame in traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
            if frame.filename.startswith("<action ")
        ]
        shown = traceback.StackSummary.from_list(frames).format()
        if len(shown) > 20:
            shown = [*shown[:5], f"  … {len(shown) - 20} frames left out …\n", *shown[-15:]]
        if isinstance(error, SyntaxError):
            last = "".join(traceback.format_exception_only(type(error), error))
        else:
            last = f"{type(error).__name__}: {text}" if text else type(error).__name__
        lines = "Traceback (most recent call last):\n" + "".join(shown) if shown else ""
        return {
            "type": type(error).__name__,
            "message": text[:MAX_MESSAGE],
            "traceback": lines[-MAX_TRACEBACK:] + last[:MAX_MESSAGE].rstrip("\n"),
            "missing_name": missing if isinstance(missing, str) else None,
        }

    def flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                self.redirect()  # the code closed or replaced it; the next action gets a new one
                break

    def restore(self) -> list[str]:
        """Give tools their names back, and drop globals that hide a builtin. Returns what was touched."""
        if not self.restore_names:
            return []
        touched = [name for name, value in self.given.items() if self.namespace.get(name) is not value]
        self.namespace.update(self.given)
        for name in [name for name in self.namespace if type(name) is str and hasattr(builtins, name)]:
            if not name.startswith("_"):
                del self.namespace[name]
                touched.append(name)
        return touched

    def inventory(self, cues: str) -> list[list[Any]]:
        """Name, type and size of the globals, without running code of theirs (no `repr`, no `__len__`)."""
        rows: list[list[Any]] = []
        for name, value in list(self.namespace.items()):
            if type(name) is not str or name.startswith("__") or name in self.given:
                continue
            kind = type(value)
            size = len(value) if kind in SIZED else None
            row: list[Any] = [name[:64], kind.__name__[:64], size]
            if cues == "values_preview":
                row.append(preview(value))
            rows.append(row)
            if len(rows) >= MAX_NAMES:
                break
        return rows


def preview(value: Any) -> str:
    """Show the first characters of a plain value; containers by their first plain items. Bounded work."""
    kind = type(value)
    if kind in (str, bytes):
        return repr(value[:40]) + ("…" if len(value) > 40 else "")
    if kind is int and abs(value) >= 10**40:
        return "<int>"
    if kind in PLAIN:
        return repr(value)[:60]
    if kind in (list, tuple):
        inner = ", ".join(preview(item) if type(item) in PLAIN else "…" for item in value[:4])
        return f"{'[' if kind is list else '('}{inner}{', …' if len(value) > 4 else ''}{']' if kind is list else ')'}"
    return f"<{kind.__name__[:40]}>"


SIZED = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset, range})
PLAIN = frozenset({str, bytes, int, float, bool, complex, type(None), range})
