"""The agent of one identity, put together: keys, renewal, the trust view, and the socket.

Used by `fltrust supernode` (a participant's) and `fltrust superlink` (an aggregator's). It lives in
threads of its own, so it may share a process with an asyncio loop.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.ca_changes import CaChanges
from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.foreign import ForeignBundles
from fltrust.agent.handlers import aggregator_handlers, participant_handlers
from fltrust.agent.hosting import HostedCredentials, HostRoots, find_host
from fltrust.agent.journal import Journal
from fltrust.agent.participant import ParticipantCore
from fltrust.agent.ports import AggregatorUpstream
from fltrust.agent.renew_request import take_request
from fltrust.agent.renewal import Renewer
from fltrust.agent.revive import load_or_revive
from fltrust.agent.server import AgentServer
from fltrust.agent.state import AgentState, socket_path_of
from fltrust.agent.upstream import RelayCredentials
from fltrust.agent.watched import WatchedFeed
from fltrust.client import CoordinatorClient, TrustFollower
from fltrust.clock import Clock, SystemClock
from fltrust.enrollment.types import Issued
from fltrust.errors import (
    AgentUnavailable,
    Conflict,
    CoordinatorUnavailable,
    FltrustError,
    PermissionDenied,
    Revoked,
    StaleView,
)
from fltrust.eventlog import EventLog
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.ports import TrustFeed
from fltrust.revocation.state import TrustState
from fltrust.revocation.view import ReachPolicy, TrustView
from fltrust.wire.federation import ShownDomain

if TYPE_CHECKING:
    from fltrust.agent.workloads import WorkloadKeeper

_log = logging.getLogger("fltrust.agent")

_POLL = 0.2


class Coordinator(AggregatorUpstream, TrustFeed, Protocol):
    """What an agent asks of the coordinator; `CoordinatorClient` is one."""

    def renew(self, csr_der: bytes) -> Issued: ...

    def certify_workload(self, csr_der: bytes) -> Issued: ...

    def list_foreign(self) -> tuple[ShownDomain, ...]: ...

    def close(self) -> None: ...


class AgentHost:
    """Runs the agent whose state lies in `state_dir` between `start` and `stop`.

    `on_revoked` is called once, in a thread of the agent's, when this identity learns that it
    is revoked; from then on every request is refused. A second agent on the same state is
    refused (`Conflict`).
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        passphrase: bytes | None = None,
        clock: Clock | None = None,
        policy: ReachPolicy | None = None,
        socket_path: Path | None = None,
        allowed_uids: Collection[int] | None = None,
        workload_socket: Path | None = None,
        host_domain: TrustDomain | None = None,
        on_revoked: Callable[[Revoked], None] | None = None,
        rng: random.Random | None = None,
        events: EventLog | None = None,
        connect: Callable[[AgentState, CredentialStore], Coordinator] | None = None,
    ) -> None:
        """Read the state; nothing runs yet. `policy` says how old the trust view may be;
        `allowed_uids` may use the socket (by default this process's own uid alone). At `workload_socket`
        the SPIFFE Workload API and SDS are served; None serves them to nobody. `host_domain` is the foreign
        domain in whose rounds a participant takes part, in place of its own's. Raises
        `NotFound`, `CertificateRefused` for an expired certificate, or what `AgentState.open` does."""
        self._clock = clock or SystemClock()
        self._state = AgentState.open(state_dir, passphrase=passphrase)
        self._store = load_or_revive(self._state, clock=self._clock)
        if self.spiffe_id.role not in (Role.PARTICIPANT, Role.AGGREGATOR):
            raise PermissionDenied(f"expected a participant or an aggregator to run, got {self.spiffe_id}")
        if host_domain is not None and self.spiffe_id.role is not Role.PARTICIPANT:
            raise PermissionDenied(
                f"expected a participant to take part in another domain, got {self.spiffe_id}"
            )
        self._view = TrustView(self._clock, policy)
        self._home_view = self._view if host_domain is None else TrustView(self._clock, policy)
        self._host_domain = host_domain
        self._hosted: HostedCredentials | None = None
        self._foreign: ForeignBundles | None = None
        self._allowed = frozenset(allowed_uids if allowed_uids is not None else {os.geteuid()})
        shared = bool(self._allowed - {os.geteuid()})
        self._socket_path = socket_path or socket_path_of(state_dir, shared=shared)
        self._on_revoked = on_revoked
        self._rng = rng or random.SystemRandom()
        self._events = events or EventLog.from_environment(process=f"agent {self.spiffe_id.name}")
        self._connect = connect or _over_network
        self._revoked: Revoked | None = None
        self._telling = threading.Lock()
        self._core: ParticipantCore | AggregatorCore | None = None
        self._follower: TrustFollower | None = None
        self._renewer: Renewer | None = None
        self._workload_socket = workload_socket
        self._workload: WorkloadKeeper | None = None
        self._stack = ExitStack()

    def start(self) -> None:
        """Follow the feed, renew, and answer on the socket. Works while the coordinator is away."""
        with ExitStack() as stack:
            stack.callback(self._state.lock().release)
            coordinator = self._connect(self._state, self._store)
            stack.callback(coordinator.close)
            if self._host_domain is not None:
                self._be_hosted(self._host_domain, coordinator, stack)
            self._follow_foreign(coordinator, stack)
            server = self._serve(coordinator, stack)
            self._home_view.subscribe(self._heed)
            stack.callback(self._store.on_rotate(self._say_renewed))
            self._renewer = Renewer(
                self._store,
                coordinator,
                clock=self._clock,
                rng=self._rng,
                on_revoked=self._take_revocation,
                on_alarm=self._say_failing,
                is_asked=lambda: take_request(self._state.folder),
            )
            stack.callback(self._renewer.stop)
            if self._store.current.hardware_signer is not None:
                self._renewer.renew()  # the key for TLS lives in memory, and so is got at each start
            changes = CaChanges(self._store, self._renewer.hasten)
            self._home_view.subscribe(changes.heed)
            self._follower = TrustFollower(
                WatchedFeed(
                    coordinator,
                    self._store,
                    on_revoked=self._take_revocation,
                    on_ca_revoked=changes.heed_refusal,
                ),
                self._home_view,
                rng=self._rng,
            )
            stack.callback(self._follower.stop)
            if self._workload_socket is not None:
                self._serve_workload(self._workload_socket, coordinator, stack)
            server.start()
            self._follower.start()
            self._renewer.start()
            self._stack = stack.pop_all()
        _log.info("the agent of %s answers on %s", self.spiffe_id, self._socket_path)

    def stop(self) -> None:
        """End every thread and remove the socket. Idempotent."""
        self._stack.pop_all().close()

    def wait_ready(self, timeout: float) -> None:
        """Return once the trust view is current and shows this identity in good standing.

        Raises what stands in the way after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self._revoked is None:
            left = deadline - time.monotonic()
            if self._view.wait_until(self._is_ready, max(min(left, _POLL), 0.0)):
                return
            if left <= 0:
                raise self._unready()
        raise self._revoked

    @property
    def spiffe_id(self) -> SpiffeId:
        return self._state.spiffe_id

    @property
    def state(self) -> AgentState:
        return self._state

    @property
    def credentials(self) -> CredentialStore:
        """The current certificate and key, and TLS contexts that follow each rotation."""
        return self._store

    @property
    def relay_credentials(self) -> RelayCredentials:
        """What is shown to the superlink and trusted there: the host's roots, where there is a host."""
        return self._store if self._hosted is None else self._hosted

    @property
    def acting_domain(self) -> TrustDomain:
        """The domain in whose rounds this agent acts. After `start`."""
        return self._host_domain or self.spiffe_id.domain

    @property
    def view(self) -> TrustView:
        return self._view

    @property
    def socket_path(self) -> Path:
        """What `FLTRUST_AGENT_SOCKET` must say for the app process."""
        return self._socket_path

    @property
    def node_key_path(self) -> Path:
        """A participant's Flower node key, for ``--auth-supernode-private-key``; ``.pub`` lies beside it."""
        return self._state.node_key_path

    @property
    def agent(self) -> ParticipantCore | AggregatorCore:
        """What answers on the socket, for callers in this process."""
        if self._core is None:
            raise AgentUnavailable(f"expected the agent of {self.spiffe_id} to run, it was not started")
        return self._core

    @property
    def participant(self) -> ParticipantCore:
        if not isinstance(self.agent, ParticipantCore):
            raise PermissionDenied(f"expected the agent of a participant, this one is {self.spiffe_id}'s")
        return self.agent

    @property
    def aggregator(self) -> AggregatorCore:
        if not isinstance(self.agent, AggregatorCore):
            raise PermissionDenied(f"expected the agent of an aggregator, this one is {self.spiffe_id}'s")
        return self.agent

    @property
    def refusals(self) -> Mapping[str, int]:
        """What this agent refused to check or sign, by reason."""
        return self.agent.refusals

    @property
    def revoked(self) -> Revoked | None:
        """How this identity learned that it is revoked, if it did."""
        return self._revoked

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, coordinator: Coordinator, stack: ExitStack) -> AgentServer:
        """Build the core of our role and the server in front of it."""
        log: FeedLog | None = None
        if self.spiffe_id.role is Role.PARTICIPANT:
            participant = self._participant(stack)
            handlers = participant_handlers(participant)
            self._core = participant
        else:
            log = FeedLog(self._view, clock=self._clock)
            aggregator = AggregatorCore(
                self._store,
                view=self._view,
                log=log,
                coordinator=coordinator,
                clock=self._clock,
                foreign=lambda: () if self._foreign is None else self._foreign.current,
            )
            handlers = aggregator_handlers(aggregator)
            self._core = aggregator
        server = AgentServer(self._socket_path, handlers=handlers, log=log, allowed_uids=self._allowed)
        stack.callback(server.stop)
        return server

    def _follow_foreign(self, coordinator: Coordinator, stack: ExitStack) -> None:
        """An aggregator verifies participants of foreign domains; a workload may be told their roots."""
        if self.spiffe_id.role is not Role.AGGREGATOR and self._workload_socket is None:
            return

        def take(bundles: tuple[TrustBundle, ...]) -> None:
            if self.spiffe_id.role is Role.AGGREGATOR:
                self._store.use_foreign(bundles)
            if self._workload is not None:
                self._workload.use_foreign(bundles)

        foreign = ForeignBundles(
            coordinator, home=self.spiffe_id.domain, view=self._home_view, on_change=take
        )
        self._foreign = foreign
        foreign.start()
        stack.callback(foreign.stop)

    def _be_hosted(self, domain: TrustDomain, coordinator: Coordinator, stack: ExitStack) -> None:
        """Follow the host's feed in place of our own for everything but ourselves and our certificate."""
        record = find_host(domain, folder=self._state.folder, desk=coordinator)
        hosted = HostedCredentials(self._store, record, folder=self._state.folder)
        client = CoordinatorClient(record.address, lambda: hosted.current, domain)
        stack.callback(client.close)
        self._view.subscribe(HostRoots(hosted, client).heed)
        feed = WatchedFeed(client, self._store, on_revoked=self._take_revocation)
        follower = TrustFollower(feed, self._view, rng=self._rng)
        stack.callback(follower.stop)
        follower.start()
        self._hosted = hosted

    def _serve_workload(self, path: Path, coordinator: Coordinator, stack: ExitStack) -> None:
        from fltrust.agent.workloads import WorkloadKeeper, WorkloadServer  # few agents need them

        keeper = WorkloadKeeper(
            self._store, coordinator, view=self._home_view, clock=self._clock, rng=self._rng
        )
        self._workload = keeper
        if self._foreign is not None:
            keeper.use_foreign(self._foreign.current)
        server = WorkloadServer(path, keeper)
        server.start()
        stack.callback(server.stop)
        keeper.start()
        stack.callback(keeper.stop)  # first, so that every call has ended when the server stops

    def _participant(self, stack: ExitStack) -> ParticipantCore:
        node_key = self._state.load_node_key().key_id
        if node_key != self._state.record.node_key:
            raise Conflict(
                f"expected the node key that {self.spiffe_id} enrolled, {self.node_key_path} is another",
                hint="restore it, or join again with a token made with --replace",
            )
        journal = Journal(self._state.journal_path)
        stack.callback(journal.close)

        def prune(_credentials: Credentials | None = None) -> None:
            journal.prune(now=self._clock.now())

        prune()
        stack.callback(self._store.on_rotate(prune))

        def note_closed(event: TrustEvent) -> None:
            if event.kind is EventKind.RUN_CLOSED and event.run_id is not None:
                try:
                    journal.close_run(event.run_id, at=event.at)
                except FltrustError as error:
                    _log.warning("could not note that run %s is closed: %s", event.run_id, error)

        self._view.subscribe(note_closed)
        hosted = self._hosted
        return ParticipantCore(
            self._store,
            node_key=node_key,
            view=self._view,
            journal=journal,
            clock=self._clock,
            events=self._events,
            host=None if hosted is None else lambda: hosted.bundle,
            home=None if hosted is None else self._home_view,
            second=self._state.second().load,
        )

    def _heed(self, event: TrustEvent) -> None:
        """Notice our own revocation in the feed.

        By certificate or key alone: a revocation of the whole identity lists them, and the feed also
        replays those that came before this identity was enrolled anew. What is said of another domain's
        identity bars nothing of this one's, whatever serials it names (as `TrustState` has it).
        """
        if event.subject is None or event.subject.domain != self.spiffe_id.domain:
            return
        current = self._store.current.certificate
        if event.kind is EventKind.REVOKED and (
            current.serial in event.serials or current.key_id in event.keys
        ):
            self._take_revocation(
                Revoked(
                    f"{self.spiffe_id} was revoked at epoch {event.epoch} ({event.reason or 'unspecified'})",
                    hint="ask an operator why; a token made with --replace enrolls it anew",
                )
            )

    def _take_revocation(self, error: Revoked) -> None:
        with self._telling:
            if self._revoked is not None:
                return
            self._revoked = error
        if self._core is not None:
            self._core.halt(error)
        if self._workload is not None:
            self._workload.halt(error)
        _log.error("this agent signs nothing any more: %s", error)
        self._events.emit("agent-revoked", identity=str(self.spiffe_id), reason=error.reason)
        if self._on_revoked is not None:
            self._on_revoked(error)

    def _say_renewed(self, credentials: Credentials) -> None:
        certificate = credentials.certificate
        self._events.emit(
            "certificate-renewed",
            identity=str(self.spiffe_id),
            serial=certificate.serial.hex,
            key=str(certificate.key_id),
            not_after=certificate.not_after,
        )

    def _say_failing(self, reason: str, left: timedelta) -> None:
        """The alarm of the renewer: somebody should look before the certificate runs out."""
        self._events.emit(
            "renewal-failing",
            identity=str(self.spiffe_id),
            reason=reason,
            seconds_left=int(left.total_seconds()),
        )

    def _is_ready(self, state: TrustState) -> bool:
        """Fresh alone would not do: a feed that is still being replayed is."""
        try:
            state.judge(self._store.current.certificate)
        except FltrustError:
            return False
        return self._view.age() <= self._view.policy.bound

    def _unready(self) -> FltrustError:
        last = None if self._follower is None else self._follower.last_error
        if last is not None:
            return last
        try:
            self._view.require_fresh()
            self._view.judge(self._store.current.certificate)
        except StaleView:
            pass
        except FltrustError as error:
            return error
        return CoordinatorUnavailable(
            f"expected the coordinator at {self._state.record.address} to answer, it has not so far",
            hint="is it running and reachable from here?",
        )


def _over_network(state: AgentState, store: CredentialStore) -> Coordinator:
    return CoordinatorClient(state.record.address, lambda: store.current, state.spiffe_id.domain)
