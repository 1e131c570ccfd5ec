"""The public port of a coordinator: its HTTP server, what it serves of the log, and the threads for both."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.http_server import HttpServer
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.public import PublicPages
from fltrust.coordinator.publishing import Publisher
from fltrust.coordinator.serving import ServerSettings


@dataclass(slots=True)
class PublicPort:
    """Starts and stops as one; belongs to one event loop."""

    server: HttpServer
    publisher: Publisher
    lane: Lane

    @classmethod
    def of(cls, authority: Authority, settings: ServerSettings, *, clock: Clock) -> Self:
        lane = Lane("public", threads=settings.public_readers, waiting=settings.queue)
        publisher = Publisher(
            ledger=authority.ledger,
            log_key=authority.log_key,
            counters=authority.counters,
            clock=clock,
            witnesses=settings.witnesses,
        )
        authority.enroller.requests.published_size = lambda: publisher.size
        pages = PublicPages(
            authority,
            publisher,
            lane,
            rates=RateLimiter(
                rate=settings.public_rate, burst=settings.public_burst, monotonic=time.monotonic
            ),
            stamps=RateLimiter(
                rate=settings.stamp_rate, burst=settings.stamp_burst, monotonic=time.monotonic
            ),
            receive_timeout=settings.receive_timeout,
            clock=clock,
            modules=settings.public_modules,
        )
        server = HttpServer(
            pages.app(),
            connections=settings.public_connections,
            connections_per_address=settings.public_connections_per_address,
            grace=settings.grace,
        )
        return cls(server, publisher, lane)

    @property
    def address(self) -> str:
        """``host:port``, with the port that was taken. After `start`."""
        return self.server.address

    async def start(self, address: str) -> None:
        """Listen; `Conflict` (``address-in-use``) if the address cannot be had."""
        await self.server.start(address)
        self.publisher.start()

    async def stop(self, grace: float) -> None:
        """Let requests under way end within `grace` seconds; ask no witness any more."""
        await self.server.stop(grace)
        await asyncio.to_thread(self.publisher.stop)
        await asyncio.to_thread(self.lane.close, max(grace, 1.0))
