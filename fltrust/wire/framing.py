"""Frames for a stream socket: four bytes of length, big-endian, then one protobuf message.

The length is checked before a byte of the message is read, so a peer cannot make us hold more
than the limit. A stream that ends between frames ends; one that ends inside a frame is `Malformed`.
"""

from __future__ import annotations

import socket
import struct

from google.protobuf.message import Message

from fltrust.errors import Malformed, Oversized
from fltrust.wire.values import M, parse

MAX_FRAME = 1024 * 1024
MAX_SEAL_FRAME = 64 * 1024 * 1024
"""For an aggregator's socket only: a seal crosses it whole."""

_LENGTH = struct.Struct(">I")
_PIECE = 256 * 1024


def pack(message: Message, *, limit: int = MAX_FRAME) -> bytes:
    """One frame. `Oversized` if the peer would refuse it."""
    body = message.SerializeToString()
    if len(body) > limit:
        raise Oversized(f"expected a {type(message).__name__} of at most {limit} bytes, got {len(body)}")
    return _LENGTH.pack(len(body)) + body


def send(sock: socket.socket, message: Message, *, limit: int = MAX_FRAME) -> None:
    """Write one frame, whole."""
    sock.sendall(pack(message, limit=limit))


def receive(sock: socket.socket, kind: type[M], *, limit: int = MAX_FRAME) -> M | None:
    """Read one frame; None if the peer closed before another began."""
    head = _receive_exactly(sock, _LENGTH.size)
    if head is None:
        return None
    size = _length(head, limit)
    body = _receive_exactly(sock, size)
    if body is None and size:
        raise _cut()
    return parse(kind, body or b"", limit=limit)


def _length(head: bytes, limit: int) -> int:
    size: int = _LENGTH.unpack(head)[0]
    if size > limit:
        raise Oversized(f"expected a frame of at most {limit} bytes, got one of {size}")
    return size


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    """Read `size` bytes; None if the stream ended before the first."""
    data = bytearray()
    while len(data) < size:
        # In pieces: what is announced is not allocated before it comes.
        piece = sock.recv(min(size - len(data), _PIECE))
        if not piece:
            if data:
                raise _cut()
            return None
        data += piece
    return bytes(data)


def _cut() -> Malformed:
    return Malformed("expected a whole frame, the stream ended inside one")
