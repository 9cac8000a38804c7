"""A worker process seen from its supervisor: asked for runs, watched from outside, ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfumato import cgroups
from sfumato.claims import Stop
from sfumato.processes import MARKER, Tree
from sfumato.records import Limits, Status
from sfumato.store import STOPPED

GRACE_SECONDS = 3.0
"""Between TERM and KILL."""
EXIT_SECONDS = 10.0
"""Time a worker has to leave after its last run is done; a run that is done stays done."""
POLL_SECONDS = 0.1
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that a process is sent, where others tell of its own faults."""
STDERR_BYTES = 16 << 20
"""A run's error stream longer than this loses its middle."""
STDERR_HEAD = 256 << 10
STDERR_TAIL = 1 << 20

Progress = Callable[[float, str], None]
Verdict = tuple[Status, str]


class Child:
    """One worker process that makes runs, one after another, and everything that it starts.

    `environment` is its whole environment; `memory_mb` asks for a control group with that limit, where one can be made.
    """

    def __init__(self, environment: Mapping[str, str], memory_mb: float | None = None) -> None:
        marker = uuid.uuid4().hex
        self._group = cgroups.Group.make(marker[:12], int(memory_mb * 1e6)) if memory_mb else None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (what the interpreter says before the first run)
        entrance = {cgroups.CGROUP: self._group.entrance} if self._group else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sfumato.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**environment, MARKER: marker, **entrance},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._channel = self._process.stdout
        os.set_blocking(self._channel.fileno(), False)
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._pidfd = -1
        with contextlib.suppress(OSError, AttributeError):  # an old kernel or another system: it is polled instead
            self._pidfd = os.pidfd_open(self._process.pid)
            self._selector.register(self._pidfd, selectors.EVENT_READ)
        self._tree = Tree(self._process.pid, marker)
        self.runs = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak_mb(self) -> float:
        """The largest resident size of the process tree that was seen, MB."""
        return self._tree.peak_mb

    @property
    def memory_watch(self) -> str:
        """Who keeps the memory limit."""
        polled = "resident size of the process tree, 10 times a second"
        return f"cgroup v{self._group.version}, and {polled}" if self._group else polled

    def exited(self) -> bool:
        """Return whether the process has ended. It is not reaped here, so that its group's number stays its own."""
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # whoever ignores SIGCHLD has no children to wait for; the status is lost then
            return True

    def make(
        self, folder: Path, limits: Limits, on_progress: Progress, stop: threading.Event | Stop, last: bool
    ) -> dict[str, Any] | Verdict:
        """Make the run of a folder; return its outcome, or a verdict (status, error) when it was not let or gave none.

        `last`: the process is to leave afterwards. After a verdict the process is gone.
        """
        self.runs += 1
        self._tree.peak_mb = 0.0
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps({"folder": str(folder.absolute())}).encode() + b"\n" * (2 if last else 1))
            self._requests.flush()
        began = polled = time.monotonic()
        while True:
            self._wait()
            exited = self.exited()  # asked before reading: what it said before it ended is then all there
            for message in self._messages(on_progress):
                if "outcome" in message:
                    return dict(message["outcome"])
                if "done" in message:
                    trim(folder / "stderr.txt")
                    self._tree.look()  # its children are told by it while it lives
                    if not last:  # what this run started must not burden the next one
                        self._tree.kill_children(spare=self._tree.ignored)
                    return read_outcome(folder)
            if exited:
                return self._death()
            clock = time.monotonic()
            if stop.is_set():
                self.end(GRACE_SECONDS)
                return Status.INTERRUPTED, STOPPED
            if limits.seconds is not None and clock - began > limits.seconds:
                self.end(GRACE_SECONDS)
                return Status.TIMEOUT, f"passed its time limit of {limits.seconds:g} s"
            if clock - polled >= POLL_SECONDS:
                polled = clock
                size = self._tree.look()
                trim(folder / "stderr.txt")
                if limits.memory_mb is not None and (size > limits.memory_mb or self._killed_by_kernel()):
                    return self._over_memory(limits.memory_mb)

    def _wait(self) -> None:
        """Wait for a message or the end of the process, a tenth of a second at most."""
        if self._pidfd >= 0:
            self._selector.select(POLL_SECONDS)
        elif not self._selector.get_map() or not self._selector.select(POLL_SECONDS / 5):
            time.sleep(POLL_SECONDS / 20)

    def _messages(self, on_progress: Progress) -> list[dict[str, Any]]:
        """Read what has come; hand on progress, return the rest."""
        try:
            data = self._channel.read()
        except ValueError:
            return []
        if data == b"" and self._channel in {k.fileobj for k in self._selector.get_map().values()}:
            self._selector.unregister(self._channel)  # closed: it would be ready for ever
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        messages = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                message = json.loads(line)
                if "guardian" in message:
                    self._tree.ignored = frozenset({int(message["guardian"])})
                elif "progress" in message:
                    on_progress(float(message["progress"]), str(message["message"]))
                else:
                    messages.append(message)
        return messages

    def _killed_by_kernel(self) -> bool:
        return self._group is not None and self._group.kills() > 0

    def _over_memory(self, limit_mb: float) -> Verdict:
        self.end(0.0)
        return Status.KILLED, f"passed its memory limit of {limit_mb:g} MB (watched by: {self.memory_watch})"

    def _death(self) -> Verdict:
        """Return why the process ended without an outcome."""
        over = self._killed_by_kernel()
        self.end(0.0)
        if over:
            return Status.KILLED, f"the kernel killed it at its memory limit (watched by: {self.memory_watch})"
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            if -code in FROM_OUTSIDE:
                return Status.KILLED, f"the worker was killed from outside by {name}; its error stream is in stderr.txt"
            return Status.FAILED, f"the worker died of {name}; its error stream is in stderr.txt"
        said = f" It said: {self._last_words}" if self._last_words else ""
        return Status.FAILED, f"the worker left with status {code} and no outcome; its error stream is in stderr.txt.{said}"

    def leave(self) -> None:
        """Let the process end by itself, then end whatever it left behind."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._requests.write(b"\n")
            self._requests.flush()
        deadline = time.monotonic() + EXIT_SECONDS
        while not self.exited() and time.monotonic() < deadline:
            self._wait()
            self._messages(lambda fraction, message: None)
            self._tree.look()
        self.end(0.0)

    def end(self, grace: float) -> None:
        """End the process group and all descendants: TERM, wait, KILL."""
        if self._process.returncode is not None:
            return
        group = self._process.pid
        if grace and not self.exited():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while not self.exited() and time.monotonic() < deadline:
                time.sleep(0.02)
        self._tree.kill_children()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        self._tree.kill_strays()
        if self._group is not None:
            self._group.kill()
            self._group.remove()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._last_words = lines[-1] if lines else ""
        self._errors.close()
        self._selector.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._channel.close()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()


def trim(path: Path) -> None:
    """Cut the middle out of an error stream that is too long; the first and the last words stay.

    Its writers append, so they go on behind what is left. What they write while it is cut may be lost.
    """
    with contextlib.suppress(OSError):
        if (size := path.stat().st_size) <= STDERR_BYTES:
            return
        with path.open("r+b") as file:
            head = file.read(STDERR_HEAD)
            file.seek(size - STDERR_TAIL)
            tail = file.read(STDERR_TAIL)
            note = f"\n[... cut out here: an error stream is kept up to {STDERR_BYTES >> 20} MiB ...]\n"
            file.seek(0)
            file.write(head + note.encode() + tail)
            file.truncate()


def read_outcome(folder: Path) -> dict[str, Any] | Verdict:
    """Return what a worker wrote of its run."""
    try:
        return dict(json.loads((folder / "outcome.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        return Status.INTERRUPTED, f"the outcome in {folder} cannot be read: {error}"
