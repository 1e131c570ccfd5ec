"""Who gets in: every call on the mTLS port is decided by certificate, role and epoch."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import raw_http2
from cryptography import x509
from server_world import DOMAIN, Authorities, Person, ServedWorld, served

from fltrust.client import Credentials
from fltrust.client.channel import coordinator_of, open_bootstrap_channel, open_channel
from fltrust.coordinator.enroller import record_of
from fltrust.coordinator.permissions import BOOTSTRAP_METHODS, METHODS
from fltrust.errors import (
    CertificateRefused,
    CoordinatorUnavailable,
    FltrustError,
    Malformed,
    PermissionDenied,
    Revoked,
    Unauthenticated,
    Unavailable,
)
from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.pki.leaf import ca_key_id
from fltrust.revocation.events import EventKind
from fltrust.wire import methods
from fltrust.wire.errors import error_from_call
from fltrust.wire.pb.enrollment_pb2 import RenewRequest

COORDINATOR = coordinator_of(DOMAIN)
ANSWERED_MANY_TIMES = {methods.WATCH, methods.FIND_LINEAGE, methods.AUDIT}


CALLERS = frozenset(Role) - {Role.COORDINATOR, Role.SERVER, Role.WORKLOAD}
"""Roles that enroll for a client certificate."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("gate")) as world:
        yield world


CALLERS = frozenset(Role) - {Role.COORDINATOR, Role.SERVER, Role.WORKLOAD}
"""Roles that enroll for a client certificate."""


@pytest.fixture(scope="module")
def people(world: ServedWorld) -> dict[Role, Person]:
    return {
        Role.PARTICIPANT: world.join("gate-site"),
        Role.AGGREGATOR: world.join("gate-main", Role.AGGREGATOR),
        Role.OPERATOR: world.operator,
        Role.SIGNER: world.join("gate-release", Role.SIGNER),
        Role.DEVICE: world.join("gate-device", Role.DEVICE),
    }


def call(channel: grpc.Channel, method: str, request: bytes = b"") -> bytes:
    """One call, whatever its kind; raises our error."""
    try:
        if method in ANSWERED_MANY_TIMES:
            answer: bytes = next(channel.unary_stream(method)(request, timeout=10))
        else:
            answer = channel.unary_unary(method)(request, timeout=10)
    except grpc.RpcError as error:
        raise error_from_call(error) from None
    return answer


@pytest.mark.parametrize(
    ("method", "role"),
    [(m, r) for m, roles in METHODS.items() for r in sorted(CALLERS - roles)],
)
def test_a_role_that_the_table_does_not_name_is_refused(
    world: ServedWorld, people: dict[Role, Person], method: str, role: Role
) -> None:
    with (
        world.channel(people[role].credentials) as channel,
        pytest.raises(PermissionDenied, match=method.rpartition("/")[2]),
    ):
        call(channel, method)


@pytest.mark.parametrize(("method", "role"), [(m, r) for m, roles in METHODS.items() for r in sorted(roles)])
def test_a_role_that_the_table_names_gets_past_it(
    world: ServedWorld, people: dict[Role, Person], method: str, role: Role
) -> None:
    with world.channel(people[role].credentials) as channel:
        try:
            call(channel, method)
        except (PermissionDenied, Unauthenticated) as error:
            pytest.fail(f"{error}")
        except FltrustError:
            pass  # an empty request is not always a good one


def test_the_coordinators_own_certificate_may_call_nothing(world: ServedWorld) -> None:
    credentials = world.ca.credentials(COORDINATOR)
    with world.channel(credentials) as channel:
        for method in METHODS:
            with pytest.raises(PermissionDenied):
                call(channel, method)


@pytest.mark.parametrize("method", ["/fltrust.v1.TrustService/Unheard", "/x.Y/Z", methods.ENROLL])
def test_an_unknown_method_is_not_there(world: ServedWorld, method: str) -> None:
    with (
        world.channel(world.operator.credentials) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", sorted(set(METHODS) - BOOTSTRAP_METHODS))
def test_the_bootstrap_port_serves_nothing_else(world: ServedWorld, method: str) -> None:
    with (
        open_bootstrap_channel(world.bootstrap, world.ca.bundle, expect=COORDINATOR) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_certificate_does_not_get_through_the_handshake(world: ServedWorld) -> None:
    with (
        open_bootstrap_channel(world.address, world.ca.bundle, expect=COORDINATOR) as channel,
        pytest.raises(CoordinatorUnavailable),
    ):
        call(channel, methods.GET_BUNDLE)


def test_a_certificate_of_another_domain_does_not_get_through_the_handshake(world: ServedWorld) -> None:
    other = Authorities.make(TrustDomain("elsewhere.example"))
    stranger = other.credentials(SpiffeId.of("elsewhere.example", Role.OPERATOR, "root"))
    mixed = Credentials(stranger.chain_pem, stranger.key_pem, world.ca.bundle)
    with world.channel(mixed) as channel, pytest.raises(CoordinatorUnavailable):
        call(channel, methods.GET_BUNDLE)


def test_another_ca_of_the_same_domain_does_not_get_through_the_handshake(world: ServedWorld) -> None:
    twin = Authorities.make(DOMAIN).credentials(world.operator.spiffe_id)
    with (
        world.channel(Credentials(twin.chain_pem, twin.key_pem, world.ca.bundle)) as channel,
        pytest.raises(CoordinatorUnavailable),
    ):
        call(channel, methods.GET_BUNDLE)


def test_an_identity_that_was_never_enrolled_is_refused(world: ServedWorld) -> None:
    ghost = world.ca.credentials(SpiffeId.of(DOMAIN, Role.OPERATOR, "ghost"))
    with world.channel(ghost) as channel, pytest.raises(CertificateRefused) as caught:
        call(channel, methods.GET_BUNDLE)
    assert caught.value.reason == "unknown-identity"


@pytest.mark.slow
def test_a_certificate_that_runs_out_on_a_live_channel_is_refused(world: ServedWorld) -> None:
    who = world.join("gate-short").spiffe_id
    # The handshake takes place while it is valid; afterwards the same connection is refused.
    short = world.ca.credentials(who, lifetime=timedelta(seconds=5))
    with world.authority.ledger.writing() as work:
        work.add_certificate(record_of(x509.load_pem_x509_certificate(short.chain_pem), who))
    end = world.clock.now() + timedelta(seconds=6)
    with world.channel(short) as channel:
        call(channel, methods.GET_BUNDLE)
        time.sleep((end - world.clock.now()).total_seconds())
        with pytest.raises(CertificateRefused) as caught:
            call(channel, methods.GET_BUNDLE)
    assert caught.value.reason == "certificate-expired"


def test_a_revoked_certificate_is_refused_on_a_live_channel(world: ServedWorld) -> None:
    site = world.join("gate-revoked")
    with world.channel(site.credentials) as channel:
        call(channel, methods.GET_BUNDLE)
        world.revoke(site)
        with pytest.raises(Revoked):
            call(channel, methods.GET_BUNDLE)


def test_a_held_identity_is_refused_until_it_is_released(world: ServedWorld) -> None:
    from fltrust.revocation.events import RevocationReason

    site = world.join("gate-held")
    site.client.get_bundle()
    world.operator.client.hold(site.target, reason=RevocationReason.UNSPECIFIED)
    with pytest.raises(Revoked) as caught:
        site.client.get_bundle()
    assert caught.value.reason == "held"
    world.operator.client.release(site.target)
    site.client.get_bundle()


def test_a_resumed_tls_session_does_not_outlive_a_revocation(world: ServedWorld) -> None:
    site = world.join("gate-resumed")
    context = raw_http2.client_context(site.credentials, raw_http2.roots_of(site.credentials))
    name = COORDINATOR.dns_name
    with raw_http2.connect(world.address, context, name=name) as first:
        answer = raw_http2.call(first, methods.GET_BUNDLE)
        assert DOMAIN.encode() in answer.data
        session = first.session
    world.revoke(site)
    with raw_http2.connect(world.address, context, name=name, session=session) as again:
        answer = raw_http2.call(again, methods.GET_BUNDLE)
        # Where the server gave a ticket the session is resumed, and refused all the same.
        assert again.session_reused is (session is not None and session.has_ticket)
    assert answer.says("is revoked")
    assert not answer.data


@pytest.mark.parametrize("port", ["bootstrap", "mtls"])
def test_tls_1_2_is_refused(world: ServedWorld, port: str) -> None:
    roots = raw_http2.roots_of(world.operator.credentials)
    shown = world.operator.credentials if port == "mtls" else None
    address = world.address if port == "mtls" else world.bootstrap
    context = raw_http2.client_context(shown, roots, version=ssl.TLSVersion.TLSv1_2)
    with raw_http2.connect(address, context, name=COORDINATOR.dns_name) as sock:
        assert sock.version() == "TLSv1.2"
        answer = raw_http2.call(sock, methods.GET_BUNDLE)
    assert answer.says("expected TLSv1.3, got TLSv1.2")
    assert not answer.data


def test_a_server_that_is_not_the_coordinator_is_not_spoken_to(world: ServedWorld) -> None:
    with (
        open_channel(
            world.address,
            world.operator.credentials,
            expect=SpiffeId(DOMAIN, Role.AGGREGATOR, Name("main")),
        ) as channel,
        pytest.raises(CoordinatorUnavailable),
    ):
        call(channel, methods.GET_BUNDLE)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {methods.GET_BUNDLE, methods.LIST_TOKENS}))
def test_a_malformed_message_is_named_as_such(
    world: ServedWorld, people: dict[Role, Person], method: str
) -> None:
    role = min(METHODS[method])
    with world.channel(people[role].credentials) as channel, pytest.raises(Malformed, match="protobuf"):
        call(channel, method, b"\xff\xff\xff\xff")


def test_words_and_kinds_that_are_not_known_are_refused(world: ServedWorld, tmp_path: Path) -> None:
    from fltrust.wire.pb import enrollment_pb2, rounds_pb2, trust_pb2

    name = trust_pb2.RevocationTarget(name="participant/a")
    unknown = {
        methods.CREATE_TOKEN: enrollment_pb2.CreateTokenRequest(role="emperor", name="a", ttl_seconds=60),
        methods.REVOKE: trust_pb2.RevokeRequest(target=name, reason="a-whim"),
        methods.HOLD: trust_pb2.HoldRequest(target=trust_pb2.RevocationTarget(), reason="unspecified"),
    }
    with world.channel(world.operator.credentials) as channel:
        for method, message in unknown.items():
            with pytest.raises(Malformed) as caught:
                call(channel, method, message.SerializeToString())
            assert caught.value.reason == "unknown-type", method
    aggregator = world.join("gate-words", Role.AGGREGATOR)
    key = rounds_pb2.RoundKey(run_id=1, step=1, round=1, phase="dance")
    with world.channel(aggregator.credentials) as channel, pytest.raises(Malformed) as caught:
        call(channel, methods.OPEN_ROUND, rounds_pb2.OpenRoundRequest(key=key).SerializeToString())
    assert caught.value.reason == "unknown-type"
    with (
        open_bootstrap_channel(world.bootstrap, world.ca.bundle, expect=COORDINATOR) as channel,
        pytest.raises(Malformed) as caught,
    ):
        call(channel, methods.ENROLL, enrollment_pb2.EnrollRequest(csr=b"x").SerializeToString())
    assert caught.value.reason == "unknown-type"


def test_every_method_of_the_table_is_served(world: ServedWorld) -> None:
    with world.channel(world.operator.credentials) as channel:
        for method in METHODS:
            assert "unimplemented" not in outcome(channel, method), method


def outcome(channel: grpc.Channel, method: str) -> str:
    try:
        call(channel, method)
    except FltrustError as error:
        return error.message
    return "ok"


def test_a_certificate_that_is_not_on_record_is_refused_though_the_ca_signed_it(world: ServedWorld) -> None:
    who = world.join("gate-minted").spiffe_id
    with world.channel(world.ca.credentials(who)) as channel:
        for method in (methods.GET_BUNDLE, methods.RENEW):
            with pytest.raises(CertificateRefused) as caught:
                call(channel, method)
            assert caught.value.reason == "unknown-certificate"


def test_under_a_revoked_ca_nothing_goes_but_renewal_with_the_certificate_on_record() -> None:
    world = ServedWorld("sqlite://")
    site = world.join("gate-orphan")
    minted = world.ca.credentials(site.spiffe_id)
    issuer = ca_key_id(world.ca.issuer.certificate.public_key())
    with world.authority.ledger.writing() as work:
        work.emit(
            EventKind.ISSUER_REVOKED,
            actor=world.operator.spiffe_id,
            domain=world.ca.bundle.domain,
            issuer=issuer,
        )
    try:
        with pytest.raises(CertificateRefused) as caught:
            site.client.get_bundle()
        assert caught.value.reason == "issuer-revoked"
        with world.channel(site.credentials) as channel, pytest.raises(Unavailable) as busy:
            call(channel, methods.RENEW, RenewRequest(csr=create_csr(generate())).SerializeToString())
        assert busy.value.reason == "issuer-ended"  # let in, but nobody is there to issue yet
        world.in_force.replace(issuer=world.ca.next_issuer())
        assert site.client.renew(create_csr(generate())).spiffe_id == site.spiffe_id
        with world.channel(minted) as channel, pytest.raises(CertificateRefused) as caught:
            call(channel, methods.RENEW, RenewRequest(csr=create_csr(generate())).SerializeToString())
        assert caught.value.reason == "unknown-certificate"
    finally:
        world.close()
