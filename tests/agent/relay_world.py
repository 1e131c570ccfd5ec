"""A superlink that records whose certificate each request came with, and a participant's relay before it."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.relay import Relay
from fltrust.clock import SystemClock
from fltrust.identity import Epoch, Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Draft, Issuer, create_issuing, create_root, make_bundle
from fltrust.revocation import EventKind, FeedHeartbeat, RevocationReason, TrustEvent
from fltrust.revocation.view import ReachPolicy, TrustView

CLOCK = SystemClock()


class Domain:
    """One trust domain: its CA, and a view of its trust feed."""

    def __init__(self, name: str = "hospitals.example", policy: ReachPolicy | None = None) -> None:
        self.domain = TrustDomain(name)
        root_key, issuing_key = generate(), generate()
        now = CLOCK.now()
        root = create_root(self.domain, signer=root_key, now=now)
        issuing = create_issuing(root=root, root_signer=root_key, public_key=issuing_key.public_key, now=now)
        self.issuer = Issuer(certificate=issuing, signer=issuing_key)
        self.bundle = make_bundle(self.domain, [root])
        self.view = TrustView(CLOCK, policy)
        self.view.feed(FeedHeartbeat(Epoch(0), CLOCK.now()))  # from here on, what is said is new

    def id(self, role: Role, name: str) -> SpiffeId:
        return SpiffeId.of(self.domain, role, name)

    def enroll(self, role: Role, name: str) -> CredentialStore:
        self.say(EventKind.ENROLLED, self.id(role, name))
        return CredentialStore(self.credentials(role, name))

    def credentials(self, role: Role, name: str, lifetime: timedelta | None = None) -> Credentials:
        key = generate()
        who = self.id(role, name)
        draft = Draft.of(who, key.public_key, now=CLOCK.now(), lifetime=lifetime)
        chain = [self.issuer.redeem(draft), self.issuer.certificate]
        return Credentials.verified(key, chain, bundle=self.bundle, expect=who, clock=CLOCK)

    def credentials_of_coordinator(self) -> Credentials:
        key, who = generate(), SpiffeId.of(self.domain, Role.COORDINATOR)
        chain = [self.issuer.redeem(Draft.of(who, key.public_key, now=CLOCK.now())), self.issuer.certificate]
        return Credentials.verified(key, chain, bundle=self.bundle, expect=who, clock=CLOCK)

    def rotate(self, store: CredentialStore) -> Serial:
        who = store.spiffe_id
        store.rotate(self.credentials(who.role, str(who.name)))
        return store.current.certificate.serial

    def say(self, kind: EventKind, who: SpiffeId) -> None:
        """Put one identity-wide event into the view; its listeners have heard it on return."""
        self.view.feed(
            TrustEvent(
                epoch=self.view.epoch.next(),
                kind=kind,
                at=CLOCK.now(),
                subject=who,
                identity_wide=True,
                reason=None if kind is EventKind.ENROLLED else RevocationReason.KEY_COMPROMISE,
            )
        )

    def beat(self) -> None:
        self.view.feed(FeedHeartbeat(Epoch(self.view.epoch), CLOCK.now()))


class Superlink(ThreadingHTTPServer):
    """Answers over TLS 1.3 with client certificates. `serials` has one certificate for each request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = context
        self.serials: list[Serial] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self.entered = threading.Event()
        self.release = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread.
        with self.context.wrap_socket(request, server_side=True) as connection:
            self.connections += 1
            super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        error = sys.exc_info()[1]
        if error is not None:
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Superlink

    def do_POST(self) -> None:
        shown = self.connection.getpeercert()
        self.server.serials.append(Serial.parse(str(shown["serialNumber"])))
        length = int(self.headers["content-length"])
        match self.path:
            case "/early":  # answers and leaves before it has read the request
                self._answer(401, b"no")
                self.close_connection = True
            case "/never":  # reads nothing, until it is released
                self.server.entered.set()
                self.server.release.wait(60)
                self.close_connection = True
            case "/stall":  # half an answer, then nothing until it is released
                self.rfile.read(length)
                self._head(200, 10)
                self.wfile.write(b"half ")
                self.server.entered.set()
                self.server.release.wait(60)
                self.wfile.write(b"whole")
            case "/digest":
                body = self.rfile.read(length)
                self._answer(200, hashlib.sha256(body).hexdigest().encode())
            case "/leave":  # answers, then closes as a server does after its keep-alive time
                self._answer(200, self.rfile.read(length))
                self.close_connection = True
            case _:
                self._answer(200, self.rfile.read(length))

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("content-length", str(length))
        self.end_headers()

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, len(body))
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def running(store: CredentialStore) -> Iterator[Superlink]:
    with Superlink(store.ssl_server_context()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()


class Flower:
    """A client as Flower's: keep-alive, verifies the relay by its root file."""

    def __init__(self, relay: Relay) -> None:
        self._context = ssl.create_default_context(cafile=relay.root_certificates)
        host, port = relay.address.split(":")
        self._address = (host, int(port))
        self._connection: http.client.HTTPSConnection | None = None

    def connect(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            host, port = self._address
            self._connection = http.client.HTTPSConnection(host, port, context=self._context, timeout=30)
            self._connection.connect()
        return self._connection

    def post(self, path: str = "/echo", body: bytes = b"hello") -> tuple[int, bytes]:
        connection = self.connect()
        connection.auto_open = 0  # a connection that the relay closed is an error, never a silent new one
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def wait_for(what: Any, *, seconds: float = 20.0) -> None:
    """Wait until `what()` holds; fails after a bound that only a hang reaches."""
    ended = threading.Event()
    end = CLOCK.monotonic() + seconds
    while not what():
        assert CLOCK.monotonic() < end, "waited in vain"
        ended.wait(0.01)


def make_relay(
    domain: Domain,
    store: CredentialStore,
    port: int,
    folder: Path,
    **options: Any,
) -> Relay:
    return Relay(
        ("127.0.0.1", port), credentials=store, view=domain.view, run_folder=folder / "run", **options
    )


__all__ = ["Domain", "Flower", "Superlink", "make_relay", "running", "wait_for"]
