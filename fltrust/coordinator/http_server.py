"""An HTTP server for strangers: bounded in connections, in what one may send, and in how long it may take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fltrust.coordinator.limits import Slots, host_key
from fltrust.errors import Conflict, LimitExceeded
from fltrust.keys.tls import presented_chain

PEER = "fltrust.peer"
"""Where in a request's ASGI scope the peer's chain lies: DER, leaf first, as it was shown in the handshake,
which proved that the peer holds its key and no more. Empty without a client certificate, or without TLS."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a TLS handshake."""
HEAD_TIMEOUT = 10.0
"""Seconds for a connection to send the head of its next request."""
REQUEST_TIMEOUT = 60.0
"""Seconds for a request, from its head to the last byte of its answer taken."""
KEEP_ALIVE = 15
"""Seconds that an idle connection is kept."""
MAX_HEAD = 16 * 1024
_GOODBYE = 5.0
_LAST_GOODBYE = 0.5
"""Seconds that an idle connection of a server that stops may take to end TLS from its side."""


class HttpServer:
    """Serves one app on one address, in the event loop that starts it. Leaves signals alone.

    With `tls` it speaks HTTPS, and every request's scope has the peer's chain at `PEER`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        connections: int,
        connections_per_address: int,
        grace: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._app = app
        self._tls = tls
        self._slots = Slots("connections", total=connections, per_key=connections_per_address)
        self._grace = grace
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self, address: str) -> None:
        """Listen; `Conflict` (``address-in-use``) if the address cannot be had. Port 0 takes a free one."""
        host, _, port = address.rpartition(":")
        listener = _listen(host.strip("[]"), int(port), address, self._slots)
        self.address = f"{host}:{listener.getsockname()[1]}"
        config = Config(
            self._app,
            http=_Bounded,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # else whoever calls from this host picks the address that it is counted as
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(self._grace)),
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        self._server = _Server(config, listener, self._tls)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise _in_use(address, "the server did not start")
            await asyncio.sleep(0.01)

    async def stop(self, grace: float) -> None:
        """Take no new connections, let requests under way end within `grace` seconds. Idempotent."""
        if self._server is None or self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        self._server.force_exit = grace <= 0
        await asyncio.wait([self._task], timeout=grace + 2)
        self._task.cancel()


class _Server(uvicorn.Server):
    """Uvicorn's server on a socket of ours, with a bound on the TLS handshake."""

    def __init__(self, config: Config, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls: dict[str, Any] = (
            {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT}
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        await self.lifespan.startup()
        loop, config = asyncio.get_running_loop(), self.config

        def protocol() -> asyncio.Protocol:
            made: Any = config.http_protocol_class
            connection: asyncio.Protocol = made(
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return connection

        server = await loop.create_server(protocol, sock=self._listener, backlog=config.backlog, **self._tls)
        self.servers = [server]
        self.started = True


class _Listener(socket.socket):
    """Takes a connection only if there is a slot for it, which it has during its TLS handshake, too."""

    slots: Slots

    def accept(self) -> tuple[socket.socket, Any]:
        descriptor, peer = self._accept()  # type: ignore[attr-defined]  # as `socket.socket.accept` does
        connection = _Connection(self.family, self.type, self.proto, fileno=descriptor)
        try:
            connection.slot.enter_context(self.slots.hold(host_key(str(peer[0]) if peer else "")))
        except LimitExceeded:
            connection.close()
            raise ConnectionAbortedError from None  # the event loop goes on with the next
        return connection, peer


class _Connection(socket.socket):
    """Holds its slot until it is closed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slot = contextlib.ExitStack()

    def close(self) -> None:
        self.slot.close()
        super().close()


def _listen(host: str, port: int, address: str, slots: Slots) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = _Listener(family, kind, proto)
        listener.slots = slots
    except OSError as error:
        raise _in_use(address, error.strerror or str(error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _in_use(address, error.strerror or str(error)) from None
    listener.setblocking(False)
    return listener


def _in_use(address: str, why: str) -> Conflict:
    return Conflict(
        f"expected to listen on {address} (public), could not: {why}",
        reason="address-in-use",
        hint="is another coordinator running, or is the address not of this host?",
    )


class _Bounded(H11Protocol):
    """Uvicorn's protocol with an end to everything that takes too long."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            # A request's scope gets its state from here: what belongs to the connection, copied.
            self.app_state = {**self.app_state, PEER: presented_chain(secured)}
        self._arm(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
            self._disarm()
            self._timer = self.loop.call_later(_LAST_GOODBYE, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._arm(_GOODBYE)  # a peer that takes nothing need not say goodbye

    def _follow(self) -> None:
        """One timer: for the request at work, or for the head of the next."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy and not self._is_busy:
            self._arm(REQUEST_TIMEOUT)
        elif not is_busy and (self._is_busy or self._timer is None):
            self._arm(KEEP_ALIVE + HEAD_TIMEOUT)
        self._is_busy = is_busy

    def _arm(self, seconds: float) -> None:
        self._disarm()
        if not self.transport.is_closing() or seconds == _GOODBYE:
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
