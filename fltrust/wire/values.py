"""The small words of the wire: names, times, enum words and bounded bytes, parsed at the edge.

Whatever comes out of a parser here is well formed; whatever does not parse raises `Malformed`,
with ``unknown-type`` where the word or the kind is one that this version does not know.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from fltrust.errors import Malformed, Oversized, Refusal
from fltrust.identity import SpiffeId

MAX_MESSAGE = 1024 * 1024
"""Bytes of one protobuf message on any port of ours."""

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS = 253402300799  # 9999-12-31T23:59:59Z, the last that a Timestamp and a datetime share
_MIN_SECONDS = -62135596800  # 0001-01-01T00:00:00Z

M = TypeVar("M", bound=Message)
W = TypeVar("W", bound=StrEnum)


class _Sized(Protocol):
    def __len__(self) -> int: ...


def parse(kind: type[M], data: bytes, *, limit: int = MAX_MESSAGE) -> M:
    """Parse one message of at most `limit` bytes; `Oversized` before parsing, `Malformed` after."""
    if len(data) > limit:
        raise Oversized(f"expected a {kind.__name__} of at most {limit} bytes, got {len(data)}")
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError):  # ValueError: a string that is not UTF-8
        raise Malformed(f"expected a {kind.__name__} in protobuf, got bytes that are not one") from None
    return message


def word(kind: type[W], text: str, *, what: str) -> W:
    """Read a word of an enum; one that is not listed is refused with ``unknown-type``."""
    try:
        return kind(text)
    except ValueError:
        raise Malformed(
            f"expected {what} of {', '.join(kind)}, got {text[:80]!r}", reason=Refusal.UNKNOWN_TYPE
        ) from None


def missing(what: str) -> Malformed:
    """The error for a oneof of which no known arm is set: what came may be newer than we are."""
    return Malformed(f"expected {what}, got none that is known here", reason=Refusal.UNKNOWN_TYPE)


def present(message: Message, field: str) -> None:
    """Raise `Malformed` unless the message field `field` is set."""
    if not message.HasField(field):
        raise Malformed(f"expected '{field}' in a {type(message).__name__}, got none")


def bounded(value: bytes, *, limit: int, what: str) -> bytes:
    """Return `value` if it has 1 to `limit` bytes; `Malformed` when empty, `Oversized` above."""
    if not value:
        raise Malformed(f"expected {what}, got nothing")
    return bounded_or_none(value, limit=limit, what=what) or b""


def bounded_or_none(value: bytes, *, limit: int, what: str) -> bytes | None:
    """As `bounded`, but empty bytes are None: on the wire the two are one."""
    if len(value) > limit:
        raise Oversized(f"expected {what} of at most {limit} bytes, got {len(value)}")
    return value or None


def at_most(items: _Sized, limit: int, *, what: str) -> None:
    """Raise `Oversized` when there are more than `limit` items."""
    if len(items) > limit:
        raise Oversized(f"expected at most {limit} {what}, got {len(items)}")


def text_within(value: str, *, limit: int, what: str) -> str:
    """Return `value` if it has at most `limit` characters."""
    if len(value) > limit:
        raise Oversized(f"expected {what} of at most {limit} characters, got {len(value)}")
    return value


def spiffe_or_none(text: str) -> SpiffeId | None:
    """Read a SPIFFE ID; the empty string is None."""
    return SpiffeId.parse(text) if text else None


def text_of(value: object | None) -> str:
    """Write an optional name: None is the empty string."""
    return "" if value is None else str(value)


def time_to_pb(at: datetime) -> Timestamp:
    """Write an aware time, exact to the microsecond."""
    if at.tzinfo is None:
        raise ValueError("expected an aware datetime, got a naive one")
    since = at - _EPOCH_START
    return Timestamp(seconds=since // timedelta(seconds=1), nanos=since.microseconds * 1000)


def time_from_pb(stamp: Timestamp) -> datetime:
    """Read a time, aware, in UTC; what a datetime cannot hold is `Malformed`."""
    if not _MIN_SECONDS <= stamp.seconds <= _MAX_SECONDS or not 0 <= stamp.nanos < 1_000_000_000:
        raise Malformed(f"expected a time between the years 1 and 9999, got {stamp.seconds} s")
    return _EPOCH_START + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def time_from_field(message: Message, field: str) -> datetime:
    """Read a time that must be there."""
    present(message, field)
    return time_from_pb(getattr(message, field))


def time_from_optional(message: Message, field: str) -> datetime | None:
    """Read a time that may be absent."""
    return time_from_pb(getattr(message, field)) if message.HasField(field) else None
