"""A clock that moves when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """A `Clock` for tests: the same `now` until `advance`. Safe to share between threads."""

    def __init__(self, at: datetime = START) -> None:
        self._lock = threading.Lock()
        self._now = at
        self._monotonic = 1_000.0
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, by: timedelta) -> None:
        """Let time pass, for both clocks; then tell those who want to know."""
        with self._lock:
            self._now += by
            self._monotonic += by.total_seconds()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each `advance`, in the advancing thread."""
        with self._lock:
            self._listeners.append(listener)
