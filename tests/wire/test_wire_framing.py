"""Frames: bounded before they are read, whole or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import pytest

from fltrust.errors import Malformed, Oversized
from fltrust.wire.framing import pack, receive, receive_async, send, send_async
from fltrust.wire.pb import agent_pb2, trust_pb2

SIGNED = agent_pb2.SignUpdateResponse(signed=b"s" * 300_000)


def exchange(data: bytes) -> tuple[object, ...]:
    """What a reader makes of these bytes, followed by the end: synchronously and with asyncio."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=lambda: (theirs.sendall(data), theirs.close()), daemon=True).start()
        sync = outcome(lambda: receive(ours, agent_pb2.SignUpdateResponse))

    async def read() -> object:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await receive_async(reader, agent_pb2.SignUpdateResponse)

    return sync, outcome(lambda: asyncio.run(read()))


def outcome(call: object) -> object:
    try:
        return call()  # type: ignore[operator]
    except (Malformed, Oversized) as error:
        return type(error)


def test_a_frame_arrives_whole() -> None:
    assert exchange(pack(SIGNED)) == (SIGNED, SIGNED)


def test_an_empty_message_is_a_frame_too() -> None:
    empty = agent_pb2.SignUpdateResponse()
    assert exchange(pack(empty)) == (empty, empty)


def test_the_end_between_frames_is_the_end() -> None:
    assert exchange(b"") == (None, None)


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 1_000])
def test_the_end_inside_a_frame_is_malformed(cut: int) -> None:
    assert exchange(pack(SIGNED)[:cut]) == (Malformed, Malformed)


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    assert exchange(struct.pack(">I", 1024 * 1024 + 1)) == (Oversized, Oversized)
    assert exchange(struct.pack(">I", 2**32 - 1)) == (Oversized, Oversized)


def test_bytes_that_are_no_message_are_malformed() -> None:
    assert exchange(struct.pack(">I", 4) + b"\xff" * 4) == (Malformed, Malformed)


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


def test_asyncio_and_sockets_speak_the_same() -> None:
    ours, theirs = socket.socketpair()

    async def answer() -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        request = await receive_async(reader, agent_pb2.AgentRequest)
        assert request is not None
        assert request.WhichOneof("request") == "identity"
        await send_async(writer, agent_pb2.AgentResponse(error=agent_pb2.AgentError(reason="no")))
        writer.close()

    with ours:
        server = threading.Thread(target=lambda: asyncio.run(answer()))
        server.start()
        send(ours, agent_pb2.AgentRequest(identity=agent_pb2.IdentityRequest()))
        response = receive(ours, agent_pb2.AgentResponse)
        server.join(20)
    assert response is not None
    assert response.error.reason == "no"
