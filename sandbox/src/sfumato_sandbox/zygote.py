"""The host's handle of a zygote process: start it, have it fork, signal and kill children."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from typing import Any

from sfumato_sandbox import scratch
from sfumato_sandbox._inside import wire
from sfumato_sandbox.cgroup import ControlGroup
from sfumato_sandbox.errors import SandboxError, SessionClosed

MAIN = pathlib.Path(__file__).with_name("_inside") / "zygote.py"
ANSWER_SECONDS = 30.0
WARM_SECONDS = 180.0  # matplotlib's first import looks at every font of the machine
SHARED_MEMORY, ROOM = "/dev/shm", 1 << 30
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # one order of sets everywhere, so that one action has one outcome
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pandas loads pyarrow, whose allocator would start a thread
    "ARROW_IO_THREADS": "1",
    "MPLBACKEND": "Agg",
    "TZ": "UTC",
}


class Ticket:
    """An answer that the zygote will give; asking for it is what waits."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self.answer: dict[str, Any] | None = None

    def wait(self) -> dict[str, Any]:
        """Return the answer. Raises SandboxError when the zygote is gone or does not answer in 30 s."""
        while self.answer is None:
            self._zygote.receive(self)
        return self.answer


class Zygote:
    """One warmed interpreter that forks children. Thread-safe; answers come in the order of requests."""

    def __init__(
        self, config: dict[str, Any], scratch_dir: str | None = None, group: ControlGroup | None = None
    ) -> None:
        self.root = tempfile.mkdtemp(prefix="sfumato-sandbox-", dir=scratch_dir or _quick_folder())
        self.root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._send_lock = threading.Lock()
        self._receive_lock = threading.Lock()
        self._pending: deque[Ticket] = deque()
        ours, theirs = socket.socketpair()
        ours.settimeout(WARM_SECONDS)
        self._control = ours
        with theirs, open(os.path.join(self.root, "zygote.log"), "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-P", "-s", str(MAIN), str(theirs.fileno())],
                env={**ENVIRONMENT, "HOME": self.root, "MPLCONFIGDIR": _font_cache()},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._finalizer = weakref.finalize(
            self, _end, self.process, ours, self.root, self.root_fd, os.getpid(), group
        )
        if group is not None:
            group.add(self.process.pid)  # before it is told anything: it has forked nothing yet
        wire.send_with_fds(ours, {**config, "scratch_root": self.root}, [])
        try:
            self.ready = self._answer()
            if "error" in self.ready:
                raise SandboxError(self.ready["error"])
            ours.settimeout(ANSWER_SECONDS)
        except SandboxError as error:
            with open(os.path.join(self.root, "zygote.log"), errors="replace") as log_file:
                told = log_file.read()[-2000:]
            self.close()
            raise SandboxError(f"starting the warmed interpreter failed: {error}\n{told}".rstrip()) from error

    @property
    def closed(self) -> bool:
        """Whether `close` was called: then its directory and its processes are gone."""
        return not self._finalizer.alive

    @property
    def gone(self) -> bool:
        """Whether there is nobody left to ask: closed, or the process has died."""
        return self.closed or self.process.poll() is not None

    def request(self, message: dict[str, Any], fds: list[int] | None = None) -> Ticket:
        """Send a request and return the ticket for its answer, without waiting."""
        ticket = Ticket(self)
        with self._send_lock:
            if self.closed:
                raise SessionClosed("the interpreter is closed; open a new one")
            try:
                wire.send_with_fds(self._control, message, fds or [])
            except OSError as error:
                raise SandboxError(f"the zygote is gone ({error}); open a new interpreter") from error
            self._pending.append(ticket)
        return ticket

    def signal(self, pid: int, leader: int, number: int) -> None:
        """Send a signal to a child, if it still lives."""
        with self._send_lock, contextlib.suppress(OSError):
            wire.send_with_fds(
                self._control, {"op": "signal", "pid": pid, "leader": leader, "number": number}, []
            )

    def receive(self, wanted: Ticket) -> None:
        """Take the next answer off the socket, unless another thread has filled `wanted` meanwhile."""
        with self._receive_lock:
            if wanted.answer is None:
                self._pending[0].answer = self._answer()
                self._pending.popleft()

    def _answer(self) -> dict[str, Any]:
        try:
            answer, _ = wire.receive_with_fds(self._control)
        except (OSError, wire.WireError) as error:
            raise SandboxError(f"the zygote did not answer: {error}; open a new interpreter") from error
        if answer is None:
            raise SandboxError(f"the zygote ended with status {self.process.wait(5)}; open a new interpreter")
        return answer

    def close(self) -> None:
        """End the zygote and all its children, and remove their files. May be called again."""
        self._finalizer()


def _quick_folder() -> str | None:
    """Return a folder in memory where there is one with room: making a directory on a busy disk takes milliseconds."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    spacious = room.f_bavail * room.f_frsize >= ROOM and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    return SHARED_MEMORY if spacious else None


def _font_cache() -> str:
    """Return a folder where matplotlib keeps its list of fonts, which takes seconds to make.

    Only the warmed process writes there, before it is confined and before it runs foreign code.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "sfumato-sandbox", "matplotlib")


def _end(
    process: subprocess.Popen[bytes],
    control: socket.socket,
    root: str,
    root_fd: int,
    owner: int,
    group: ControlGroup | None,
) -> None:
    if os.getpid() != owner:  # a forked copy of the host must not end its parent's zygote
        return
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)
    control.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name in os.listdir(root_fd):
        with contextlib.suppress(OSError):
            if os.path.isdir(os.path.join(root, name)):
                scratch.remove(root_fd, name)
            else:
                os.unlink(name, dir_fd=root_fd)
    os.close(root_fd)
    os.rmdir(root)
    if group is not None:
        group.close()
