"""`fltrust superlink`: Flower's SuperLink on two listeners, in one process.

    127.0.0.1:8000   Control, Runtime and health, without TLS: for `flwr run` and the ServerApp
    0.0.0.0:9443     the Fleet API and nothing else, TLS 1.3 with a participant's certificate

Flower's app is Flower's own; it is run once, behind a gate on each side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import uvicorn

from fltrust.clock import Clock, SystemClock
from fltrust.errors import Malformed, Refusal, Revoked
from fltrust.eventlog import EventLog
from fltrust.flower import _private
from fltrust.flower.connections import ConnectionLimits, ConnectionRegistry
from fltrust.flower.counters import Counters
from fltrust.flower.fleet_guard import FleetGuard
from fltrust.flower.fleet_ledger import FleetLedger
from fltrust.flower.fleet_routes import FleetLimits
from fltrust.flower.fleet_tls import (
    HANDSHAKE_TIMEOUT,
    KEEP_ALIVE,
    FleetCredentials,
    FleetTransport,
    fleet_protocol,
    harden,
)
from fltrust.flower.held_pull import DEFAULT_HOLD, HeldPulls
from fltrust.flower.listeners import ListeningServer, listen, name_of
from fltrust.flower.registration import NodeRegistrar
from fltrust.flower.runtime_gate import RuntimeGate, callers_of
from fltrust.flower.superlink_args import prepare_environment, read_flower_arguments
from fltrust.identity import NodeId, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import TrustView

DEFAULT_FLEET_HOST = "0.0.0.0"  # noqa: S104  the participants are elsewhere, and show certificates
DEFAULT_FLEET_PORT = 9443

_BARRING = frozenset({EventKind.REVOKED, EventKind.HELD, EventKind.DOMAIN_HELD, EventKind.ISSUER_REVOKED})

_log = logging.getLogger("fltrust.superlink")


class FleetHost(Protocol):
    """The aggregator's agent, as far as the SuperLink needs it; `AgentHost` is one."""

    @property
    def spiffe_id(self) -> SpiffeId: ...

    @property
    def credentials(self) -> FleetCredentials: ...

    @property
    def view(self) -> TrustView: ...

    @property
    def socket_path(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class SuperlinkAddresses:
    """Where the two listeners are, once they listen."""

    loopback: tuple[str, int]
    fleet: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperlinkOptions:
    """Everything about the Fleet listener; Flower's own arguments say the rest.

    `hold_seconds` of 0 turns held pulls off. `fleet_port` of 0 takes a free one. `allowed_uids` may use
    Control and Runtime on loopback, beside this process's own user and root.
    """

    fleet_host: str = DEFAULT_FLEET_HOST
    fleet_port: int = DEFAULT_FLEET_PORT
    hold_seconds: float = DEFAULT_HOLD
    limits: FleetLimits = field(default_factory=FleetLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    allowed_uids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.hold_seconds <= 25:
            raise Malformed(f"expected to hold pulls for 0 to 25 s, got {self.hold_seconds}")


def run_superlink(
    flower_args: Sequence[str],
    *,
    host: FleetHost,
    options: SuperlinkOptions | None = None,
    clock: Clock | None = None,
    events: EventLog | None = None,
    on_ready: Callable[[SuperlinkAddresses], None] | None = None,
) -> None:
    """Run until SIGINT or SIGTERM; returns when both listeners and Flower's services have ended.

    `flower_args` are `flower-superlink`'s own; ``--insecure`` and ``--enable-supernode-auth`` are implied.
    Refuses (`Malformed`) a ``--host`` that is not loopback, TLS files, and ``--simulation``. Raises
    `Unavailable` when a port is taken, or when this Flower is not one we know; `Revoked` when the aggregator
    itself is revoked while it runs.
    Flower's parser ends the process (`SystemExit`) on ``--help`` and on arguments it does not know.
    """
    prepare_environment(host.socket_path)
    superlink = Superlink(flower_args, host=host, options=options, clock=clock, events=events)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_until_signalled(superlink, on_ready))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give the event loop that uvicorn would choose: uvloop where it is installed."""
    return uvicorn.Config(app="", loop="auto", log_config=None).get_loop_factory()


class Superlink:
    """The two listeners around one Flower app. Made and run in one event loop; `stop` is for any thread."""

    def __init__(
        self,
        flower_args: Sequence[str],
        *,
        host: FleetHost,
        options: SuperlinkOptions | None = None,
        clock: Clock | None = None,
        events: EventLog | None = None,
    ) -> None:
        _private.require(_private.SUPERLINK_SYMBOLS)
        self._host = host
        self._options = options or SuperlinkOptions()
        self._clock = clock or SystemClock()
        self._events = events or EventLog.from_environment(process="superlink")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: list[ListeningServer] = []
        self._revoked: Revoked | None = None
        self.counters = Counters()
        self.held = HeldPulls(self._options.hold_seconds)
        self._ledger = FleetLedger()
        self._config = read_flower_arguments(flower_args)
        self._app = _private.create_superlink_app(self._config)
        self.connections = ConnectionRegistry(
            host.view, limits=self._options.connections, counters=self.counters, events=self._events
        )
        self._registrar = NodeRegistrar(
            _private.NodeTable(self._app),
            host.view,
            counters=self.counters,
            events=self._events,
            on_lost=self._node_lost,
        )

    async def serve(self, on_ready: Callable[[SuperlinkAddresses], None] | None = None) -> None:
        """Serve until `stop`; every connection, and Flower's services, have ended on return."""
        self._loop = asyncio.get_running_loop()
        with (
            listen(self._config.host, self._config.port) as loopback,
            listen(self._options.fleet_host, self._options.fleet_port) as fleet,
        ):
            servers = [self._loopback_server(loopback), self._fleet_server(fleet)]
            self._servers = servers
            # Listen for events before reading the state once, so that none falls in between.
            unsubscribe = self._host.view.subscribe(self._on_event)
            try:
                await asyncio.to_thread(self._registrar.reconcile)
                tasks = [asyncio.ensure_future(server.serve()) for server in servers]
                await self._announce(tasks, SuperlinkAddresses(name_of(loopback), name_of(fleet)), on_ready)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self._stop()  # one listener alone is no SuperLink
                await asyncio.wait(tasks)
                for task in tasks:
                    task.result()
                if self._revoked is not None:
                    raise self._revoked
            finally:
                unsubscribe()

    def stop(self) -> None:
        """Let held pulls go, finish what is in flight, and end `serve`. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop)

    def force_stop(self) -> None:
        """End `serve` without waiting for what is in flight. Of the loop's thread."""
        self._stop()
        for server in self._servers:
            server.force_exit = True

    def _stop(self) -> None:
        self.held.close()
        for server in self._servers:
            server.should_exit = True

    async def _announce(
        self,
        tasks: Sequence[asyncio.Future[None]],
        addresses: SuperlinkAddresses,
        on_ready: Callable[[SuperlinkAddresses], None] | None,
    ) -> None:
        while not all(server.started for server in self._servers):
            if any(task.done() for task in tasks) or any(s.should_exit for s in self._servers):
                return
            await asyncio.sleep(0.01)
        _log.info(
            "%s serves SuperNodes on %s:%d, Control and Runtime on %s:%d",
            self._host.spiffe_id,
            *addresses.fleet,
            *addresses.loopback,
        )
        self._events.emit("superlink-ready", fleet=f"{addresses.fleet[0]}:{addresses.fleet[1]}")
        if on_ready is not None:
            on_ready(addresses)

    def _loopback_server(self, listener: socket.socket) -> ListeningServer:
        config = uvicorn.Config(
            RuntimeGate(self._app, self.held, may_call=callers_of(self._options.allowed_uids)),
            lifespan="on",
            ws="none",
            log_config=_private.superlink_log_config(),
            timeout_graceful_shutdown=10,
        )
        return ListeningServer(config, listener, {})

    def _fleet_server(self, listener: socket.socket) -> ListeningServer:
        guard = FleetGuard(
            self._app,
            view=self._host.view,
            registrar=self._registrar,
            ledger=self._ledger,
            held=self.held,
            clock=self._clock,
            counters=self.counters,
            events=self._events,
            limits=self._options.limits,
        )
        shared = FleetTransport(
            self._host.credentials, self.connections, self._clock, self.counters, self._events
        )
        config = uvicorn.Config(
            guard,
            http=fleet_protocol(shared),
            lifespan="off",
            ws="none",
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=10,
        )
        context = harden(self._host.credentials.ssl_server_context())
        return ListeningServer(config, listener, {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT})

    # --- the feed, in the thread that follows it

    def _on_event(self, event: TrustEvent) -> None:
        loop = self._loop
        if loop is not None and event.kind in _BARRING:
            self.connections.sweep_soon(loop)  # first: it is the faster of the two
        self._registrar.on_event(event)
        who = self._host.spiffe_id
        if event.kind is EventKind.REVOKED and event.identity_wide and event.subject == who:
            self._revoked = Revoked(
                f"{who} is revoked as of epoch {event.epoch}: its SuperLink ends", reason=Refusal.REVOKED
            )
            self.stop()

    def _node_lost(self, node_id: NodeId) -> None:
        def forget() -> None:
            self._ledger.forget(node_id)
            self.held.lost(node_id)

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(forget)


async def _until_signalled(
    superlink: Superlink, on_ready: Callable[[SuperlinkAddresses], None] | None
) -> None:
    loop = asyncio.get_running_loop()
    stopping = False

    def on_signal() -> None:
        nonlocal stopping
        if stopping:
            superlink.force_stop()
        stopping = True
        superlink.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await superlink.serve(on_ready)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
