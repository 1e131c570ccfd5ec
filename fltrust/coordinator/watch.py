"""One open watch: from the feed to one watcher, for as long as that watcher may listen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from fltrust.clock import Clock
from fltrust.coordinator.feed import BARRING, Feed
from fltrust.coordinator.session import Caller
from fltrust.errors import LimitExceeded, Refusal, Revoked
from fltrust.identity import Epoch, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent

_CUT_AFTER = 1.0
"""Seconds that a barred watcher gets to take the event that says so."""
_CONCERNING = BARRING | {EventKind.ENROLLED}


class WatchStream:
    """Sends every event after an epoch, in order, without a gap, and heartbeats when idle.

    It keeps the last epoch sent and nothing else, so a slow watcher costs no memory: what it has
    not taken yet lies in the feed's window or in the table. It ends

    - as soon as its identity or certificate is barred, with `Revoked`, after the event that says so;
    - when its certificate runs out or the server stops, without an error: the watcher resumes;
    - when the watcher takes nothing for `stall` seconds, with ``slow-watcher``.
    """

    def __init__(
        self,
        feed: Feed,
        caller: Caller,
        *,
        write: Callable[[bytes], Awaitable[None]],
        judge: Callable[[], Awaitable[None]],
        clock: Clock,
        heartbeat: float,
        stall: float,
    ) -> None:
        self._feed = feed
        self._caller = caller
        self._write_raw = write
        self._judge = judge
        self._clock = clock
        self._heartbeat = heartbeat
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Timeout | None = None
        self._is_cut = False

    @property
    def who(self) -> SpiffeId:
        return self._caller.spiffe_id

    async def run(self, after: Epoch) -> None:
        """Send until the watch ends; see the class."""
        with self._feed.following(self):
            # Judged once more now that every later event reaches us: none falls in between.
            await self._judge()
            has_beaten = False
            while not self._feed.is_ending and (left := self._seconds_left()) > 0:
                frames = await self._feed.after(after, self.who)
                is_concerned = False
                for frame in frames:
                    await self._write(frame.data)
                    after = frame.event.epoch
                    if self._concerns_us(frame.event):
                        is_concerned = True
                if is_concerned:
                    await self._judge()
                if frames:
                    continue
                # The first beat comes at once: it tells a watcher that resumes that its view is fresh.
                if has_beaten and await self._feed.wait(self, after, min(left, self._idle())):
                    continue
                has_beaten = True
                await self._beat(after)

    def _concerns_us(self, event: TrustEvent) -> bool:
        if event.kind is EventKind.DOMAIN_HELD:
            return event.domain == self.who.domain  # a guest's, whose domain is let in no longer
        return event.subject == self.who and event.kind in _CONCERNING

    def cut_soon(self) -> None:
        self._loop.call_later(_CUT_AFTER, self._cut)

    def _cut(self) -> None:
        self._is_cut = True
        if self._writing is not None:
            self._writing.reschedule(self._loop.time())

    async def _beat(self, after: Epoch) -> None:
        if self._feed.is_ending:
            return
        if await self._feed.confirm(self._heartbeat / 4) and self._feed.head == after:
            await self._write(self._feed.heartbeat())

    async def _write(self, data: bytes) -> None:
        if self._is_cut:
            await self._judge()
            self._is_cut = False  # released in the meantime
        try:
            async with asyncio.timeout(self._stall) as self._writing:
                await self._write_raw(data)
        except TimeoutError:
            if self._is_cut:
                raise Revoked(f"{self.who} is revoked or held", reason=Refusal.REVOKED) from None
            raise LimitExceeded(
                f"expected {self.who} to take an event within {self._stall:g} s, it did not",
                reason="slow-watcher",
                hint="resume the watch from the last epoch applied",
            ) from None
        finally:
            self._writing = None

    def _idle(self) -> float:
        # One event wakes every watch: without jitter they would all beat at once from then on,
        # and a revocation would have to wait behind a thousand heartbeats.
        return self._heartbeat * random.uniform(0.7, 1.0)  # noqa: S311

    def _seconds_left(self) -> float:
        return (self._caller.certificate.not_after - self._clock.now()).total_seconds()
