"""Credentials that rotate: on disk, in memory, and in TLS handshakes that never mix two pairs."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from agent_world import ADMIN, MAIN, OTHER, SITE, World
from cryptography import x509

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.state import AgentState
from fltrust.errors import CertificateRefused, Conflict, Refusal, StorageUnavailable
from fltrust.identity import Serial, SpiffeId
from fltrust.keys import generate
from fltrust.pki import make_bundle


@pytest.fixture
def world() -> World:
    return World()


def live_world() -> World:
    """A domain whose certificates are valid by the machine's own clock, which TLS looks at."""
    return World(at=datetime.now(UTC))


def test_credentials_are_taken_in_only_if_they_verify(world: World) -> None:
    signer = generate()
    good = world.issue(SITE, signer)
    chain = good.certificate.chain
    take = {"bundle": world.bundle, "expect": SITE, "clock": world.clock}
    assert Credentials.verified(signer, chain, **take) == good  # type: ignore[arg-type]
    for bad, reason in (
        ({"expect": OTHER}, Refusal.UNKNOWN_IDENTITY),
        ({"bundle": World().bundle}, Refusal.CERTIFICATE_PATH),
    ):
        with pytest.raises(CertificateRefused) as caught:
            Credentials.verified(signer, chain, **(take | bad))  # type: ignore[arg-type]
        assert caught.value.reason == reason
    with pytest.raises(CertificateRefused) as caught:
        Credentials.verified(generate(), chain, **take)  # type: ignore[arg-type]
    assert caught.value.reason == Refusal.WRONG_CERTIFICATE


def test_neither_repr_nor_str_shows_the_key(world: World) -> None:
    store = world.enroll(SITE)
    secret = store.current.signer._private_key.private_numbers().private_value
    for text in (repr(store.current), str(store.current), repr(store)):
        assert str(secret) not in text
        assert f"{secret:x}" not in text


def test_a_rotation_gives_a_new_key_while_the_old_pair_stays_good(world: World) -> None:
    store = world.enroll(SITE)
    old = store.current
    seen: list[Credentials] = []
    end = store.on_rotate(seen.append)
    store.rotate(world.issue(SITE, generate()))
    new = store.current
    assert seen == [new]
    assert new.signer.key_id != old.signer.key_id
    for pair in (old, new):  # both are valid at once
        world.view.judge(pair.certificate)
        Credentials.verified(
            pair.signer, pair.certificate.chain, bundle=world.bundle, expect=SITE, clock=world.clock
        )
    end()
    store.rotate(world.issue(SITE, generate()))
    assert seen == [new]


def test_a_rotation_to_another_identity_is_refused(world: World) -> None:
    store = world.enroll(SITE)
    with pytest.raises(Conflict):
        store.rotate(world.issue(OTHER, generate()))
    assert store.current.spiffe_id == SITE


def test_a_listener_that_fails_stops_neither_the_rotation_nor_the_others(world: World) -> None:
    store, seen = world.enroll(SITE), []

    def broken(_credentials: Credentials) -> None:
        raise RuntimeError("a bug")

    store.on_rotate(broken)
    store.on_rotate(seen.append)
    store.rotate(world.issue(SITE, generate()))
    assert seen == [store.current]


def test_a_rotation_is_on_disk_when_it_returns(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    store = CredentialStore.load(state, clock=world.clock)
    store.rotate(world.issue(SITE, generate()))
    again = CredentialStore.load(AgentState.open(tmp_path / "s"), clock=world.clock)
    assert again.current.certificate == store.current.certificate
    assert store.is_saved


def test_a_disk_that_refuses_does_not_stop_the_rotation_and_is_tried_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    store = CredentialStore.load(state, clock=world.clock)
    old = store.current

    def full(*_args: object) -> None:
        raise StorageUnavailable("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(state, "store_identity", full)
        store.rotate(world.issue(SITE, generate()))
    assert store.current != old
    assert not store.is_saved
    kept = CredentialStore.load(AgentState.open(tmp_path / "s"), clock=world.clock)
    assert kept.current.certificate == old.certificate
    store.save()
    assert store.is_saved
    on_disk = CredentialStore.load(AgentState.open(tmp_path / "s"), clock=world.clock)
    assert on_disk.current.certificate == store.current.certificate


def test_an_expired_certificate_is_refused_with_what_to_do(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    world.clock.advance(timedelta(hours=2))
    with pytest.raises(CertificateRefused, match="fltrust join") as caught:
        CredentialStore.load(state, clock=world.clock)
    assert caught.value.reason == Refusal.CERTIFICATE_EXPIRED


class Listener:
    """A TLS listener on loopback that keeps one server context for its life, as uvicorn does."""

    def __init__(self, store: CredentialStore) -> None:
        self.context = store.ssl_server_context()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.peers: list[str | None] = []
        self.resumed: list[bool | None] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self.socket.accept()
            except OSError:
                return
            raw.settimeout(20)
            try:
                with self.context.wrap_socket(raw, server_side=True) as tls:
                    der = tls.getpeercert(binary_form=True)
                    self.peers.append(
                        None if der is None else Serial(x509.load_der_x509_certificate(der).serial_number).hex
                    )
                    self.resumed.append(tls.session_reused)
                    tls.sendall(b"hello")
            except OSError as error:
                self.peers.append(type(error).__name__)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def dial(
    context: ssl.SSLContext, port: int, name: SpiffeId | str = MAIN, session: ssl.SSLSession | None = None
) -> tuple[str, ssl.SSLSession | None]:
    """Shake hands and read one word; the serial that the server showed, and the session."""
    host = name if isinstance(name, str) else name.dns_name
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=host, session=session) as tls,
    ):
        assert tls.recv(5) == b"hello"
        assert tls.version() == "TLSv1.3"
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return Serial(x509.load_der_x509_certificate(der).serial_number).hex, tls.session


def test_both_ends_use_the_pair_of_the_moment_for_every_handshake() -> None:
    world = live_world()
    main, site = world.enroll(MAIN), world.enroll(SITE)
    listener = Listener(main)
    try:
        for _ in range(3):
            shown, _ = dial(site.ssl_client_context(), listener.port)
            assert shown == main.current.certificate.serial.hex
            assert listener.peers[-1] == site.current.certificate.serial.hex
            main.rotate(world.issue(MAIN, generate()))
            site.rotate(world.issue(SITE, generate()))
        assert len(set(listener.peers)) == 3
    finally:
        listener.close()


def test_a_root_that_is_added_is_trusted_by_a_listener_that_is_running() -> None:
    world, other = live_world(), live_world()
    main = world.enroll(MAIN)
    listener = Listener(main)
    both = make_bundle(world.bundle.domain, [world.root, other.root], sequence=2)
    newcomer = CredentialStore(replace(other.issue(SITE, generate()), bundle=both))
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            dial(newcomer.ssl_client_context(), listener.port)
        main.rotate(replace(main.current, bundle=both))
        dial(newcomer.ssl_client_context(), listener.port)
        assert listener.peers[-1] == newcomer.current.certificate.serial.hex
    finally:
        listener.close()


def test_no_session_is_ever_resumed() -> None:
    world = live_world()
    main, site = world.enroll(MAIN), world.enroll(SITE)
    listener = Listener(main)
    try:
        context = site.ssl_client_context()
        _, session = dial(context, listener.port)
        assert session is None or not session.has_ticket
        dial(context, listener.port)
        assert listener.resumed == [False, False]
    finally:
        listener.close()


def test_a_client_without_a_certificate_or_with_an_older_protocol_is_refused() -> None:
    world = live_world()
    main, site = world.enroll(MAIN), world.enroll(SITE)
    listener = Listener(main)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=site.current.bundle_pem.decode())
    old = site.ssl_client_context()
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            dial(bare, listener.port)
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            dial(old, listener.port)
    finally:
        listener.close()


def test_a_server_of_another_name_or_domain_is_refused() -> None:
    world = live_world()
    main, site = world.enroll(MAIN), world.enroll(SITE)
    listener = Listener(main)
    try:
        with pytest.raises(ssl.SSLCertVerificationError):
            dial(site.ssl_client_context(), listener.port, name="other.aggregator.hospitals.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            dial(live_world().enroll(SITE).ssl_client_context(), listener.port)
    finally:
        listener.close()


def test_handshakes_during_rotations_all_succeed() -> None:
    world = live_world()
    main, site = world.enroll(MAIN), world.enroll(SITE)
    listener = Listener(main)
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            main.rotate(world.issue(MAIN, generate()))
            site.rotate(world.issue(SITE, generate()))

    rotator = threading.Thread(target=rotate)
    rotator.start()
    try:
        shown = {dial(site.ssl_client_context(), listener.port)[0] for _ in range(40)}
        assert len(shown) > 1
    finally:
        stop.set()
        rotator.join()
        listener.close()


def test_the_form_for_grpc_is_the_current_pair(world: World) -> None:
    store = world.enroll(ADMIN)
    leaf = x509.load_pem_x509_certificates(store.current.chain_pem)[0]
    assert Serial(leaf.serial_number) == store.current.certificate.serial
    assert b"BEGIN PRIVATE KEY" in store.current.key_pem
