"""Fetching a foreign bundle from a real TLS server: ours, and others that misbehave."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fltrust.client.bundle_endpoint import fetch_bundle
from fltrust.clock import SystemClock
from fltrust.coordinator.identity import issue_identity
from fltrust.coordinator.serve import BackgroundServer
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.foreign import BundleProfile, ForeignDomain
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Malformed, Oversized, Unavailable
from fltrust.identity import Role
from fltrust.keys.file import FileSigner
from fltrust.keys.tls import load_pair
from fltrust.pki import TrustBundle, chain_to_pem, make_bundle
from fltrust.pki.jwks import publish
from fltrust.testing import ScratchCoordinator, scratch_identity
from fltrust.testing.identities import ScratchCa

CLINIC = "clinic.example"
NOW = SystemClock().now


@pytest.fixture(scope="module")
def ca() -> ScratchCa:
    return ScratchCa.make(CLINIC)


def _record(bundle: TrustBundle, port: int, **changes: object) -> ForeignDomain:
    record = ForeignDomain(
        bundle=bundle,
        address="127.0.0.1:1",
        endpoint_url=f"https://127.0.0.1:{port}/spiffe/bundle",
        profile=BundleProfile.HTTPS_SPIFFE,
        endpoint_spiffe_id=f"spiffe://{CLINIC}/coordinator",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@contextmanager
def _serving(
    signer: FileSigner, chain_pem: bytes, answer: Callable[[BaseHTTPRequestHandler], None]
) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, signer, chain_pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _answering(
    body: bytes, *, status: int = 200, length: int | None = None, location: str | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if location is not None:
            handler.send_header("location", location)
        handler.send_header("content-length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextmanager
def _endpoint(ca: ScratchCa, answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    identity = issue_identity(ca.issuer, ca.bundle, clock=SystemClock())
    with _serving(identity.signer, identity.chain_pem, answer) as port:
        yield port


def test_a_coordinator_publishes_its_bundle_for_those_who_hold_an_older_one() -> None:
    with ScratchCoordinator(CLINIC) as coordinator:
        keeper = _Keeper(coordinator)
        settings = ServerSettings(services="127.0.0.1:0")
        server = BackgroundServer(CoordinatorServer(coordinator.authority, keeper, settings=settings))  # type: ignore[arg-type]
        server.start()
        try:
            address = server.server.services_address
            assert address is not None
            port = int(address.rpartition(":")[2])
            found = fetch_bundle(_record(coordinator.bundle, port), at=NOW())
            assert (found.bundle, found.refresh) == (coordinator.bundle, timedelta(minutes=1))
        finally:
            server.stop()


class _Keeper:
    def __init__(self, coordinator: ScratchCoordinator) -> None:
        self.current = issue_identity(coordinator.ca.issuer, coordinator.bundle, clock=SystemClock())


def test_a_newer_bundle_comes_over_a_connection_that_the_older_one_authenticates(ca: ScratchCa) -> None:
    newer = make_bundle(
        ca.bundle.domain, (*ca.bundle.roots, *ScratchCa.make(CLINIC).bundle.roots), sequence=2
    )
    with _endpoint(ca, _answering(publish(newer, refresh=timedelta(seconds=30)))) as port:
        assert fetch_bundle(_record(ca.bundle, port), at=NOW()).bundle == newer


def test_an_older_bundle_and_another_of_the_same_sequence_are_refused(ca: ScratchCa) -> None:
    held = make_bundle(ca.bundle.domain, ca.bundle.roots, sequence=5)
    more = (*ca.bundle.roots, *ScratchCa.make(CLINIC).bundle.roots)
    for shown in (ca.bundle, make_bundle(ca.bundle.domain, more, sequence=5)):
        answer = _answering(publish(shown, refresh=timedelta(seconds=30)))
        with _endpoint(ca, answer) as port, pytest.raises(Conflict):
            fetch_bundle(_record(held, port), at=NOW())


def test_an_endpoint_of_another_ca_is_refused_before_a_byte_is_sent(ca: ScratchCa) -> None:
    asked: list[str] = []
    impostor = ScratchCa.make(CLINIC)
    noting = _endpoint(impostor, lambda handler: asked.append(handler.path))
    with noting as port, pytest.raises(FltrustError):
        fetch_bundle(_record(ca.bundle, port), at=NOW())
    assert not asked


def test_an_identity_of_that_domain_that_is_not_the_endpoint_is_refused(ca: ScratchCa) -> None:
    """Also the aggregator, whose certificate serves TLS; and a participant, whose does not."""
    good = publish(ca.bundle, refresh=timedelta(seconds=30))
    for role in (Role.AGGREGATOR, Role.PARTICIPANT):
        who = scratch_identity("eve", role, ca=ca).credentials
        with _serving(who.file_signer, who.chain_pem, _answering(good)) as port:
            with pytest.raises(FltrustError) as refused:
                fetch_bundle(_record(ca.bundle, port), at=NOW())
            assert isinstance(refused.value, (CertificateRefused, Unavailable))


def test_the_endpoint_may_be_another_identity_of_the_domain_if_that_was_agreed(ca: ScratchCa) -> None:
    good = publish(ca.bundle, refresh=timedelta(seconds=30))
    main = scratch_identity("main", Role.AGGREGATOR, ca=ca).credentials
    with _serving(main.file_signer, main.chain_pem, _answering(good)) as port:
        record = _record(ca.bundle, port, endpoint_spiffe_id=str(main.spiffe_id))
        assert fetch_bundle(record, at=NOW()).bundle == ca.bundle


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_answering(b"x" * 300_000), Oversized),
        (_answering(b"not json"), Malformed),
        (_answering(b"{}", status=404), Unavailable),
        (_answering(b"", status=302, location="https://127.0.0.1/elsewhere"), Unavailable),
        (_answering(b"{}", length=4_000), FltrustError),
        (lambda handler: handler.wfile.write(b"no http\r\n\r\n"), Unavailable),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500), Unavailable),
    ],
)
def test_what_is_no_bundle_is_refused(
    ca: ScratchCa, answer: Callable[[BaseHTTPRequestHandler], None], error: type[FltrustError]
) -> None:
    with _endpoint(ca, answer) as port, pytest.raises(error):
        fetch_bundle(_record(ca.bundle, port), at=NOW())


def test_a_byte_now_and_then_is_no_answer(ca: ScratchCa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fltrust.client.bundle_endpoint.TOTAL_TIMEOUT", 0.5)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400:
            try:
                handler.wfile.write(bytes((byte,)))
                handler.wfile.flush()
            except OSError:
                return
            threading.Event().wait(0.05)

    with _endpoint(ca, drip) as port, pytest.raises(Unavailable):
        fetch_bundle(_record(ca.bundle, port), at=NOW())


def test_an_endpoint_that_is_not_there_is_unavailable(ca: ScratchCa) -> None:
    with pytest.raises(Unavailable):
        fetch_bundle(_record(ca.bundle, 1), at=NOW())


def test_a_web_endpoint_is_held_to_the_roots_and_name_of_the_web(ca: ScratchCa, tmp_path: Path) -> None:
    good = publish(ca.bundle, refresh=timedelta(seconds=30))
    web = ScratchCa.make("web.example")
    identity = issue_identity(web.issuer, web.bundle, clock=SystemClock(), dns_names=("localhost",))
    roots = tmp_path / "web.pem"
    roots.write_bytes(chain_to_pem(web.bundle.roots))
    with _serving(identity.signer, identity.chain_pem, _answering(good)) as port:
        changes = {"profile": BundleProfile.HTTPS_WEB, "endpoint_spiffe_id": None}
        by_name = _record(ca.bundle, port, endpoint_url=f"https://localhost:{port}/", **changes)
        assert fetch_bundle(by_name, at=NOW(), web_roots=roots).bundle == ca.bundle
        for record, trusted in (
            (by_name, None),  # not the machine's own roots
            (_record(ca.bundle, port, **changes), roots),  # not the name in the URL
        ):
            with pytest.raises(Unavailable):
                fetch_bundle(record, at=NOW(), web_roots=trusted)


def test_a_spiffe_endpoint_is_not_held_to_a_host_s_name(ca: ScratchCa) -> None:
    good = publish(ca.bundle, refresh=timedelta(seconds=30))
    with _endpoint(ca, _answering(good)) as port:
        record = _record(ca.bundle, port, endpoint_url=f"https://localhost:{port}/x")
        assert fetch_bundle(record, at=NOW()).bundle == ca.bundle
