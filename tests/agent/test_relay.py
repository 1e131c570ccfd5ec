from __future__ import annotations

import hashlib
import http.client
import logging
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from relay_world import Domain, Flower, Superlink, make_relay, running, wait_for

from fltrust.agent import carry, loopback, upstream
from fltrust.agent.credentials import CredentialStore
from fltrust.agent.relay import Relay
from fltrust.agent.upstream import Dialer
from fltrust.identity import Role
from fltrust.revocation import EventKind
from fltrust.revocation.view import ReachPolicy

BROKEN = (http.client.HTTPException, OSError)


@dataclass
class House:
    domain: Domain
    site: CredentialStore
    aggregator: CredentialStore
    superlink: Superlink
    relay: Relay

    def flower(self) -> Flower:
        return Flower(self.relay)


@pytest.fixture
def domain() -> Domain:
    return Domain()


@pytest.fixture
def house(domain: Domain, tmp_path: Path) -> Iterator[House]:
    site, aggregator = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.AGGREGATOR, "main")
    with running(aggregator) as superlink, make_relay(domain, site, superlink.port, tmp_path) as relay:
        yield House(domain, site, aggregator, superlink, relay)


def test_a_request_goes_out_with_the_participants_certificate(house: House) -> None:
    assert house.flower().post(body=b"weights") == (200, b"weights")
    assert house.superlink.serials == [house.site.current.certificate.serial]


def test_the_root_of_the_local_port_is_private_and_good_for_127_0_0_1_alone(house: House) -> None:
    root = house.relay.root_certificates
    assert root.stat().st_mode & 0o777 == 0o600
    host, port = house.relay.address.split(":")
    context = ssl.create_default_context(cafile=root)
    with pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="localhost")


def test_openssl_verifies_the_local_port(house: House) -> None:
    seen = subprocess.run(
        ["openssl", "s_client", "-connect", house.relay.address, "-CAfile", house.relay.root_certificates,
         "-verify_return_error", "-verify_ip", "127.0.0.1", "-x509_strict", "-tls1_3"],
        input=b"", capture_output=True, timeout=30,
    )  # fmt: skip
    assert b"Verify return code: 0 (ok)" in seen.stdout, seen.stdout + seen.stderr
    assert b"Verified peername" not in seen.stdout or b"127.0.0.1" in seen.stdout


def test_the_local_port_speaks_tls_1_3_only(house: House) -> None:
    context = ssl.create_default_context(cafile=house.relay.root_certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = house.relay.address.split(":")
    with pytest.raises(ssl.SSLError), socket.create_connection((host, int(port))) as plain:
        context.wrap_socket(plain, server_hostname=host)


@pytest.mark.parametrize("size", [0, 1, carry.BUFFER - 1, carry.BUFFER, carry.BUFFER + 1, 30_000_000])
def test_bytes_arrive_exactly_in_both_directions(house: House, size: int) -> None:
    body = random.Random(size).randbytes(size)
    flower = house.flower()
    assert flower.post("/digest", body) == (200, hashlib.sha256(body).hexdigest().encode())
    assert flower.post("/echo", body) == (200, body)
    assert house.superlink.connections == 1


def test_a_rotation_drops_no_request_and_the_next_one_shows_the_new_certificate(house: House) -> None:
    flower = house.flower()
    flower.post()
    serial = house.domain.rotate(house.site)
    assert flower.post() == (200, b"hello")  # on the same local connection: it was not closed
    assert house.superlink.serials[-1] == serial
    assert len(set(house.superlink.serials)) == 2


def test_rotations_under_load_drop_no_request(house: House) -> None:
    stop = threading.Event()
    done: list[int] = []
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        flower, rng = house.flower(), random.Random(seed)
        try:
            while not stop.is_set():
                body = rng.randbytes(rng.choice((10, 1000, 300_000, 2_000_000)))
                assert flower.post("/echo", body) == (200, body)
                done.append(len(body))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for count in range(8):
        seen = len(done)
        wait_for(lambda seen=seen: len(done) >= seen + 12 or failures)
        house.domain.rotate(house.site)
        assert count >= 0
    stop.set()
    for worker in workers:
        worker.join()
    assert not failures
    assert len(set(house.superlink.serials)) >= 8
    assert not house.superlink.errors


def test_a_rotation_within_an_answer_lets_it_finish(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "IDLE_LOOK", 0.01)
    flower = house.flower()
    got: list[tuple[int, bytes]] = []
    asking = threading.Thread(target=lambda: got.append(flower.post("/stall")))
    asking.start()
    assert house.superlink.entered.wait(20)
    house.domain.rotate(house.site)
    looks = threading.Event()
    looks.wait(0.3)  # many looks at a line that is quiet after a word of the server's
    house.superlink.release.set()
    asking.join()
    assert got == [(200, b"half whole")]


def test_an_idle_connection_gives_up_an_old_certificate(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "IDLE_LOOK", 0.05)
    flower = house.flower()
    flower.post()
    house.domain.rotate(house.site)
    wait_for(lambda: not house.relay._lines)
    assert flower.post() == (200, b"hello")


def test_a_superlink_that_closes_between_requests_is_not_noticed(house: House) -> None:
    flower = house.flower()
    for _ in range(5):
        assert flower.post("/leave") == (200, b"hello")
        wait_for(lambda: not house.relay._lines)
    assert house.superlink.connections == 5
    assert house.relay.counts().accepted == 1


def test_a_superlink_out_of_reach_ends_the_local_connection_and_is_said_once(
    house: House, domain: Domain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with make_relay(domain, house.site, port, tmp_path / "other") as relay:
        for _ in range(3):
            with pytest.raises(BROKEN) as caught:
                Flower(relay).post()
            # Flower gives up on errors that speak of TLS, and tries again after others.
            assert not any(word in str(caught.value).lower() for word in ("ssl", "tls", "certificate"))
        wait_for(lambda: relay.refusals.snapshot().get("superlink-unreachable") == 3)
    said = [r for r in caplog.records if r.levelno >= logging.WARNING and "not reachable" in r.getMessage()]
    assert len(said) == 1


def test_an_early_answer_reaches_a_client_that_is_still_sending(house: House) -> None:
    flower = house.flower()
    connection = flower.connect()
    connection.putrequest("POST", "/early")
    connection.putheader("content-length", "50000000")
    connection.endheaders()
    try:
        for _ in range(50):
            connection.send(bytes(1_000_000))
    except OSError:
        pass  # the superlink did not want the rest
    assert connection.getresponse().status == 401


def test_a_request_that_the_superlink_drops_ends_the_local_connection(house: House) -> None:
    flower = house.flower()
    dropping = threading.Thread(
        target=lambda: house.superlink.entered.wait(20) and house.superlink.release.set()
    )
    dropping.start()
    with pytest.raises(BROKEN):
        flower.post("/never")
    dropping.join()


def test_what_is_not_read_is_not_buffered(house: House) -> None:
    flower = house.flower()
    connection = flower.connect()
    connection.putrequest("POST", "/never")
    connection.putheader("content-length", "100000000")
    connection.endheaders()
    assert connection.sock is not None
    connection.sock.setblocking(False)
    sent = refusals = 0
    while sent < 100_000_000 and refusals < 2:
        try:
            sent += connection.sock.send(bytes(65536))
            refusals = 0
        except ssl.SSLWantWriteError:
            refusals += 1
            threading.Event().wait(0.5)  # time enough for whatever still flows
    # Kernel buffers on four sockets and one of ours: far from 100 MB.
    assert sent < 60_000_000


def test_a_client_that_leaves_a_blocked_upload_frees_its_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "IDLE_LOOK", 0.05)
    monkeypatch.setattr(carry, "STALL", 1.5)
    flower = house.flower()
    connection = flower.connect()
    connection.putrequest("POST", "/never")
    connection.putheader("content-length", "100000000")
    connection.endheaders()
    assert connection.sock is not None
    connection.sock.settimeout(0.5)
    with pytest.raises(OSError, match="timed out"):
        connection.sock.sendall(bytes(100_000_000))
    flower.close()
    wait_for(lambda: house.relay.counts().open == 0)


def test_more_connections_than_allowed_wait_their_turn(house: House, domain: Domain, tmp_path: Path) -> None:
    with make_relay(domain, house.site, house.superlink.port, tmp_path / "other", max_connections=2) as relay:
        first, second, third = (Flower(relay) for _ in range(3))
        first.post()
        second.post()
        answered: list[tuple[int, bytes]] = []
        waiting = threading.Thread(target=lambda: answered.append(third.post()))
        waiting.start()
        waiting.join(0.3)
        assert not answered
        first.close()
        waiting.join()
        assert answered == [(200, b"hello")]


def test_a_revoked_aggregator_is_cut_off_and_not_spoken_to_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    flower = house.flower()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            flower.post("/never")
        except BROKEN as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert house.superlink.entered.wait(20)
    house.domain.say(EventKind.REVOKED, house.aggregator.spiffe_id)
    asking.join(20)
    assert failures  # in the midst of the request
    requests = len(house.superlink.serials)
    with pytest.raises(BROKEN):
        house.flower().post()
    assert len(house.superlink.serials) == requests
    wait_for(lambda: house.relay.refusals.snapshot().get("revoked"))
    assert any("aggregator/main is revoked" in record.getMessage() for record in caplog.records)


def test_with_a_view_older_than_the_policy_allows_nothing_new_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "FRESH_TIMEOUT", 0.1)
    domain = Domain(policy=ReachPolicy(bound=timedelta(0)))
    site, aggregator = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.AGGREGATOR, "main")
    refuse(domain, site, aggregator, tmp_path, reason="stale-view")


def test_a_revocation_during_the_dial_is_not_missed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    dial = Dialer.dial

    def dial_and_then(dialer: Dialer) -> object:
        line = dial(dialer)
        house.domain.say(EventKind.REVOKED, house.aggregator.spiffe_id)
        return line

    monkeypatch.setattr(Dialer, "dial", dial_and_then)
    with pytest.raises(BROKEN):
        house.flower().post()
    assert not house.superlink.serials


def test_a_held_participant_sends_nothing_until_it_is_released(house: House) -> None:
    house.domain.say(EventKind.HELD, house.site.spiffe_id)
    with pytest.raises(BROKEN):
        house.flower().post()
    assert not house.superlink.serials
    house.domain.say(EventKind.RELEASED, house.site.spiffe_id)
    assert house.flower().post() == (200, b"hello")


def test_a_refused_certificate_is_told_in_words_and_once(
    domain: Domain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = Domain()  # the same name, other keys: this superlink does not know our CA
    site, aggregator = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.AGGREGATOR, "main")
    pair = tmp_path / "pair.pem"
    pair.write_bytes(aggregator.current.signer.to_pem(None) + aggregator.current.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=elsewhere.credentials(Role.AGGREGATOR, "main").bundle_pem.decode())
    with running(aggregator) as superlink:
        superlink.context = context
        with make_relay(domain, site, superlink.port, tmp_path) as relay:
            for _ in range(3):
                with pytest.raises(BROKEN):
                    Flower(relay).post()
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len([text for text in said if "does not know the CA of our certificate" in text]) == 1, said


def test_a_participant_that_plays_the_superlink_is_not_spoken_to(domain: Domain, tmp_path: Path) -> None:
    site, other = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.PARTICIPANT, "site-b")
    refuse(domain, site, other, tmp_path)


def test_a_coordinator_that_plays_the_superlink_is_not_spoken_to(domain: Domain, tmp_path: Path) -> None:
    site = domain.enroll(Role.PARTICIPANT, "site-a")
    coordinator = CredentialStore(domain.credentials_of_coordinator())
    refuse(domain, site, coordinator, tmp_path, reason="wrong-role")


def test_an_aggregator_of_another_domain_is_not_spoken_to(domain: Domain, tmp_path: Path) -> None:
    other = Domain("banks.example").enroll(Role.AGGREGATOR, "main")
    refuse(domain, domain.enroll(Role.PARTICIPANT, "site-a"), other, tmp_path)


def test_an_aggregator_that_was_never_enrolled_is_not_spoken_to(domain: Domain, tmp_path: Path) -> None:
    site = domain.enroll(Role.PARTICIPANT, "site-a")
    unknown = CredentialStore(domain.credentials(Role.AGGREGATOR, "ghost"))
    refuse(domain, site, unknown, tmp_path, reason="unknown-identity")


def test_another_aggregator_than_the_named_one_is_not_spoken_to(domain: Domain, tmp_path: Path) -> None:
    site, other = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.AGGREGATOR, "second")
    domain.enroll(Role.AGGREGATOR, "main")
    refuse(domain, site, other, tmp_path, aggregator=domain.id(Role.AGGREGATOR, "main"))


def test_the_named_aggregator_is_spoken_to(domain: Domain, tmp_path: Path) -> None:
    site, main = domain.enroll(Role.PARTICIPANT, "site-a"), domain.enroll(Role.AGGREGATOR, "main")
    with (
        running(main) as superlink,
        make_relay(domain, site, superlink.port, tmp_path, aggregator=main.spiffe_id) as relay,
    ):
        assert Flower(relay).post() == (200, b"hello")


def refuse(
    domain: Domain,
    site: CredentialStore,
    server: CredentialStore,
    folder: Path,
    *,
    reason: str = "certificate-path",
    **options: object,
) -> None:
    with running(server) as superlink, make_relay(domain, site, superlink.port, folder, **options) as relay:
        with pytest.raises(BROKEN):
            Flower(relay).post(body=b"secret weights")
        wait_for(relay.refusals.snapshot)
        assert relay.refusals.snapshot() == {reason: 1}
    assert not superlink.serials  # not one request came through


@pytest.mark.skipif(not loopback.can_tell_peers(), reason="this system does not name a connection's user")
def test_the_kernel_names_the_user_at_the_other_end(house: House) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()[:2]) as theirs,
    ):
        ours, _ = server.accept()
        with ours:
            assert loopback.peer_uid(ours) == os.geteuid()
            theirs.close()
            assert loopback.peer_uid(ours) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused_before_a_byte(house: House) -> None:
    knock = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
        "c = socket.socket(); c.settimeout(20); c.connect(('127.0.0.1', int(sys.argv[1])));"
        "\ntry: print(c.recv(1))\nexcept ConnectionResetError: print(b'')"
    )
    port = house.relay.address.split(":")[1]
    seen = subprocess.run([sys.executable, "-c", knock, port], capture_output=True, timeout=30, check=True)
    assert seen.stdout == b"b''\n"
    wait_for(lambda: house.relay.refusals.snapshot() == {"peer-refused": 1})
    assert house.relay.counts().accepted == 0


def test_only_allowed_users_are_served(house: House, domain: Domain, tmp_path: Path) -> None:
    other = make_relay(
        domain, house.site, house.superlink.port, tmp_path / "other", allowed_uids=[os.geteuid() + 1]
    )
    with other as relay:
        with pytest.raises(BROKEN):
            Flower(relay).post()
        wait_for(lambda: relay.refusals.snapshot() == {"peer-refused": 1})


def test_stopping_ends_requests_and_threads(house: House) -> None:
    flower = house.flower()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            flower.post("/never")
        except BROKEN as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert house.superlink.entered.wait(20)
    house.relay.stop()
    asking.join(20)
    assert failures
    assert not [thread for thread in threading.enumerate() if thread.name == "fltrust-relay"]
    house.relay.stop()
