"""Frames: bounded before they are read, whole or not at all."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from fltrust.errors import Malformed, Oversized
from fltrust.wire.framing import pack, receive, send
from fltrust.wire.pb import agent_pb2, trust_pb2

SIGNED = agent_pb2.SignUpdateResponse(signed=b"s" * 300_000)


def read(data: bytes) -> object:
    """What a reader makes of these bytes, followed by the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=lambda: (theirs.sendall(data), theirs.close()), daemon=True).start()
        return outcome(lambda: receive(ours, agent_pb2.SignUpdateResponse))


def outcome(call: object) -> object:
    try:
        return call()  # type: ignore[operator]
    except (Malformed, Oversized) as error:
        return type(error)


def test_a_frame_arrives_whole() -> None:
    assert read(pack(SIGNED)) == SIGNED


def test_an_empty_message_is_a_frame_too() -> None:
    empty = agent_pb2.SignUpdateResponse()
    assert read(pack(empty)) == empty


def test_the_end_between_frames_is_the_end() -> None:
    assert read(b"") is None


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 1_000])
def test_the_end_inside_a_frame_is_malformed(cut: int) -> None:
    assert read(pack(SIGNED)[:cut]) is Malformed


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    assert read(struct.pack(">I", 1024 * 1024 + 1)) is Oversized
    assert read(struct.pack(">I", 2**32 - 1)) is Oversized


def test_bytes_that_are_no_message_are_malformed() -> None:
    assert read(struct.pack(">I", 4) + b"\xff" * 4) is Malformed


def test_what_the_peer_would_refuse_is_not_sent() -> None:
    with pytest.raises(Oversized):
        pack(SIGNED, limit=1_000)


def test_several_frames_follow_each_other_on_one_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for epoch in range(5):
            send(theirs, trust_pb2.WatchRequest(after_epoch=epoch))
        theirs.close()
        found = []
        while (message := receive(ours, trust_pb2.WatchRequest)) is not None:
            found.append(message.after_epoch)
    assert found == list(range(5))
