"""The services port: HTTPS for clients that speak other protocols than ours.

TLS 1.3, no session tickets, the coordinator's own certificate. A client certificate is asked for and may be
left out. One that is shown must lead to a root of ours in the handshake; whose it is and how it stands is
decided on every request.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Self

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from fltrust.clock import Clock
from fltrust.coordinator import est
from fltrust.coordinator.acme import pages as acme
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ca import InForce
from fltrust.coordinator.federation import endpoint
from fltrust.coordinator.gate import Gate
from fltrust.coordinator.http_requests import HTTPS_ONLY, Hardened
from fltrust.coordinator.http_server import PEER, HttpServer
from fltrust.coordinator.identity import CoordinatorIdentity
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.rest import pages as rest
from fltrust.coordinator.services import RouteModule, ServicesContext
from fltrust.coordinator.serving import ServerSettings
from fltrust.keys.tls import load_pair
from fltrust.pki.bundle import bundle_to_pem, chain_to_pem

MODULES: tuple[RouteModule, ...] = (acme.routes, rest.routes, est.routes, endpoint.routes)
"""Who serves here. A module that is switched off gives no routes."""


@dataclass(slots=True)
class ServicesPort:
    """Starts and stops as one; belongs to one event loop."""

    server: HttpServer
    context: ServicesContext
    tls: ServicesTls

    @classmethod
    def of(
        cls,
        authority: Authority,
        settings: ServerSettings,
        identity: CoordinatorIdentity,
        *,
        clock: Clock,
        reads: Lane,
        writes: Lane,
        modules: tuple[RouteModule, ...] | None = None,
    ) -> Self:
        context = ServicesContext(
            authority=authority,
            clock=clock,
            reads=reads,
            writes=writes,
            settings=settings,
            gate=Gate(authority, clock),
            rates=RateLimiter(
                rate=settings.services_rate, burst=settings.services_burst, monotonic=time.monotonic
            ),
        )
        routes = [route for module in (MODULES if modules is None else modules) for route in module(context)]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        tls = ServicesTls(authority, identity)
        server = HttpServer(
            Hardened(_ShowsPeer(app), also=(HTTPS_ONLY,)),
            connections=settings.services_connections,
            connections_per_address=settings.services_connections_per_address,
            grace=settings.grace,
            tls=tls.context,
        )
        return cls(server, context, tls)

    @property
    def address(self) -> str:
        """``host:port``, with the port that was taken. After `start`."""
        return self.server.address

    async def start(self, address: str) -> None:
        """Listen; `Conflict` (``address-in-use``) if the address cannot be had."""
        await self.server.start(address)
        self.context.url = f"https://{self.context.settings.services_name or self.address}"

    async def stop(self, grace: float) -> None:
        """Let requests under way end within `grace` seconds."""
        await self.server.stop(grace)
        await asyncio.to_thread(self.tls.close)


class ServicesTls:
    """The listener's TLS context: every handshake uses the certificate and roots that are current then."""

    def __init__(self, authority: Authority, identity: CoordinatorIdentity) -> None:
        self._lock = threading.Lock()
        self._identity = identity
        self._now = authority.ca.now
        self._inner = self._make()
        self.context = self._make()
        # Called on every ClientHello, with or without a server name. Swapping the whole context is atomic;
        # `load_cert_chain` on a live one is not: a handshake could see the new chain with the old key.
        self.context.sni_callback = self._use_current
        self.close = authority.ca.subscribe(self._follow)

    def use(self, identity: CoordinatorIdentity) -> None:
        """Serve with `identity` from the next handshake on."""
        with self._lock:
            self._identity = identity
            self._inner = self._make()

    def _follow(self, now: InForce) -> None:
        with self._lock:
            self._now = now
            self._inner = self._make()

    def _use_current(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        del name, context
        connection.context = self._inner

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # a resumed session would skip the certificate
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        # The issuing CA too: clients of other makes show their leaf alone.
        roots = bundle_to_pem(self._now.bundle) + chain_to_pem([self._now.issuer.certificate])
        context.load_verify_locations(cadata=roots.decode("ascii"))
        load_pair(context, self._identity.signer, self._identity.chain_pem)
        return context


class _ShowsPeer:
    """Puts the peer's chain where endpoints look for it. Speaks HTTP and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.get("state", {})
            await self._app({**scope, PEER: state.get(PEER, ())}, receive, send)
