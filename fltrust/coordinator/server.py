"""The coordinator on the network: two ports, one authority, and a life from start to graceful stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import grpc

from fltrust.clock import Clock, SystemClock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ca import InForce
from fltrust.coordinator.certificates import ServedCertificate
from fltrust.coordinator.feed import Feed
from fltrust.coordinator.gate import Gate
from fltrust.coordinator.identity import CoordinatorIdentity, IdentityKeeper
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.limits import RateLimiter, Slots
from fltrust.coordinator.probes import add_probes
from fltrust.coordinator.public_port import PublicPort
from fltrust.coordinator.publishing import Publisher
from fltrust.coordinator.rpc import Bootstrap, Common, Context, Mutual, Port
from fltrust.coordinator.serve import serve_until_signalled
from fltrust.coordinator.services_port import ServicesPort
from fltrust.coordinator.serving import ServerSettings
from fltrust.errors import Conflict
from fltrust.pki.types import TrustBundle
from fltrust.wire.artifacts import MAX_COUNTERSIGN

_log = logging.getLogger(__name__)

_RENEWAL_POLL = 1.0


@dataclass(slots=True)
class _Listener:
    name: str
    server: grpc.aio.Server
    certificate: ServedCertificate
    address: str


class CoordinatorServer:
    """Serves one `Authority` on a bootstrap port and an mTLS port, and on a public one if it is set.

    `identity` gives the certificate of both ports and the key that signs receipts; when it renews, both
    follow, without dropping a connection. `start` and `stop` belong to one event loop. A second server
    on the same port is refused.
    """

    def __init__(
        self,
        authority: Authority,
        identity: IdentityKeeper,
        *,
        settings: ServerSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._authority = authority
        self._keeper = identity
        self._settings = settings or ServerSettings()
        self._clock = clock or SystemClock()
        self._listeners: list[_Listener] = []
        self._watches: Slots | None = None
        self._is_serving = False
        self._renewal: asyncio.Task[None] | None = None
        self._public: PublicPort | None = None
        self._services: ServicesPort | None = None

    @property
    def bootstrap_address(self) -> str:
        """``host:port`` of the bootstrap port, with the port that was taken. After `start`."""
        return self._listeners[0].address

    @property
    def address(self) -> str:
        """``host:port`` of the mTLS port, with the port that was taken. After `start`."""
        return self._listeners[1].address

    @property
    def public_address(self) -> str | None:
        """``host:port`` of the public HTTP port, with the port that was taken; None if it is not served."""
        return None if self._public is None else self._public.address

    @property
    def services_address(self) -> str | None:
        """``host:port`` of the services port, with the port that was taken; None if it is not served."""
        return None if self._services is None else self._services.address

    @property
    def publisher(self) -> Publisher | None:
        """The log as the public port serves it. After `start`."""
        return None if self._public is None else self._public.publisher

    @property
    def open_watches(self) -> int:
        """How many watches are open now."""
        return 0 if self._watches is None else self._watches.count

    async def start(self) -> None:
        """Listen on both ports. `Conflict` (``address-in-use``) if one cannot be had; then none is kept."""
        settings, counters = self._settings, self._authority.counters
        self._reads = Lane("read", threads=settings.readers, waiting=settings.queue)
        self._writes = Lane("write", threads=settings.writers, waiting=settings.queue)
        self._statements = Lane("sign", threads=settings.signers, waiting=settings.queue)
        self._feed = Feed(self._authority, self._reads)
        common = Common(
            authority=self._authority,
            settings=settings,
            clock=self._clock,
            reads=self._reads,
            writes=self._writes,
            statements=self._statements,
            counters=counters,
        )
        identity = self._keeper.current
        bootstrap, mutual = self._bootstrap(common), self._mutual(common)
        try:
            await self._feed.start()
            calls = settings.calls
            self._listen("bootstrap", bootstrap, settings.bootstrap, identity, calls, require_client=False)
            calls = settings.calls + settings.watches
            self._listen("mtls", mutual, settings.address, identity, calls, require_client=True)
            if settings.public is not None:
                self._public = PublicPort.of(self._authority, settings, clock=self._clock)
                await self._public.start(settings.public)
            if settings.services is not None:
                self._services = ServicesPort.of(
                    self._authority,
                    settings,
                    identity,
                    clock=self._clock,
                    reads=self._reads,
                    writes=self._writes,
                )
                await self._services.start(settings.services)
            for listener in self._listeners:
                await listener.server.start()
        except BaseException:
            await self.stop(grace=0)
            raise
        self._is_serving = True
        self._renewal = asyncio.create_task(self._renew(identity))
        _log.info("serving: bootstrap %s, mTLS %s", self.bootstrap_address, self.address)

    async def stop(self, *, grace: float | None = None) -> None:
        """Take no new calls, end the watches, let calls under way end within `grace` seconds. Idempotent."""
        self._is_serving = False
        grace = self._settings.grace if grace is None else grace
        if self._renewal is not None:
            self._renewal.cancel()
        self._feed.end()
        stopping = [listener.server.stop(grace) for listener in self._listeners]
        if self._public is not None:
            stopping.append(self._public.stop(grace))
        if self._services is not None:
            stopping.append(self._services.stop(grace))
        await asyncio.gather(*stopping)
        await self._feed.close()
        for lane in (self._reads, self._statements, self._writes):
            await asyncio.to_thread(lane.close, max(grace, 1.0))

    def run_forever(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

        Call it in the main thread. `on_ready` is called when both ports answer.
        """
        serve_until_signalled(self, on_ready)

    def _bootstrap(self, common: Common) -> Port:
        settings = self._settings
        bootstrap = Bootstrap(
            common=common,
            rates=RateLimiter(
                rate=settings.bootstrap_rate, burst=settings.bootstrap_burst, monotonic=time.monotonic
            ),
            slots=Slots("calls", total=max(1, settings.calls // 4), per_key=max(1, settings.calls // 8)),
        )

        @asynccontextmanager
        async def admit(context: Context) -> AsyncIterator[None]:
            with bootstrap.admit(context):
                yield

        add_probes(
            bootstrap.port,
            admit=admit,
            is_serving=lambda: self._is_serving,
            timeout=settings.receive_timeout,
        )
        return bootstrap.port

    def _mutual(self, common: Common) -> Port:
        settings = self._settings
        self._watches = Slots("watches", total=settings.watches, per_key=settings.watches_per_identity)
        mutual = Mutual(
            common=common,
            gate=Gate(self._authority, self._clock),
            feed=self._feed,
            rates=RateLimiter(rate=settings.rate, burst=settings.burst, monotonic=time.monotonic),
            calls=Slots("calls", total=settings.calls, per_key=settings.calls_per_identity),
            watches=self._watches,
            large=Slots("large-calls", total=settings.large, per_key=settings.large_per_identity),
        )

        @asynccontextmanager
        async def admit(context: Context) -> AsyncIterator[None]:
            caller = await mutual.admit(None, context)
            with mutual.calls.hold(str(caller.spiffe_id)):
                yield

        add_probes(
            mutual.port,
            admit=admit,
            is_serving=lambda: self._is_serving,
            timeout=settings.receive_timeout,
        )
        return mutual.port

    def _listen(
        self,
        name: str,
        port: Port,
        address: str,
        identity: CoordinatorIdentity,
        calls: int,
        *,
        require_client: bool,
    ) -> None:
        # Without a certificate nobody sends more than the usual.
        options = self._options(largest=MAX_COUNTERSIGN if require_client else 0)
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls)
        server.add_generic_rpc_handlers((port,))
        certificate = ServedCertificate(
            identity, self._authority.federation.handshake_roots, require_client=require_client
        )
        try:
            taken = server.add_secure_port(address, certificate.credentials)
        except RuntimeError:
            taken = 0
        if not taken:
            raise Conflict(
                f"expected to listen on {address} ({name}), could not",
                reason="address-in-use",
                hint="is another coordinator running, or is the address not of this host?",
            )
        host = address.rpartition(":")[0]
        self._listeners.append(_Listener(name, server, certificate, f"{host}:{taken}"))

    def _options(self, *, largest: int) -> list[tuple[str, int]]:
        settings = self._settings
        return [
            ("grpc.so_reuseport", 0),  # two coordinators on one port would share its callers
            # gRPC has one bound a port; each method's own is held before its message is parsed.
            ("grpc.max_receive_message_length", max(settings.max_message, largest)),
            ("grpc.max_send_message_length", settings.max_seal),
            ("grpc.max_metadata_size", settings.max_metadata),
            ("grpc.absolute_max_metadata_size", settings.max_metadata),
            ("grpc.http2.write_buffer_size", 16 * 1024),  # what a watcher that takes nothing can pile up
            ("grpc.max_concurrent_streams", settings.streams_per_connection),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 10 * 60 * 1000),
            # A watcher that vanished without a FIN is noticed within 30 s.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ]

    async def _renew(self, served: CoordinatorIdentity) -> None:
        """Follow the keeper and the CA in force: what they have is taken to every port.

        A renewed certificate within `_RENEWAL_POLL`, another CA or other roots at once.
        """
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        bundle = self._authority.federation.handshake_roots()

        def note(_now: InForce | None = None) -> None:
            loop.call_soon_threadsafe(changed.set)

        ends = (self._authority.ca.subscribe(note), self._authority.federation.subscribe(note))
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RENEWAL_POLL):
                        await changed.wait()
                changed.clear()
                served, bundle = await self._follow(served, bundle)
        finally:
            for end in ends:
                end()

    async def _follow(
        self, served: CoordinatorIdentity, bundle: TrustBundle
    ) -> tuple[CoordinatorIdentity, TrustBundle]:
        """Serve with what is in force, unless that is these two; returns what is served with."""
        try:
            identity = await asyncio.to_thread(lambda: self._keeper.current)
            roots = self._authority.federation.handshake_roots()
            if identity is served and roots is bundle:
                return served, bundle
            if identity is not served:
                # First it signs receipts and is on record, then it is shown to anybody.
                use = partial(self._authority.use_identity, identity.signer, identity.chain_der)
                await self._writes.run(use)
            for listener in self._listeners:
                await listener.certificate.replace(identity, listener.address)
            if self._services is not None:
                await asyncio.to_thread(self._services.tls.use, identity)
            self._authority.counters.add("server.certificate-renewed")
            _log.info("serving with certificate %s", identity.certificate.serial.hex)
            return identity, roots
        except Exception:  # whatever broke, the certificate still runs out
            _log.exception("renewing the server's certificate failed, trying again")
            return served, bundle
