"""Time, injected: nothing in fltrust asks the machine directly."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

MAX_MILLISECONDS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, which is as far as `datetime` goes."""

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

BACKDATE = timedelta(seconds=60)
"""Every notBefore lies this far before the moment of issue, for verifiers whose clock is behind."""


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC. May jump; use it for what is signed or stored."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back. Use it for timeouts and ages."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def to_rfc3339(at: datetime) -> str:
    """Format an aware time as RFC 3339 in UTC with microseconds, e.g. ``2026-01-02T03:04:05.000006Z``."""
    if at.tzinfo is None:
        raise ValueError("expected an aware datetime, got a naive one")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> datetime:
    """Parse what `to_rfc3339` writes; a naive or non-UTC time raises ``ValueError``."""
    if len(text) > 32 or not text.endswith("Z"):
        raise ValueError("expected an RFC 3339 time in UTC ending in 'Z'")
    return datetime.fromisoformat(text[:-1] + "+00:00")


def to_milliseconds(at: datetime) -> int:
    """Milliseconds since 1970, cut: never later than `at`. What an SCT states (RFC 6962, 3.2)."""
    return (at - _UNIX_EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(count: int) -> datetime:
    """The time that `to_milliseconds` counts to; of at most `MAX_MILLISECONDS`."""
    return _UNIX_EPOCH + timedelta(milliseconds=count)
