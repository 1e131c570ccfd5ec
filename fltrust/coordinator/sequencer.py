"""Group commit: what many callers write at the same time becomes durable with one commit.

A commit waits for the disk; an entry of the log is a few hundred bytes. So callers queue, one of them
leads: it takes what has gathered, writes all of it in one transaction, and hands the lead to the next in
line. There is no thread of its own, nothing waits for more to come, and a caller alone waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Generic, TypeVar, cast

from fltrust.coordinator.ledger import Ledger, Work
from fltrust.errors import FltrustError, LimitExceeded, StorageUnavailable
from fltrust.tlog.ports import LoggedEntry, NewEntry, check_entry

MAX_WAITING = 8_192
"""Callers that wait at the same time."""
MAX_BATCH = 512
"""Of them, at most so many in one transaction."""
MAX_SECONDS = 0.05
"""A transaction that has lasted so long takes no further item: a revocation does not wait for a crowd."""

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Item(Generic[_T]):
    """One caller's wish: an entry to append, or a job. `result` or `error` is set before `turn`."""

    entry: NewEntry | None = None
    job: Callable[[Work], _T] | None = None
    turn: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    result: _T | None = None
    error: BaseException | None = None


class Sequencer:
    """Runs small writes in shared transactions; safe to call from many threads.

    Every call returns after its own write is durable, and raises if it is not. Calls are written in
    the order in which they came; which of them share a transaction is left to chance.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_waiting: int = MAX_WAITING,
        max_batch: int = MAX_BATCH,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._lock = threading.Lock()  # guards the queue and who leads; never held while the store is written
        self._queue: deque[_Item[Any]] = deque()
        self._is_led = False

    def append(self, entry: NewEntry) -> LoggedEntry:
        """Append one entry to the log and return it in its place.

        What is wrong with the entry itself is refused before it waits. `LimitExceeded` (``log-busy``) when
        too many wait; `StorageUnavailable` as `Store.writing` raises it, to all who shared the transaction.
        """
        check_entry(entry)
        return cast(LoggedEntry, self._wait_for(_Item[LoggedEntry](entry=entry)))

    def run(self, job: Callable[[Work], _T]) -> _T:
        """Run `job` in a transaction that others may share, and return what it returned.

        It is undone if it raises, and nobody else's with it. It sees what jobs before it wrote. A job that
        takes an epoch ends its transaction: `Work.state` is always that of the head. A job may not wait
        for anything, nor write through another transaction.
        """
        return cast(_T, self._wait_for(_Item[_T](job=job)))

    def _wait_for(self, item: _Item[_T]) -> _T | None:
        with self._lock:
            if len(self._queue) >= self._max_waiting:
                raise LimitExceeded(
                    f"expected at most {self._max_waiting} writes waiting for the log",
                    reason="log-busy",
                    hint="try again in a moment",
                )
            self._queue.append(item)
            leads, self._is_led = not self._is_led, True
        if not leads:
            self._wait(item)
        if not item.done:
            self._lead()
        if item.error is not None:
            raise item.error
        return item.result

    def _wait(self, item: _Item[Any]) -> None:
        """Until the item is done, or leads."""
        try:
            item.turn.wait()
        except BaseException:  # somebody interrupts this thread: it must not be waited for
            with self._lock:
                if item in self._queue and not item.turn.is_set():
                    self._queue.remove(item)
            if item.turn.is_set() and not item.done:
                self._lead()
            raise

    def _lead(self) -> None:
        """Write one batch, which begins with the leader's own item, and pass the lead on."""
        with self._lock:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
        written = len(batch)
        try:
            written = self._write(batch)
        finally:
            with self._lock:
                self._queue.extendleft(reversed(batch[written:]))
                for item in batch[:written]:
                    item.done = True
                    item.turn.set()
                self._is_led = bool(self._queue)
                if self._queue:
                    self._queue[0].turn.set()

    def _write(self, batch: list[_Item[Any]]) -> int:
        """Write a batch from its front, as far as one transaction goes; how many items have an answer."""
        if len(batch) == 1 and batch[0].job is not None:
            return self._write_alone(batch[0], batch[0].job)
        answered, trying = 0, len(batch)
        try:
            with self._ledger.writing() as work:
                end = self._monotonic() + MAX_SECONDS
                while answered < len(batch) and not work.emitted:
                    if answered and self._monotonic() >= end:
                        break
                    trying = _together(batch[answered:])
                    _write_together(batch[answered : answered + trying], work)
                    answered, trying = answered + trying, 0
        except BaseException as error:
            # Nothing of it is known to be durable. Who was refused alone keeps that answer.
            answered = answered + trying if isinstance(error, Exception) else len(batch)
            shared = [item for item in batch[:answered] if item.error is None]
            for number, item in enumerate(shared):
                item.error = error if number == 0 else _again(error)
            if not isinstance(error, Exception):
                raise
        return answered

    def _write_alone(self, item: _Item[Any], job: Callable[[Work], Any]) -> int:
        """A job that shares its transaction with nobody needs no savepoint: its error undoes all there is."""
        try:
            with self._ledger.writing() as work:
                item.result = job(work)
        except Exception as error:
            item.error = error
        except BaseException as error:
            item.error = error
            raise
        return 1


def _together(items: Sequence[_Item[Any]]) -> int:
    """How many items at the front are written as one: entries side by side; a job goes alone."""
    entries = list(takewhile(lambda item: item.entry is not None, items))
    return max(1, len(entries))


def _write_together(items: Sequence[_Item[Any]], work: Work) -> None:
    if (job := items[0].job) is not None:
        try:
            with work.attempt():
                items[0].result = job(work)
        except StorageUnavailable:
            raise  # the transaction may be gone: nothing more is written in it
        except Exception as error:  # whatever it is, it is this caller's alone
            items[0].error = error
        return
    entries = [item.entry for item in items if item.entry is not None]
    for item, logged in zip(items, work.tx.tlog.append(entries), strict=True):
        item.result = logged


def _again(error: BaseException) -> Exception:
    """The same answer for another caller: one exception raised in two threads would mix their traces."""
    if isinstance(error, FltrustError):
        same: Exception = type(error)(error.message, reason=error.reason, hint=error.hint)
    else:
        same = StorageUnavailable("the transaction that this write shared with others failed")
    same.__cause__ = error
    return same
