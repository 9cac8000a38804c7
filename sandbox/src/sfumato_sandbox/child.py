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

from sfumato_sandbox._inside import wire
from sfumato_sandbox.errors import SandboxError
from sfumato_sandbox.records import Limits
from sfumato_sandbox.reports import Violation
from sfumato_sandbox.scratch import Directory
from sfumato_sandbox.zygote import Ticket, Zygote

SEND_SECONDS, RECEIVE_SECONDS = 1, 30
DRAIN_BYTES = 1 << 20
CREDENTIALS = hasattr(socket, "SO_PASSCRED") and hasattr(socket, "SCM_CREDENTIALS")
_UCRED = struct.Struct("@iII")
_READ = select.POLLIN | select.POLLHUP


@attrs.frozen
class Ending:
    """How a process ended: exit status (negative: signal number; None: unknown), CPU seconds, peak resident bytes."""

    status: int | None
    cpu: float
    rss: int

    def explain(self) -> str:
        """Say in words what ended the process, where nobody outside killed it."""
        if self.status is None:
            return "the process died (it came from a snapshot; how it died is not known)"
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
    """A process of a session. Making one only asks for it; `wait_ready` is where it is waited for.

    `request` is what the process is asked from: the zygote (`by_zygote`), or a parked snapshot.
    """

    def __init__(self, zygote: Zygote, limits: Limits) -> None:
        self.zygote = zygote
        self.nonce = secrets.token_hex(8)
        self.reader = wire.Reader(limits.message_bytes)
        self.ready = False
        self.pid = self.leader = 0
        self.host_pid = 0  # the same process in the host's own pid namespace, where that can be told
        self.notify = -1
        self.dead = False
        self._kill: Ticket | None = None
        self._fork: Ticket | None = None
        self.theirs: list[int] = []
        try:
            self.channel, theirs = socket.socketpair()
            self.theirs.append(theirs.detach())
            self.out, write_out = os.pipe()
            self.theirs.append(write_out)
            self.err, write_err = os.pipe()
            self.theirs.append(write_err)
        except OSError as error:
            raise SandboxError(
                f"a session needs 5 descriptors, but {error}; close sessions or raise `ulimit -n`"
            ) from error
        self.fd = self.channel.fileno()
        # A process that has stopped itself must not block the host for ever.
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", RECEIVE_SECONDS, 0))
        if CREDENTIALS:
            self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        for fd in (self.out, self.err):
            os.set_blocking(fd, False)
        self.poll = select.poll()
        for fd in (self.fd, self.out, self.err):
            self.poll.register(fd, _READ)

    @classmethod
    def by_zygote(
        cls, zygote: Zygote, limits: Limits, directory: Directory, init: dict[str, Any], snapshots: bool
    ) -> Child:
        """Ask the zygote for a process."""
        child = cls(zygote, limits)
        names = ("memory_bytes", "cpu_seconds", "file_bytes", "open_files")
        request = {
            "op": "fork",
            "limits": {name: getattr(limits, name) for name in names},
            "scratch": directory.path,
            "nonce": child.nonce,
            "snapshots": snapshots,
        }
        try:
            child._fork = zygote.request(request, [*child.theirs, directory.fd])
        finally:
            child.hand_over()
        child.send({"t": "init", **init})
        return child

    def hand_over(self) -> None:
        """Close the far ends here, once the other process has them."""
        while self.theirs:
            os.close(self.theirs.pop())

    def send(self, message: dict[str, Any]) -> None:
        """Write a frame; an end that is gone is noticed when reading.

        Raises Violation when the far side leaves its messages unread for SEND_SECONDS: it has stopped
        itself, or sends without listening, and would hold the host up.
        """
        try:
            self.channel.sendall(wire.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BlockingIOError as error:
            raise Violation("it does not read what it is sent") from error

    def wait_ready(self) -> None:
        """Wait until the process is confined and about to read its first action.

        Raises SandboxError when it could not be made: then nothing ran unconfined.
        """
        if self.ready:
            return
        if self._fork is not None:
            answer = self._fork.wait()
            if "error" in answer:
                raise SandboxError(f"making a process failed: {answer['error']}")
            self.pid = self.leader = answer["pid"]
        self.identify()
        message, fds = wire.receive_with_fds(self.channel)
        if message != {"t": "ready", "n": self.nonce}:
            raise SandboxError(f"confining a process failed: {(message or {}).get('message', 'it died')}")
        if fds:
            self.notify = fds[0]
            self.poll.register(self.notify, _READ)
        self.ready = True

    def identify(self) -> None:
        """Learn from the kernel which process sent the first message, which waits to be read and stays there."""
        if not CREDENTIALS:
            return
        with contextlib.suppress(OSError):
            _, ancillary, _, _ = self.channel.recvmsg(1, socket.CMSG_SPACE(_UCRED.size), socket.MSG_PEEK)
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    self.host_pid = _UCRED.unpack(data[: _UCRED.size])[0]
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)

    def interrupt(self) -> None:
        """Ask the action to stop, as Ctrl-C would."""
        self.zygote.signal(self.pid, self.leader, signal.SIGINT)

    def drain(self, fd: int) -> bytes:
        """Return what the output pipe holds right now, up to DRAIN_BYTES: a flood must not hold the host up."""
        chunks = []
        for _ in range(DRAIN_BYTES >> 16):
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

    def kill(self, group: bool = True) -> None:
        """Ask the zygote to kill the process, with `group` all that its session forked, without waiting."""
        if self._kill is None and not self.dead:
            if not self.pid and self._fork is not None:
                self.pid = self.leader = self._fork.wait().get("pid", 0)
            self._kill = self.zygote.request(
                {"op": "kill", "pid": self.pid, "leader": self.leader, "group": group}
            )

    def close(self) -> None:
        """Give the descriptors back. The process, if it lives, sees the end of its channel."""
        if not self.dead:
            self.dead = True
            self.channel.close()
            self.hand_over()
            for fd in (self.out, self.err):
                os.close(fd)

    def end(self, group: bool = True) -> Ending:
        """Kill, wait for the end, give the descriptors back."""
        answer: dict[str, Any] = {}
        try:
            self.kill(group)
            if self._kill is not None:
                answer = self._kill.wait()
        finally:
            self.close()
        return Ending(answer.get("status"), answer.get("cpu", 0.0), answer.get("rss", 0))
