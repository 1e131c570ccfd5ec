"""How often each of the coordinator's keys signed: counted as it happens, written into the log now and then.

A key that signs more than its work explains is in other hands. The count in the log is the coordinator's own
word; an HSM's audit trail, held against it, is somebody else's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from fltrust.coordinator.ledger import Ledger
from fltrust.errors import FltrustError
from fltrust.keys.usage import KeyCounter, KeyUse
from fltrust.tlog.entries import new_entry
from fltrust.tlog.keyacts import KeyUsed

_log = logging.getLogger(__name__)

PERIOD = timedelta(hours=1)
_QUIET = 4
"""Signatures of the note key alone that are not worth an entry, which itself makes it sign again."""


class KeyUsageDesk:
    """Reports what was counted, in entries of the log; safe to use from many threads.

    `counters` is asked each time: an issuing CA that is replaced brings another.
    """

    def __init__(self, ledger: Ledger, counters: Callable[[], Sequence[KeyCounter]]) -> None:
        self._ledger = ledger
        self._counters = counters
        self._known: dict[int, KeyCounter] = {}
        self._since: datetime = ledger.now()
        self._lock = threading.Lock()

    def look(self) -> tuple[KeyUse, ...]:
        """What was counted and not yet reported, key by key."""
        return tuple(counter.look() for counter in self._all())

    def report(self) -> tuple[KeyUse, ...]:
        """Write one entry for every key that was used since the last report, in one transaction.

        If it cannot be written the count stays, for the next report. Returns what was written.
        """
        with self._lock:
            counters = self._all()
            uses = [(counter, use) for counter in counters if _is_used(use := counter.look())]
            if all(use.name == "note" and use.since_last <= _QUIET and not use.failed for _, use in uses):
                return ()
            with self._ledger.writing() as work:
                since = min(self._since, work.now)
                for _, use in uses:
                    work.log(new_entry(_entry(use, since=since, at=work.now)))
                at = work.now
            for counter, use in uses:
                counter.told(use)
            self._since = at
            self._known = {id(counter): counter for counter in self._counters()}
            return tuple(use for _, use in uses)

    def _all(self) -> tuple[KeyCounter, ...]:
        # One that was replaced since the last report still has something to say.
        self._known |= {id(counter): counter for counter in self._counters()}
        return tuple(self._known.values())


class KeyUsageReports:
    """Reports every `period`, on a thread of its own, and once more at the end."""

    def __init__(self, desk: KeyUsageDesk, *, period: timedelta = PERIOD) -> None:
        self._desk = desk
        self._period = period.total_seconds()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fltrust-key-usage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(10)
        self._report()

    def _run(self) -> None:
        while not self._ending.wait(self._period):
            self._report()

    def _report(self) -> None:
        try:
            self._desk.report()
        except FltrustError as error:
            _log.warning("could not log the use of keys, trying again later: %s", error)


def _is_used(use: KeyUse) -> bool:
    return bool(use.since_last or use.failed)


def _entry(use: KeyUse, *, since: datetime, at: datetime) -> KeyUsed:
    return KeyUsed(
        at=at,
        since=since,
        key=use.name,
        key_id=use.key_id,
        home=use.home,
        signatures=use.since_last,
        failed=use.failed,
    )
