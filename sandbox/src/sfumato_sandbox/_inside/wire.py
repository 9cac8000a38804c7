"""Length-prefixed JSON over a stream socket, the same on both sides of the channel.

A frame is four bytes (little-endian length) and that many bytes of ASCII JSON holding one object.
Nothing on this channel is ever unpickled. Both ends bound the length before they read a body, so
the far side cannot make the near side allocate more than `limit` bytes a frame.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

HEADER = struct.Struct("<I")
READ_SIZE = 1 << 16
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=True)


class WireError(Exception):
    """The other end sent something that is not a frame of this channel."""


def encode(message: dict[str, Any], encoder: json.JSONEncoder = _encoder) -> bytes:
    """Return one frame. Raises TypeError or ValueError for what JSON cannot carry."""
    body = encoder.encode(message).encode("ascii")
    return HEADER.pack(len(body)) + body


def write_all(fd: int, data: bytes) -> None:
    """Write every byte to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Reader:
    """Cut frames out of a byte stream; `limit` is the longest body accepted, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes as they arrived."""
        self.buffer += data

    def next(self) -> dict[str, Any] | None:
        """Return the next whole message, or None until more bytes have come.

        Raises WireError for a body over the limit, for what is not JSON (numbers of thousands of
        digits and nesting that exhausts the parser included), and for anything but an object.
        """
        buffer = self.buffer
        if len(buffer) < 4:
            return None
        (length,) = HEADER.unpack_from(buffer)
        if length > self.limit:
            raise WireError(f"a message of {length} bytes; at most {self.limit} are accepted")
        if len(buffer) < 4 + length:
            return None
        body = bytes(buffer[4 : 4 + length])
        del buffer[: 4 + length]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise WireError(f"not JSON: {type(error).__name__}") from error
        if not isinstance(message, dict):
            raise WireError(f"a JSON {type(message).__name__} where an object belongs")
        return message

    def read(self, fd: int) -> dict[str, Any] | None:
        """Block until a whole message is there; None at the end of the stream."""
        while (message := self.next()) is None:
            data = os.read(fd, READ_SIZE)
            if not data:
                return None
            self.feed(data)
        return message


def send_with_fds(control: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """Send one frame over a control socket, descriptors riding on its first byte."""
    frame = encode(message)
    sent = socket.send_fds(control, [frame], fds) if fds else control.send(frame)
    control.sendall(frame[sent:])


def receive_with_fds(control: socket.socket, limit: int = 1 << 20) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next frame of a control socket and its descriptors; None at the end of the stream."""
    head, fds, _, _ = socket.recv_fds(control, HEADER.size, 8)
    if not head:
        return None, fds
    head += _exactly(control, HEADER.size - len(head))
    (length,) = HEADER.unpack(head)
    if length > limit:
        raise WireError(f"a control message of {length} bytes; at most {limit} are accepted")
    message: dict[str, Any] = json.loads(_exactly(control, length))
    return message, fds


def _exactly(control: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = control.recv(count - len(data))
        if not more:
            raise WireError("the control socket ended in the middle of a message")
        data += more
    return data
