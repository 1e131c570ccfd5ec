"""Counters of what was let through and what was refused, by reason."""

from __future__ import annotations

import threading
from collections import Counter

from fltrust.clock import Clock


class Counters:
    """Named counts; safe to use from many threads. Names are ours and few: a caller cannot make new ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def snapshot(self) -> dict[str, int]:
        """Every count so far, e.g. ``{"connections.accepted": 4, "refused.wrong-node": 1}``."""
        with self._lock:
            return dict(sorted(self._counts.items()))


class Throttle:
    """Lets `burst` things through at once and `rate` a second after that; counts what it holds back.

    For log lines: who is refused a thousand times a second shall not fill the disk of who refuses.
    """

    def __init__(self, clock: Clock, *, rate: float = 20.0, burst: float = 200.0) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = clock.monotonic()
        self.held_back = 0

    def lets_through(self) -> bool:
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            self.held_back += 1
            return False
        self._left -= 1.0
        return True

    def take_held_back(self) -> int:
        """How many were held back since the last call."""
        count, self.held_back = self.held_back, 0
        return count
