"""The coordinator over gRPC, as its callers use it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from server_world import DOMAIN, Authorities, Collector, ServedWorld, request, served

from fltrust.client import ClientSettings, CoordinatorClient, bundle_of_token, enroll, fetch_bundle
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.types import TokenStatus
from fltrust.errors import (
    Conflict,
    CoordinatorUnavailable,
    Malformed,
    NotFound,
    PermissionDenied,
    Revoked,
    StatementRefused,
    TokenRefused,
)
from fltrust.identity import Digest, Epoch, Name, NodeId, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.rounds.chain import verify_chain
from fltrust.rounds.types import Candidate, CohortMember, RoundKey, RoundStatus
from fltrust.updates import Phase

IMPATIENT = ClientSettings(timeout=3.0, attempts=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("client")) as world:
        yield world


# The first words of a site.


def test_a_site_joins_with_a_token_and_nothing_else(world: ServedWorld) -> None:
    token, signer = world.token("join-a"), generate()
    issued = enroll(token, request(token, signer, generate()))
    assert issued.spiffe_id == SpiffeId(DOMAIN, Role.PARTICIPANT, Name("join-a"))
    assert issued.bundle == world.ca.bundle
    assert fetch_bundle(token) == world.ca.bundle
    assert bundle_of_token(token).roots == world.ca.bundle.roots


def test_a_token_is_good_once(world: ServedWorld) -> None:
    token = world.token("join-once")
    enroll(token, request(token, generate(), generate()))
    with pytest.raises(TokenRefused) as caught:
        enroll(token, request(token, generate(), generate()))
    assert caught.value.reason == "token-used"


def test_one_token_shown_by_many_at_once_enrolls_one_of_them(world: ServedWorld) -> None:
    token, outcomes = world.token("join-race"), []

    def race() -> None:
        try:
            outcomes.append(enroll(token, request(token, generate(), generate())))
        except TokenRefused as error:
            outcomes.append(error)

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sum(not isinstance(outcome, TokenRefused) for outcome in outcomes) == 1
    assert len(outcomes) == 8


def test_the_secret_is_not_sent_to_a_coordinator_under_another_root(world: ServedWorld) -> None:
    # The same domain name, another CA: somebody on the way.
    impostor = Authorities.make(DOMAIN)
    root = impostor.bundle.roots[0].public_bytes(Encoding.DER)
    token = world.token("join-impostor")
    with pytest.raises(CoordinatorUnavailable):
        enroll(replace(token, root_der=root), request(token, generate(), generate()), timeout=5)
    assert world.authority.counters.get("rpc.bootstrap.Enroll.token-unknown") == 0
    enroll(token, request(token, generate(), generate()))  # it was not spent


def test_a_token_whose_root_is_no_ca_is_refused_before_anything_is_sent(world: ServedWorld) -> None:
    token = replace(world.token("join-no-root"), root_der=b"not a certificate")
    with pytest.raises(Malformed):
        enroll(token, request(token, generate(), generate()))


def test_a_coordinator_that_is_not_there_is_named_with_its_address(world: ServedWorld) -> None:
    token = replace(world.token("join-nowhere"), bootstrap=f"127.0.0.1:{_free_port()}")
    with pytest.raises(CoordinatorUnavailable) as caught:
        enroll(token, request(token, generate(), generate()), timeout=5)
    assert token.bootstrap in (caught.value.hint or "")


# Every port, over the wire.


def test_renewal_gives_a_certificate_for_the_new_key(world: ServedWorld) -> None:
    site = world.join("renew-a")
    renewed = site.renew()
    assert renewed.chain_pem != site.credentials.chain_pem
    assert world.client(lambda: renewed).get_bundle() == world.ca.bundle
    with pytest.raises(Malformed):
        site.client.renew(b"not a request")


def test_tokens_are_made_listed_and_cancelled(world: ServedWorld) -> None:
    desk = world.operator.client
    made = desk.create_token(Role.AGGREGATOR, Name("tokens-a"), ttl=timedelta(minutes=1))
    assert Digest.sha256_of(made.root_der) == made.root
    (record,) = [t for t in desk.list_tokens() if t.name == "tokens-a"]
    assert record.status is TokenStatus.PENDING
    assert record.role is Role.AGGREGATOR
    assert record.created_by == world.operator.spiffe_id
    assert desk.cancel_token(record.token_id).status is TokenStatus.CANCELLED
    with pytest.raises(NotFound):
        desk.cancel_token("0123456789abcdef")


def test_participants_are_listed_and_found(world: ServedWorld) -> None:
    site, directory = world.join("directory-a"), world.operator.client
    found = directory.get_enrollment(site.spiffe_id)
    assert found in directory.list_enrollments()
    assert found.standing == "active"
    assert found.evidence == "join-token"
    with pytest.raises(NotFound):
        directory.get_enrollment(SpiffeId(DOMAIN, Role.PARTICIPANT, Name("directory-ghost")))
    with pytest.raises(PermissionDenied):
        site.client.list_enrollments()


def test_revoke_hold_and_release_return_their_events(world: ServedWorld) -> None:
    site, revoker = world.join("revoke-a"), world.operator.client
    (held,) = revoker.hold(site.target, reason=RevocationReason.UNSPECIFIED)
    (released,) = revoker.release(site.target)
    since = world.clock.now() - timedelta(hours=1)
    (revoked,) = revoker.revoke(site.target, reason=RevocationReason.KEY_COMPROMISE, compromised_since=since)
    assert [e.kind for e in (held, released, revoked)] == [
        EventKind.HELD,
        EventKind.RELEASED,
        EventKind.REVOKED,
    ]
    assert revoked.compromised_since == since
    assert revoked.actor == world.operator.spiffe_id
    with pytest.raises(Conflict):
        revoker.release(site.target)
    with pytest.raises(NotFound):
        revoker.revoke(RevocationTarget(run=RunId(404)), reason=RevocationReason.UNSPECIFIED)
    with pytest.raises(Revoked):
        site.client.get_bundle()


def test_a_round_is_opened_sealed_and_read_back(world: ServedWorld) -> None:
    main, site = world.join("rounds-main", Role.AGGREGATOR), world.join("rounds-a")
    assert site.node is not None
    member = CohortMember(site.spiffe_id, NodeId(2**64 - 1), site.node.key_id, Digest.sha256_of(b"x"))
    key = RoundKey(RunId(2**64 - 1), 1, 1, Phase.TRAIN)
    opened = main.client.open_round(key, (member,))
    assert opened.refused == ()
    with pytest.raises(Conflict):
        main.client.open_round(key, ())
    receipt = main.client.seal_round(key, (), ((site.spiffe_id, "no-reply"),))
    assert main.client.seal_round(key, (), ((site.spiffe_id, "no-reply"),)) == receipt
    with pytest.raises(Conflict):
        main.client.seal_round(key, (Candidate(b"i", b"u"),), ())
    record = main.client.get_round(key.run_id, 1)
    assert record.status is RoundStatus.SEALED
    assert record.receipt == receipt
    assert record.cohort == (member,)
    assert [r.key for r in main.client.list_rounds(key.run_id)] == [key]
    assert key in [r.key for r in world.operator.client.list_rounds()]
    assert main.client.list_rounds(RunId(12)) == ()
    for asking in (main, world.operator):
        report = verify_chain([record], world.ca.bundle, log=asking.client.prove_rounds(key.run_id))
        assert report.is_good, report.problems
        assert report.log is not None
    with pytest.raises(NotFound):
        main.client.prove_rounds(RunId(12))
    with pytest.raises(PermissionDenied):
        site.client.prove_rounds(key.run_id)
    main.client.close_run(key.run_id)
    main.client.close_run(key.run_id)
    with pytest.raises((Conflict, StatementRefused)):
        main.client.open_round(replace(key, step=2), (member,))
    with pytest.raises(PermissionDenied):
        site.client.list_rounds()


# Credentials that change, and coordinators that come and go.


def test_the_next_call_after_a_rotation_uses_the_new_certificate_and_open_watches_go_on(
    tmp_path: Path,
) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        old = site.credentials
        watch = Collector(site.client.watch(Epoch(0)))
        assert watch.wait_for(lambda w: w.epochs == [1, 2])
        site.use(site.renew())
        site.client.get_bundle()
        # Revoking the old certificate alone hits the old watch, and not the new calls.
        serial = x509.load_pem_x509_certificate(old.chain_pem).serial_number
        world.operator.client.revoke(
            RevocationTarget(serial=Serial(serial)), reason=RevocationReason.SUPERSEDED
        )
        assert watch.ended()
        assert isinstance(watch.error, Revoked)
        site.client.get_bundle()


def test_calls_made_while_certificates_rotate_all_succeed(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        errors: list[Exception] = []
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    site.client.get_bundle()
                except Exception as error:
                    errors.append(error)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(10):
            site.use(site.renew())
        stop.set()
        for worker in workers:
            worker.join()
        assert errors == []


def test_a_call_waits_out_a_short_absence_of_the_coordinator(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        patient = world.client(
            lambda: site.credentials, settings=ClientSettings(timeout=30, attempts=50, max_pause=0.2)
        )
        patient.get_bundle()
        world.settings = ServerSettings(bootstrap=world.bootstrap, address=world.address)
        world.stop()
        back = threading.Timer(0.5, world.start)
        back.start()
        # Not only what may be repeated: a renewal that could not be sent is sent later.
        patient.renew(create_csr(generate()))
        patient.get_bundle()
        back.join()


def test_a_slow_handshake_is_waited_for(world: ServedWorld) -> None:
    host, _, port = world.address.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def relay() -> None:
            near, _ = listener.accept()
            far = socket.create_connection((host, int(port)))
            time.sleep(0.7)  # a busy coordinator, or a long way
            threading.Thread(target=_pump, args=(far, near), daemon=True).start()
            _pump(near, far)

        threading.Thread(target=relay, daemon=True).start()
        with CoordinatorClient(
            f"127.0.0.1:{listener.getsockname()[1]}",
            lambda: world.operator.credentials,
            DOMAIN,
            settings=ClientSettings(timeout=20, attempts=1),
        ) as client:
            assert client.get_bundle() == world.ca.bundle


def test_no_answer_within_the_deadline_is_unavailable(world: ServedWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with CoordinatorClient(
            address, lambda: world.operator.credentials, DOMAIN, settings=ClientSettings(timeout=0.5)
        ) as client:
            began = time.monotonic()
            with pytest.raises(CoordinatorUnavailable) as caught:
                client.get_bundle()
            assert caught.value.hint is not None
            assert time.monotonic() - began < 60


def test_nobody_at_the_address_is_unavailable_after_a_few_attempts(world: ServedWorld) -> None:
    with CoordinatorClient(
        f"127.0.0.1:{_free_port()}", lambda: world.operator.credentials, DOMAIN, settings=IMPATIENT
    ) as client:
        with pytest.raises(CoordinatorUnavailable):
            client.revoke(
                RevocationTarget(name=(Role.PARTICIPANT, Name("a"))), reason=RevocationReason.UNSPECIFIED
            )
        with pytest.raises(CoordinatorUnavailable):
            next(client.watch(Epoch(0)))


def test_a_coordinator_of_another_domain_is_not_spoken_to(world: ServedWorld) -> None:
    elsewhere = TrustDomain("elsewhere.example")
    with (
        CoordinatorClient(
            world.address, lambda: world.operator.credentials, elsewhere, settings=IMPATIENT
        ) as client,
        pytest.raises(CoordinatorUnavailable),
    ):
        client.get_bundle()


def test_closing_a_watch_from_another_thread_ends_it(world: ServedWorld) -> None:
    watch = world.operator.client.watch(Epoch(0))
    reader = Collector(watch)
    assert reader.wait_for(lambda r: bool(r.items))
    watch.close()
    assert reader.ended()
    assert reader.error is None
    watch.close()


def test_closing_the_client_ends_its_watches(world: ServedWorld) -> None:
    client = world.client(lambda: world.operator.credentials)
    reader = Collector(client.watch(Epoch(0)))
    assert reader.wait_for(lambda r: bool(r.items))
    client.close()
    assert reader.ended()


def test_keys_and_secrets_are_not_in_what_is_printed(world: ServedWorld) -> None:
    credentials = world.operator.credentials
    assert "PRIVATE KEY" not in repr(credentials)
    token = world.token("printed")
    assert token.secret.hex() not in repr(token)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
