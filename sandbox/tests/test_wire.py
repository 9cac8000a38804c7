"""Frames: what goes in comes out, whatever the pieces; what is none is refused before it costs memory."""

import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_sandbox._inside import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4), st.integers(1, 40))
def test_messages_survive_any_cutting(messages, piece):
    data = b"".join(map(wire.encode, messages))
    reader = wire.Reader(1 << 20)
    seen = []
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
        while (message := reader.next()) is not None:
            seen.append(message)
    assert seen == messages and not reader.buffer


@given(st.binary(max_size=64))
def test_noise_is_a_wire_error_or_waits_for_more(noise):
    reader = wire.Reader(64)
    reader.feed(noise)
    try:
        while reader.next() is not None:
            pass
    except wire.WireError:
        pass


def test_a_length_over_the_limit_is_refused_before_the_body_comes():
    reader = wire.Reader(100)
    reader.feed(wire.HEADER.pack(101))
    with pytest.raises(wire.WireError, match="101 bytes; at most 100"):
        reader.next()


@pytest.mark.parametrize(
    "body", [b"[1]", b"1", b"{", b"\xff", b'{"a":' + b"[" * 5000, b'{"a":' + b"1" * 5000 + b"}"]
)
def test_only_json_objects_are_messages(body):
    reader = wire.Reader(1 << 20)
    reader.feed(wire.HEADER.pack(len(body)) + body)
    with pytest.raises(wire.WireError):
        reader.next()


def test_descriptors_ride_on_their_own_message():
    ours, theirs = socket.socketpair()
    first, second = os.pipe()
    with ours, theirs:
        wire.send_with_fds(ours, {"n": 1}, [])
        wire.send_with_fds(ours, {"n": 2}, [first, second])
        wire.send_with_fds(ours, {"n": 3}, [])
        got = [wire.receive_with_fds(theirs) for _ in range(3)]
        assert [message["n"] for message, _ in got] == [1, 2, 3]
        assert [len(fds) for _, fds in got] == [0, 2, 0]
        ours.close()
        assert wire.receive_with_fds(theirs) == (None, [])
    for fd in (first, second, *got[1][1]):
        os.close(fd)
