"""The trust feed in memory: a window on the table that every watch reads from, and who waits for more.

The table is the truth. A commit only says that it has grown: the feed then reads the new events
once, serialises each once for those who may read it and once for those who may not, and wakes the
watches, those whom an event concerns and those who enforce first. What lies before the window is
read from the table. Owned by the server's loop; `close` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Protocol

from fltrust.coordinator.lanes import Lane, Urgency
from fltrust.errors import FltrustError
from fltrust.identity import Epoch, Role, SpiffeId
from fltrust.revocation.events import EventKind, FeedHeartbeat, TrustEvent
from fltrust.wire.trust import item_to_pb

_log = logging.getLogger(__name__)

WINDOW = 4_096
"""Events kept serialised."""
PAGE = 500
_RETRY = 0.5
BARRING = frozenset({EventKind.REVOKED, EventKind.HELD})


class EventSource(Protocol):
    """The part of the authority that is needed here."""

    @property
    def head(self) -> Epoch: ...

    def now(self) -> datetime: ...

    def events(self, after: Epoch, limit: int, *, reader: SpiffeId | None) -> tuple[TrustEvent, ...]: ...

    def as_read_by(self, reader: SpiffeId, event: TrustEvent) -> TrustEvent: ...

    def subscribe(self, callback: Callable[[Epoch], None]) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as one watcher may read it, serialised."""

    event: TrustEvent
    data: bytes


class Waiter(Protocol):
    """An open watch."""

    @property
    def who(self) -> SpiffeId: ...

    def cut_soon(self) -> None:
        """Its identity was barred: if it does not take what it is sent, it must not hold on."""
        ...


class _Entry:
    """One event with its two forms; the second is made when somebody needs it."""

    __slots__ = ("_redacted", "event", "full")

    def __init__(self, event: TrustEvent) -> None:
        self.event = event
        self.full = Frame(event, frame_data(event))
        self._redacted: Frame | None = None

    def seen_by(self, reader: SpiffeId, source: EventSource) -> Frame:
        seen = source.as_read_by(reader, self.event)
        if seen is self.event:
            return self.full
        if seen.kind is not EventKind.REDACTED:
            return Frame(seen, frame_data(seen))
        if self._redacted is None:
            self._redacted = Frame(seen, frame_data(seen))
        return self._redacted


class Feed:
    """See the module."""

    def __init__(self, source: EventSource, lane: Lane, *, window: int = WINDOW) -> None:
        self._source = source
        self._lane = lane
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._entries: list[_Entry] = []  # epochs without a gap, up to the head
        self._head = Epoch(0)
        self._streams: dict[Waiter, asyncio.Future[None] | None] = {}
        self._grown = asyncio.Event()
        self.is_ending = False
        self._fresh_until = 0.0
        self._confirming: asyncio.Future[bool] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Read the newest events and follow what comes."""
        self._unsubscribe = self._source.subscribe(self._on_commit)
        head = await self._lane.run(lambda: self._source.head)
        self._head = Epoch(max(0, int(head) - self._window))
        await self._read_on()
        self._reader = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self._unsubscribe()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    def end(self) -> None:
        """The server stops: every watch ends by itself, without an error; its watcher resumes elsewhere."""
        self.is_ending = True
        for future in self._streams.values():
            if future is not None:
                _resolve(future)

    @property
    def head(self) -> Epoch:
        """The newest epoch that was read from the table."""
        return self._head

    async def after(self, epoch: Epoch, reader: SpiffeId) -> Sequence[Frame]:
        """The events after `epoch` as `reader` may read them, at most `PAGE`; none if there are none yet."""
        behind = int(self._head) - int(epoch)
        if behind <= 0:
            return ()
        if behind <= len(self._entries):
            start = len(self._entries) - behind
            return [entry.seen_by(reader, self._source) for entry in self._entries[start : start + PAGE]]

        def read() -> list[Frame]:
            events = self._source.events(epoch, PAGE, reader=reader)
            return [Frame(event, frame_data(event)) for event in events]

        return await self._lane.run(read)

    @contextlib.contextmanager
    def following(self, stream: Waiter) -> Iterator[None]:
        """Count `stream` among the watches for the block."""
        self._streams[stream] = None
        try:
            yield
        finally:
            del self._streams[stream]

    async def wait(self, stream: Waiter, epoch: Epoch, seconds: float) -> bool:
        """Wait until there is something after `epoch`; False when `seconds` have passed before."""
        if self._head > epoch:
            return True
        future: asyncio.Future[None] = self._loop.create_future()
        self._streams[stream] = future
        timer = self._loop.call_later(seconds, _resolve, future)
        try:
            await future
        finally:
            timer.cancel()
            self._streams[stream] = None
        return self._head > epoch

    async def confirm(self, seconds: float) -> bool:
        """Say whether the head was compared with the table within `seconds`; compares if it was not.

        One comparison serves all who ask at the same time. False when the table cannot be read:
        then nobody may say that there is nothing new.
        """
        if self._loop.time() < self._fresh_until:
            return True
        if self._confirming is None:
            self._confirming = asyncio.ensure_future(self._compare(seconds))
            self._confirming.add_done_callback(self._compared)
        return await asyncio.shield(self._confirming)

    async def _compare(self, seconds: float) -> bool:
        began = self._loop.time()
        try:
            await self._read_on()
        except FltrustError as error:
            _log.error("the trust feed cannot be read: %s", error)
            return False
        self._fresh_until = began + seconds
        return True

    def _compared(self, _done: asyncio.Future[bool]) -> None:
        self._confirming = None

    def heartbeat(self) -> bytes:
        """The item that says: up to the head there is nothing more."""
        return item_to_pb(FeedHeartbeat(self._head, self._source.now())).SerializeToString()

    def _on_commit(self, _epoch: Epoch) -> None:
        # In the committing thread. The loop may be gone while the process stops.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._grown.set)

    async def _follow(self) -> None:
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                await self._read_on()
            except FltrustError as error:
                _log.error("the trust feed cannot be read, trying again: %s", error)
                self._loop.call_later(_RETRY, self._grown.set)
            except Exception:  # whatever broke, watchers must hear of the next revocation
                _log.exception("reading the trust feed failed, trying again")
                self._loop.call_later(_RETRY, self._grown.set)

    async def _read_on(self) -> None:
        """Take in what the table has after our head, and wake the watches."""
        while True:
            head = self._head
            entries = await self._lane.run(partial(self._read, head), urgency=Urgency.NOW)
            if head == self._head and entries:  # else another reader was faster
                self._take(entries)
            if len(entries) < PAGE:
                return

    def _read(self, head: Epoch) -> list[_Entry]:
        return [_Entry(event) for event in self._source.events(head, PAGE, reader=None)]

    def _take(self, entries: list[_Entry]) -> None:
        self._entries += entries
        self._head = entries[-1].event.epoch
        if len(self._entries) > 2 * self._window:
            del self._entries[: -self._window]
        barred = {e.event.subject for e in entries if e.event.kind in BARRING}
        waiting = []
        for stream, future in self._streams.items():
            if stream.who in barred:
                stream.cut_soon()
            if future is not None:
                order = 0 if stream.who in barred else 1 if stream.who.role is not Role.PARTICIPANT else 2
                waiting.append((order, future))
        for _, future in sorted(waiting, key=itemgetter(0)):
            _resolve(future)


def frame_data(event: TrustEvent) -> bytes:
    """One item of the feed, as it crosses the wire."""
    return item_to_pb(event).SerializeToString()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
