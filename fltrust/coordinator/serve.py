"""A server's life in a process: until a signal, or on a thread beside other work."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from fltrust.errors import Unavailable


class Servable(Protocol):
    """What starts and stops on an event loop."""

    async def start(self) -> None: ...

    async def stop(self, *, grace: float | None = None) -> None: ...


GIVE_UP = 60.0
"""Seconds after which a server that does not stop is ended; everything acknowledged is durable by then."""


def serve_until_signalled(
    server: Servable, on_ready: Callable[[], None], *, give_up: float = GIVE_UP
) -> None:
    """See `CoordinatorServer.run_forever`.

    grpc.aio stops with the interpreter's lock held, and waits for handshakes that need it to be told their
    certificate: met at the wrong moment, the two wait for each other for good, and no signal is heard. So
    the process is ended from outside of the interpreter, `give_up` seconds after it was told to stop.
    """
    try:
        asyncio.run(_serve(server, on_ready, give_up))
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _serve(server: Servable, on_ready: Callable[[], None], give_up: float) -> None:
    loop = asyncio.get_running_loop()
    told, again = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: again.set() if told.is_set() else told.set())
    await server.start()
    _calm_the_collector()
    on_ready()
    await told.wait()
    faulthandler.dump_traceback_later(give_up, exit=True)
    stopping = asyncio.ensure_future(server.stop())
    at_once = asyncio.ensure_future(again.wait())
    await asyncio.wait({stopping, at_once}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        await server.stop(grace=0)
    at_once.cancel()
    await stopping


def _calm_the_collector() -> None:
    """Keep Python's cycle collector from stopping the process while a revocation waits to be pushed.

    A full collection walks every live object: 100 ms with 1,000 open watches, most of it spent on what
    was imported at start. That is set aside for good, and the young are looked at less often; what a
    call leaves behind is freed by its reference count, cycles are rare. Only for a process of our own.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


class BackgroundServer:
    """A server on a loop and thread of its own, for tests, notebooks and embedding."""

    def __init__(self, server: Servable) -> None:
        self.server = server
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fltrust-coordinator", daemon=True)

    def start(self, timeout: float = 30.0) -> None:
        """Return when both ports answer; raises what its `start` raised."""
        self._thread.start()
        if not self._ready.wait(timeout):
            raise Unavailable(f"expected the coordinator to start within {timeout:g} s, it did not")
        if self._failed is not None:
            raise self._failed

    def stop(self, timeout: float = 30.0) -> None:
        """Stop gracefully and wait for it. Idempotent."""
        if self._loop is not None and self._told is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        await self.server.start()
        self._ready.set()
        await self._told.wait()
        await self.server.stop()
