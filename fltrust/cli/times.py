"""Durations and points in time as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fltrust.errors import Malformed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> timedelta:
    """Read `90s`, `15m`, `1h`, `7d` or a sum such as `1h30m`; anything else raises `Malformed`."""
    if not re.fullmatch(r"(?:\d{1,6}[smhd])+", text):
        raise Malformed(f"expected a duration such as 15m or 1h30m, got {text[:40]!r}")
    seconds = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))
    return timedelta(seconds=seconds)


def parse_time(text: str, *, now: datetime) -> datetime:
    """Read an ISO 8601 time (UTC unless it says otherwise) or a duration ago, such as `2h`."""
    if re.fullmatch(r"(?:\d{1,6}[smhd])+", text):
        return now - parse_duration(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(
            f"expected a time such as 2026-01-31T12:00:00Z, or 2h for two hours ago, got {text[:40]!r}"
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
