"""Counters: how often each thing happened, and was refused for each reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fltrust.errors import FltrustError


class Counters:
    """Counts by name; safe to use from many threads. Names are dotted: ``refused.token-used``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def get(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def snapshot(self) -> Mapping[str, int]:
        """Every counter at one moment."""
        with self._lock:
            return dict(self._counts)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Count whatever error of fltrust's leaves the block, as ``refused.<reason>``, and let it go on."""
        try:
            yield
        except FltrustError as error:
            self.add(f"refused.{error.reason}")
            raise
