"""How often something was refused, by reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fltrust.errors import FltrustError


class RefusalCounter:
    """Counts by `FltrustError.reason`; safe to use from many threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, reason: str) -> None:
        with self._lock:
            self._counts[reason] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count whatever error of ours leaves the block; it goes on."""
        try:
            yield
        except FltrustError as error:
            self.count(error.reason)
            raise

    def snapshot(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)
