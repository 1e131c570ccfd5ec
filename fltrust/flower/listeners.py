"""Uvicorn servers on sockets of ours, two of which can share a process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from fltrust.errors import Unavailable


class ListeningServer(uvicorn.Server):
    """A uvicorn server on a socket of ours, that leaves signals alone and bounds the TLS handshake."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, tls: dict[str, Any]) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            raise Unavailable("Flower's services did not start", hint="see the log above")
        loop = asyncio.get_running_loop()
        config, state = self.config, self.lifespan.state

        def protocol() -> asyncio.Protocol:
            made: Any = config.http_protocol_class
            connection: asyncio.Protocol = made(
                config=config, server_state=self.server_state, app_state=state, _loop=loop
            )
            return connection

        server = await loop.create_server(protocol, sock=self._listener, backlog=config.backlog, **self._tls)
        self.servers = [server]
        self.started = True


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Give a bound socket, or raise `Unavailable`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise Unavailable(f"could not listen on {host}:{port}: {error.strerror or error}") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise Unavailable(
                f"could not listen on {host}:{port}: {error.strerror or error}",
                hint="is another SuperLink running? choose another --port or --fleet",
            ) from error
        listener.setblocking(False)
        yield listener


def name_of(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return str(host), int(port)
