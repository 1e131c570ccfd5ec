"""When identities were last seen: noted in memory as they call, written down now and then."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from fltrust.coordinator.ledger import Work
from fltrust.identity import SpiffeId

GRAIN = timedelta(minutes=1)
"""A call within it after the last one noted is not noted: what is shown is as exact as that."""
WRITE_EVERY = timedelta(minutes=1)
_MAX_WRITTEN = 2_048


class Presence:
    """Safe to use from many threads. A crash loses what was not written: at most about a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[SpiffeId, datetime] = {}
        self._unwritten: set[SpiffeId] = set()
        self._written_at: datetime | None = None

    def note(self, who: SpiffeId, at: datetime) -> None:
        """Somebody called whose certificate stood well."""
        last = self._seen.get(who)  # without the lock: the usual answer is that there is nothing to do
        if last is not None and at - last < GRAIN:
            return
        with self._lock:
            self._seen[who] = at
            self._unwritten.add(who)

    def write(self, work: Work, *, only_if_due: bool = False) -> None:
        """Write down what is new, in the caller's transaction; with `only_if_due`, once a minute."""
        with self._lock:
            is_due = self._written_at is None or work.now - self._written_at >= WRITE_EVERY
            if not self._unwritten or (only_if_due and not is_due):
                return
            chosen = list(self._unwritten)[:_MAX_WRITTEN]
            found = {who: self._seen[who] for who in chosen}
            self._unwritten.difference_update(chosen)
            self._written_at = work.now
        try:
            work.tx.sightings.put(found)
        except BaseException:
            with self._lock:
                self._unwritten.update(found)
            raise
