"""One confined process as the host sees it: its channel, its output, its directory, its end."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import socket
import struct
from typing import Any

import attrs

from sfumato_sandbox import scratch
from sfumato_sandbox._inside import wire
from sfumato_sandbox.errors import SandboxError
from sfumato_sandbox.records import Limits
from sfumato_sandbox.zygote import Ticket, Zygote

SEND_SECONDS = 5
_READ = select.POLLIN | select.POLLHUP


@attrs.frozen
class Ending:
    """How a process ended: exit status (negative: signal number), CPU seconds, peak resident bytes."""

    status: int
    cpu: float
    rss: int

    def explain(self) -> str:
        """Say in words what ended the process, where nobody outside killed it."""
        if self.status >= 0:
            return f"the process ended itself with status {self.status}"
        name = signal.Signals(-self.status).name
        meaning = {
            "SIGSEGV": "segmentation fault in native code or too deep a recursion",
            "SIGKILL": "the kernel killed it (out of memory or CPU time)",
            "SIGXCPU": "it used up its CPU time",
            "SIGABRT": "native code aborted, often for want of memory",
            "SIGSYS": "a forbidden system call",
        }.get(name, "a signal ended it")
        return f"the process died of {name}: {meaning}"


class Child:
    """Made by `spawn`, which only asks for it; `wait_ready` is where its creation is waited for."""

    def __init__(self, zygote: Zygote, limits: Limits, init: dict[str, Any], snapshots: bool = False) -> None:
        self.zygote = zygote
        self.limits = limits
        self.nonce = secrets.token_hex(8)
        self.reader = wire.Reader(limits.message_bytes)
        self.ready = False
        self.pid = 0
        self.dead = False
        self.name = f"s{secrets.token_hex(6)}"
        self.known: dict[str, tuple[int, int]] = {}
        self._kill: Ticket | None = None
        fds: list[int] = []
        try:
            os.mkdir(self.name, 0o700, dir_fd=zygote.root_fd)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            self.directory = os.open(self.name, flags, dir_fd=zygote.root_fd)
            self.channel, theirs = socket.socketpair()
            fds = [theirs.detach()]
            self.out, write_out = os.pipe()
            fds.append(write_out)
            self.err, write_err = os.pipe()
            fds.append(write_err)
        except OSError as error:
            raise SandboxError(
                f"a session needs 4 descriptors and a directory, but {error}; close sessions or raise `ulimit -n`"
            ) from error
        self.fd = self.channel.fileno()
        # A process that has stopped itself must not block the host for ever.
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))
        for fd in (self.out, self.err):
            os.set_blocking(fd, False)
        self.poll = select.poll()
        for fd in (self.fd, self.out, self.err):
            self.poll.register(fd, _READ)
        request = {
            "op": "fork",
            "limits": {
                name: getattr(limits, name)
                for name in ("memory_bytes", "cpu_seconds", "file_bytes", "open_files")
            },
            "scratch": os.path.join(zygote.root, self.name),
            "nonce": self.nonce,
            "snapshots": snapshots,
        }
        try:
            self._fork = zygote.request(request, [*fds, self.directory])
        finally:
            for fd in fds:
                os.close(fd)
        self.send({"t": "init", **init})

    def send(self, message: dict[str, Any]) -> None:
        """Write a frame; an end that is gone is noticed when reading."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self.channel.sendall(wire.encode(message))

    def wait_ready(self) -> None:
        """Wait until the process is confined and about to read its first action.

        Raises SandboxError when it could not be made: then nothing ran unconfined.
        """
        if self.ready:
            return
        answer = self._fork.wait()
        if "error" in answer:
            self.dead = True
            raise SandboxError(f"making a process failed: {answer['error']}")
        self.pid = answer["pid"]
        message = self.reader.read(self.fd)
        if message != {"t": "ready", "n": self.nonce}:
            raise SandboxError(f"confining a process failed: {(message or {}).get('message', 'it died')}")
        self.ready = True

    def interrupt(self) -> None:
        """Ask the action to stop, as Ctrl-C would."""
        self.zygote.signal(self.pid, signal.SIGINT)

    def drain(self, fd: int) -> bytes:
        """Return what the output pipe holds right now."""
        chunks = []
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    break
                raise
            if not data:
                self.poll_forget(fd)
                break
            chunks.append(data)
            if len(data) < 1 << 12:
                break
        return b"".join(chunks)

    def poll_forget(self, fd: int) -> None:
        """Stop watching a pipe whose other end was closed, which would wake the poll for ever."""
        with contextlib.suppress(KeyError):
            self.poll.unregister(fd)

    def disk_full(self) -> bool:
        """Say whether the files of this session exceed its limits."""
        size, count = scratch.usage(self.directory, self.limits.disk_files)
        return size > self.limits.disk_bytes or count > self.limits.disk_files

    def kill(self) -> None:
        """Ask the zygote to kill the process and all that it forked, without waiting for it."""
        if self._kill is None and not self.dead:
            self.pid = self.pid or self._fork.wait().get("pid", 0)
            self._kill = self.zygote.request({"op": "kill", "pid": self.pid})

    def end(self) -> Ending:
        """Kill, wait for the end, give everything back."""
        answer: dict[str, Any] = {}
        try:
            self.kill()
            if self._kill is not None:
                answer = self._kill.wait()
        finally:
            if not self.dead:
                self.dead = True
                self.channel.close()
                for fd in (self.out, self.err, self.directory):
                    os.close(fd)
                scratch.remove(self.zygote.root_fd, self.name)
        return Ending(answer.get("status", 0), answer.get("cpu", 0.0), answer.get("rss", 0))
