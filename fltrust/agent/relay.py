"""Carries Flower's traffic: TLS on 127.0.0.1 in, mutual TLS to the superlink out.

An unmodified `flower-supernode` speaks to the relay as if it were the SuperLink. Every new request goes out
on a connection that shows the certificate which is current then. Threads with blocking hands: one accepts,
each connection has one; OpenSSL works outside the interpreter's lock, so two connections use two cores.

Whoever can connect here speaks with the participant's certificate. So the port is bound to 127.0.0.1 alone
and takes connections of `allowed_uids` alone (by default, this process's own user), as the kernel names
them. On systems that do not say (all but Linux), that check has to be turned off to start, knowingly.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fltrust.agent.carry import Carrier
from fltrust.agent.complaints import Complaints
from fltrust.agent.counters import RefusalCounter
from fltrust.agent.loopback import can_tell_peers, make_loopback_tls, peer_uid
from fltrust.agent.upstream import Dialer, RelayCredentials, Upstream
from fltrust.clock import Clock, SystemClock
from fltrust.errors import FltrustError, PermissionDenied, StorageUnavailable, Unavailable
from fltrust.files import make_private_folder, write_durably
from fltrust.identity import SpiffeId
from fltrust.revocation.events import TrustEvent
from fltrust.revocation.view import TrustView

MAX_CONNECTIONS = 24
"""Local connections carried at once; more wait in the listener's queue. Below what a superlink takes from
one participant (32), so that old and new ones fit side by side."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a local TLS handshake."""

_JOIN_TIMEOUT = 5.0
_ACCEPT_PAUSE = 0.1

_log = logging.getLogger("fltrust.relay")


@dataclass(frozen=True, slots=True)
class RelayCounts:
    """What a relay has done so far: local connections taken (and open now), upstream ones dialled, and
    bytes received from the superlink, without TLS."""

    accepted: int
    open: int
    dialled: int
    received: int


class Relay:
    """A local TLS port that stands for one superlink, between `start` and `stop`.

    `superlink` is its Fleet API's host and port; `aggregator` who must answer there (None: any
    aggregator of our domain in good standing). `run_folder` (private, made if need be) gets the root
    that the local port is to be verified with. `refusals` counts what was refused, by reason.
    """

    def __init__(
        self,
        superlink: tuple[str, int],
        *,
        credentials: RelayCredentials,
        view: TrustView,
        run_folder: Path,
        aggregator: SpiffeId | None = None,
        clock: Clock | None = None,
        allowed_uids: Collection[int] | None = None,
        check_peer_uid: bool = True,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._clock = clock or SystemClock()
        self._dialer = Dialer(superlink, credentials, view, self._clock, aggregator)
        self._view = view
        self._run_folder = run_folder
        self._uids = frozenset((os.geteuid(),) if allowed_uids is None else allowed_uids)
        self._check_peer_uid = check_peer_uid
        self._slots = threading.BoundedSemaphore(max_connections)
        self._complaints = Complaints(_log)
        self.refusals = RefusalCounter()
        self._lock = threading.Lock()
        self._locals: set[socket.socket] = set()
        self._lines: set[Upstream] = set()
        self._threads: set[threading.Thread] = set()
        self._accepted = self._dialled = self._received = 0
        self._stopping = False
        self._listener: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Listen. `PermissionDenied` where peers cannot be told apart but should be."""
        if self._check_peer_uid and not can_tell_peers():
            raise PermissionDenied(
                "expected a system that names the user behind a loopback connection, this one does not",
                reason="peer-unknown",
                hint="only if no other user can log in here, turn the check off",
            )
        tls = make_loopback_tls(now=self._clock.now())
        make_private_folder(self._run_folder)
        write_durably(self.root_certificates, tls.root_pem, mode=0o600)
        self._context = tls.context
        try:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        except OSError as error:
            raise StorageUnavailable(f"could not listen on 127.0.0.1: {error.strerror or error}") from error
        self._unsubscribe = self._view.subscribe(self._on_trust_event)
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Cut every connection and end every thread. Idempotent."""
        with self._lock:
            self._stopping = True
            listener, self._listener = self._listener, None
            sockets = [*self._locals, *(line.socket for line in self._lines)]
            threads = tuple(self._threads)
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for connection in sockets:
            _cut(connection)
        if listener is not None:
            _cut(listener)
            listener.close()
        end = self._clock.monotonic() + _JOIN_TIMEOUT
        for thread in threads:  # one that is dialling just now ends on its own
            thread.join(max(0.0, end - self._clock.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """``127.0.0.1:port``, for ``--superlink``."""
        if self._listener is None:
            raise Unavailable("expected a relay that was started, this one is not")
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def root_certificates(self) -> Path:
        """The root of the local port, in PEM, for ``--root-certificates``."""
        return self._run_folder / "relay-root.pem"

    def counts(self) -> RelayCounts:
        with self._lock:
            return RelayCounts(self._accepted, len(self._locals), self._dialled, self._received)

    # --- local connections ---------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            self._slots.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._slots.release()
                if self._stopping:
                    return
                self._complaints.say("accept", f"the relay cannot accept connections: {error.strerror}")
                time.sleep(_ACCEPT_PAUSE)
                continue
            if not self._spawn(self._serve, connection):
                self._slots.release()
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._admit(connection)
        except FltrustError as error:
            self.refusals.count(error.reason)
            self._complaints.say(error.reason, str(error))
        except OSError as error:
            _log.debug("a local connection ended: %s", error)
        except Exception:  # this connection's trouble is not the relay's
            _log.exception("a connection of the relay failed")
        finally:
            self._slots.release()

    def _admit(self, plain: socket.socket) -> None:
        if self._context is None:
            return
        self._check_peer(plain)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(HANDSHAKE_TIMEOUT)
        # The handshake is always finished first: Flower takes an end within it for a wrong
        # certificate and gives up, where it would try again after an end behind it.
        with self._context.wrap_socket(plain, server_side=True) as connection:
            with self._lock:
                if self._stopping:
                    return
                self._locals.add(connection)
                self._accepted += 1
            try:
                Carrier(connection, self, monotonic=self._clock.monotonic).run()
            finally:
                with self._lock:
                    self._locals.discard(connection)

    def _check_peer(self, connection: socket.socket) -> None:
        if not self._check_peer_uid:
            return
        uid = peer_uid(connection)
        if uid not in self._uids:
            who = "a user that the system does not name" if uid is None else f"uid {uid}"
            raise PermissionDenied(
                f"expected a local connection of uid {', '.join(map(str, sorted(self._uids)))}, got {who}'s",
                reason="peer-refused",
            )

    # --- upstream connections: what a Carrier asks for ------------------------------------------

    def open(self) -> Upstream:
        """Dial, and keep the line among those that the next trust event judges."""
        line = self._dialer.dial()
        with self._lock:
            self._lines.add(line)
            self._dialled += 1
            stopping = self._stopping
        try:
            # Again, now that `_on_trust_event` knows the line: what was said in between is not missed.
            self._judge(line)
            if stopping:
                raise Unavailable("the relay is stopping")
        except FltrustError:
            self.close(line)
            raise
        return line

    def is_current(self, line: Upstream) -> bool:
        return self._dialer.credentials.current.certificate.serial == line.ours.serial

    def close(self, line: Upstream) -> None:
        with self._lock:
            self._lines.discard(line)
        line.socket.close()

    def answered(self, line: Upstream, size: int) -> None:
        with self._lock:
            self._received += size
        self._complaints.all_is_well(f"{line.theirs.spiffe_id} at {self._dialer.where}")

    def broke_off(self, line: Upstream, error: OSError | None, *, answered: bool) -> None:
        if isinstance(error, ssl.SSLError) and error.reason is not None:
            self._complaints.say("superlink-refused", self._dialer.describe(error))
        elif not answered:
            self._complaints.say(
                "superlink-refused",
                f"the superlink at {self._dialer.where} ({line.theirs.spiffe_id}) closed a connection of "
                f"{line.ours.spiffe_id} without an answer: is it revoked, or its certificate expired?",
            )
        else:
            _log.debug("the superlink ended a connection within a request: %s", error)

    # --- the trust view -------------------------------------------------------------------------

    def _on_trust_event(self, event: TrustEvent) -> None:
        """Cut at once every connection whose one end or other does not stand well any more."""
        with self._lock:
            lines = tuple(self._lines)
        for line in lines:
            try:
                self._judge(line)
            except FltrustError as error:
                self._complaints.say(error.reason, f"{error}: its connections are cut (epoch {event.epoch})")
                _cut(line.socket)

    def _judge(self, line: Upstream) -> None:
        self._view.judge(line.ours)
        self._view.judge(line.theirs)

    # --- threads --------------------------------------------------------------------------------

    def _spawn(self, work: Callable[[socket.socket], None], connection: socket.socket) -> bool:
        def run() -> None:
            try:
                work(connection)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="fltrust-relay", daemon=True)
        with self._lock:
            if self._stopping:
                return False
            self._threads.add(thread)
        thread.start()
        return True


def _cut(connection: socket.socket) -> None:
    """End both directions, from another thread than the one that uses it: that one wakes up and closes."""
    with suppress(OSError):
        # The plain socket's own: `SSLSocket.shutdown` would take the TLS state away under that thread.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
