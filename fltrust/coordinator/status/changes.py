"""When revocation status changed last: one number that is right as soon as a revocation is acknowledged."""

from __future__ import annotations

import threading

from fltrust.coordinator.ledger import Ledger
from fltrust.identity import Epoch
from fltrust.revocation.status import take_in

_PAGE = 1_000


class StatusChanges:
    """The epoch of the last event that can have changed a status. For many threads.

    The ledger tells of a commit before the caller who asked for it is answered; the table is read when
    somebody wants to know next.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._told = 1  # commits that we were told of, and how many of them are looked into
        self._seen = 0
        self._last = Epoch(0)
        ledger.subscribe(self._note)

    def last(self) -> Epoch:
        told = self._told
        if told != self._seen:
            with self._ledger.reading() as tx:
                fed = tx.statuses.fed
            with self._lock:
                if told > self._seen:
                    self._seen, self._last = told, fed
        return self._last

    def _note(self, _epoch: Epoch) -> None:
        with self._lock:
            self._told += 1


def catch_up(ledger: Ledger) -> None:
    """Take in what the feed says and the statuses do not know: events from before there were statuses.

    In one transaction: status is published from all of the feed, or not at all.
    """
    with ledger.reading() as tx:
        if tx.statuses.fed == tx.events.head:
            return
    with ledger.writing() as work:
        after, head = work.tx.statuses.fed, work.tx.events.head
        while events := work.tx.events.read(after, limit=_PAGE):
            for event in events:
                take_in(event, work.tx.statuses, home=work.book.domain)
            after = events[-1].epoch
        work.tx.statuses.feed_to(head)
