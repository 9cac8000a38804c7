"""Snapshots: a forked copy of a session's process, parked at the end of an action.

The copy shares memory with the original until one of them writes, so that neither taking nor
restoring one depends on pickling. The child may not fork on its own: its seccomp filter puts each fork
before the host, which lets exactly the one of a snapshot pass.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import time
from typing import Any

import attrs

from sfumato_sandbox._inside import wire
from sfumato_sandbox.child import Child
from sfumato_sandbox.errors import SandboxError

NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # seccomp's ioctls; the same on all machines
EPERM, CONTINUE = 1, 1
SECONDS = 10.0
ORDER_BYTES = 4096


@attrs.define
class Parked:
    """A parked copy: the socket for its orders, and what the host knew at that moment."""

    orders: socket.socket
    files: dict[str, bytes | None]
    bound: frozenset[str]
    actions: int
    tool_state: Any

    def close(self) -> None:
        """Let the copy end."""
        self.orders.close()


def answer_fork(notify: int, allow: bool) -> None:
    """Answer one waiting fork of the child. Only registers decide a fork, so CONTINUE cannot be tricked."""
    request = bytearray(80)
    try:
        fcntl.ioctl(notify, NOTIF_RECV, request)
        (number,) = struct.unpack_from("=Q", request)
        answer = struct.pack("=QqiI", number, 0, 0 if allow else -EPERM, CONTINUE if allow else 0)
        fcntl.ioctl(notify, NOTIF_SEND, bytearray(answer))
    except FileNotFoundError:
        pass  # the caller died meanwhile


def _await(
    source: socket.socket, reader: wire.Reader, notify: int, wanted: str, forks: int, seconds: float = SECONDS
) -> dict[str, Any]:
    """Read the next message of `source`, letting at most `forks` forks pass meanwhile.

    The far side may be hostile: it can neither make this wait longer than `seconds`, nor send more
    than the reader accepts; descriptors that it attaches are dropped by the kernel.
    """
    poll = select.poll()
    poll.register(source, select.POLLIN)
    if notify >= 0:
        poll.register(notify, select.POLLIN)
    deadline = time.monotonic() + seconds
    try:
        while (message := reader.next()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SandboxError(f"{wanted} failed: no answer within {seconds:g} s")
            for fd, event in poll.poll(left * 1000 + 1):
                if fd != notify:
                    data = source.recv(wire.READ_SIZE)
                    if not data:
                        raise SandboxError(f"{wanted} failed: the process died")
                    reader.feed(data)
                elif event & select.POLLIN:
                    answer_fork(notify, allow=forks > 0)
                    forks -= 1
                else:
                    poll.unregister(notify)  # no process with this filter is left
        return message
    except (OSError, wire.WireError) as error:
        raise SandboxError(f"{wanted} failed: {error}") from error


def wait_for(child: Child, seconds: float, wanted: str) -> dict[str, Any]:
    """Return the child's next message; raises SandboxError when none comes in time."""
    return _await(child.channel, child.reader, child.notify, wanted, 0, seconds)


def take(child: Child) -> socket.socket:
    """Have the child leave a parked copy; return the socket for its orders.

    Raises SandboxError when threads run in the child, or when it does not answer.
    """
    child.send({"t": "snapshot"})
    message = _await(child.channel, child.reader, child.notify, "a snapshot", 0)
    if message.get("t") == "snapping":
        ours, theirs = socket.socketpair()
        ours.settimeout(SECONDS)
        with theirs:
            wire.send_with_fds(child.channel, {}, [theirs.fileno()])
        try:
            message = _await(child.channel, child.reader, child.notify, "a snapshot", 1)
            if message.get("t") == "snapped" and message.get("error") is None:
                return ours
        except BaseException:
            ours.close()
            raise
        ours.close()
    raise SandboxError(f"a snapshot was refused: {str(message.get('error'))[:200]}")


def restore(child: Child, orders: socket.socket, notify: int, leader: int) -> None:
    """Make `child`, which is not yet anybody, a fork of the parked copy."""
    try:
        wire.send_with_fds(orders, {"nonce": child.nonce}, child.theirs)
        answer = _await(orders, wire.Reader(ORDER_BYTES), notify, "restoring", 1)
    except OSError as error:
        raise SandboxError(f"restoring failed: the parked copy is gone ({error})") from error
    finally:
        child.hand_over()
    pid = answer.get("pid")
    if type(pid) is not int:
        raise SandboxError(f"restoring failed: {str(answer.get('error'))[:200]}")
    child.pid, child.leader, child.notify = pid, leader, notify
    with contextlib.suppress(KeyError):
        child.poll.register(notify, select.POLLIN) if notify >= 0 else None
    waiting = select.poll()
    waiting.register(child.fd, select.POLLIN)
    if waiting.poll(SECONDS * 1000):
        child.identify()
    ready = _await(child.channel, child.reader, notify, "restoring", 0)
    if ready != {"t": "ready", "n": child.nonce}:
        raise SandboxError("restoring failed: the copy did not say that it is ready")
    child.ready = True
