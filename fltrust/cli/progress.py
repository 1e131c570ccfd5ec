"""Progress of hashing, on standard error, where a person is looking and only if it takes long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_AFTER = 0.5
_EVERY = 0.2


@contextmanager
def progress_on_stderr(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback for bytes done and to do; None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    line = _Line(what)
    try:
        yield line.show
    finally:
        line.clear()


class _Line:
    """One line that is written over; safe to call from any thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._next = time.monotonic() + _FIRST_AFTER
        self._width = 0

    def show(self, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _EVERY
            share = 100 * done // total if total else 100
            text = f"{self._what}: {share} % of {total / 2**20:,.0f} MiB"
            self._width = max(self._width, len(text))
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
