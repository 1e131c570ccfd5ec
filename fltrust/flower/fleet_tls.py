"""The Fleet listener's transport: TLS 1.3, a participant's certificate on every connection, no exceptions.

What a connection carries is decided in `fleet_guard`, request by request. Here a connection learns whose
it is, is known by that name as long as it lives, and ends with its certificate: at once on revocation,
gracefully at notAfter.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fltrust.clock import Clock
from fltrust.errors import CertificateRefused, FltrustError
from fltrust.eventlog import EventLog
from fltrust.flower.connections import ConnectionRegistry, Peer
from fltrust.flower.counters import Counters
from fltrust.identity import Role
from fltrust.keys.tls import presented_chain
from fltrust.pki.federated import TrustSet, verify_among

PEER = "fltrust.peer"
"""Where in the ASGI scope's state the connection's `Peer` lies."""

HANDSHAKE_TIMEOUT = 10.0
HEADER_TIMEOUT = 10.0
KEEP_ALIVE = 30
"""Seconds for a handshake, for a request's head, and that a connection may lie idle."""

GOODBYE_TIMEOUT = 1.0
"""Seconds that a closed idle connection waits for the peer's end of TLS."""

EXPIRY_GRACE = 60.0
"""Seconds that a request begun before notAfter may still take before its connection is cut."""

REFUSED_LIFE = 5.0
"""Seconds in which a connection that was refused can ask why."""

MAX_HEAD = 16 * 1024
MAX_HEADERS = 64
"""Bytes and headers in a request's head."""


class FleetCredentials(Protocol):
    """What the listener needs of the agent's credentials."""

    def ssl_server_context(self) -> ssl.SSLContext:
        """One context for the life of the listener; every handshake uses what is current then."""
        ...

    @property
    def trust(self) -> TrustSet:
        """Our roots, and those of foreign domains, as they are now."""
        ...


@dataclass(frozen=True, slots=True)
class FleetTransport:
    """What every connection of the listener shares."""

    credentials: FleetCredentials
    registry: ConnectionRegistry
    clock: Clock
    counters: Counters
    events: EventLog

    def identify(self, ssl_object: ssl.SSLObject) -> Peer:
        """Say whose connection this is. A refusal travels with it, so that each request is told why.

        1. TLS 1.3.
        2. The chain shown leads now to the roots of the domain that it claims, ours or one that ours
           federates with, and is a participant's (`verify_among`).
        3. There is room for one more connection.
        """
        try:
            if ssl_object.version() != "TLSv1.3":  # 1
                raise CertificateRefused(
                    f"expected TLS 1.3, got {ssl_object.version()}", reason="tls-version"
                )
            certificate = verify_among(  # 2
                presented_chain(ssl_object),
                trust=self.credentials.trust,
                at=self.clock.now(),
                expect_role=Role.PARTICIPANT,
                purpose="client",
            )
            self.registry.admit(certificate)  # 3
        except FltrustError as refusal:
            return Peer(None, refusal)
        return Peer(certificate)


def harden(context: ssl.SSLContext) -> ssl.SSLContext:
    """Hold a server's context to our terms: TLS 1.3 only, a client certificate, no session tickets."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would skip the certificate
    return context


def fleet_protocol(shared: FleetTransport) -> type[HttpToolsProtocol]:
    """Make the protocol class of the Fleet listener, for uvicorn."""

    class FleetProtocol(HttpToolsProtocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.access_log = False  # the guard tells what is worth telling; the logger is Flower's
            self.peer = Peer(None)
            self._head_size = 0
            self._in_head = True
            self._timers: list[asyncio.TimerHandle] = []
            self._head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
            super().connection_made(transport)
            self.peer = shared.identify(transport.get_extra_info("ssl_object"))
            shared.registry.add(self)
            self._arm_head_timer()
            certificate = self.peer.certificate
            if certificate is None:
                self._tell("connection-refused", reason=getattr(self.peer.refusal, "reason", "internal"))
                self._timers = [self.loop.call_later(REFUSED_LIFE, self.abort)]
                return
            self._tell("connection-accepted", serial=certificate.serial.hex, not_after=certificate.not_after)
            left = (certificate.not_after - shared.clock.now()).total_seconds()
            self._timers = [
                self.loop.call_later(max(left, 0.0), self._expire),
                self.loop.call_later(max(left, 0.0) + EXPIRY_GRACE, self.abort),
            ]

        def connection_lost(self, exc: Exception | None) -> None:
            shared.registry.discard(self)
            for timer in (*self._timers, self._head_timer):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                if self._head_timer is None:
                    self._arm_head_timer()
                self._head_size += len(data)
            super().data_received(data)
            if self._in_head and self._head_size > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True
            self.scope["state"][PEER] = self.peer

        def on_header(self, name: bytes, value: bytes) -> None:
            if len(self.headers) >= MAX_HEADERS or len(name) + len(value) > MAX_HEAD:
                raise ValueError("request head out of bounds")  # uvicorn answers 400 and closes
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._head_size = 0
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head = True
            super().on_message_complete()

        def shutdown(self) -> None:
            """Close when what is in flight is answered; an idle peer need not say goodbye first."""
            super().shutdown()
            if self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
                self._timers.append(self.loop.call_later(GOODBYE_TIMEOUT, self.transport.abort))

        def abort(self) -> None:
            """End the connection now, whatever it carries."""
            if not self.transport.is_closing():
                self.transport.abort()

        def _expire(self) -> None:
            self._tell("connection-expired")
            self.shutdown()

        def _arm_head_timer(self) -> None:
            self._head_timer = self.loop.call_later(HEADER_TIMEOUT, self.abort)

        def _tell(self, event: str, **fields: Any) -> None:
            shared.counters.add(event.replace("connection-", "connections."))
            shared.events.emit(event, participant=self.peer.name, **fields)

    return FleetProtocol
