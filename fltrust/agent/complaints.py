"""Trouble that lasts, told once: a superlink that is away for an hour does not fill the log."""

from __future__ import annotations

import logging
import threading


class Complaints:
    """Says each kind of trouble once on `log`, and once that it is over. Safe to use from many threads."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def say(self, kind: str, message: str) -> None:
        with self._lock:
            is_new = kind not in self._said
            self._said.add(kind)
        self._log.log(logging.WARNING if is_new else logging.DEBUG, "%s", message)

    def all_is_well(self, who: str) -> None:
        if not self._said:
            return
        with self._lock:
            was_trouble, self._said = bool(self._said), set()
        if was_trouble:
            self._log.warning("%s answers again", who)
