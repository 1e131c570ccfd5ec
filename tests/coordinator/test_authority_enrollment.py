from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import DOMAIN, World, request
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator import enroller
from fltrust.coordinator.enroller import MAX_LIVE_CERTIFICATES
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, JoinTokenEvidence, TokenStatus
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    LimitExceeded,
    Malformed,
    NotFound,
    PermissionDenied,
    Refused,
    Revoked,
    SignatureInvalid,
    TokenRefused,
)
from fltrust.identity import Epoch, Name, Role, SpiffeId
from fltrust.keys import generate, spki_der
from fltrust.pki import create_csr
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.storage import CommitStep
from fltrust.wire.trust import MAX_NAMED, event_from_pb, event_to_pb


def test_a_token_enrolls_the_name_of_its_record_and_not_that_of_the_request(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "root")]))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/operator/root"),
                    x509.DNSName("root.example"),
                ]
            ),
            critical=True,
        )
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    token, node = world.token("site-a"), generate()
    evidence = JoinTokenEvidence(token.secret)
    proof = node.sign(node_key_challenge(csr, evidence))
    issued = world.authority.enroll(EnrollRequest(evidence, csr, spki_der(node.public_key), proof))

    leaf = x509.load_der_x509_certificate(issued.chain_der[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/participant/site-a")]
    assert list(leaf.subject) == []
    assert issued.spiffe_id == SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")


def test_an_enrollment_is_an_epoch_with_the_node_key_and_the_operator_who_granted_it(world: World) -> None:
    member = world.join("site-a")
    (event,) = world.authority.events(Epoch(1), 10, reader=None)
    assert (event.epoch, event.kind, event.subject) == (2, EventKind.ENROLLED, member.spiffe_id)
    assert member.node is not None
    assert event.node_key == spki_der(member.node.public_key)
    assert event.actor == world.operator.spiffe_id
    record = world.op.get_enrollment(member.spiffe_id)
    assert (record.enrolled_by, record.evidence) == (world.operator.spiffe_id, "join-token")
    assert record.certificate_serial == member.certificate.serial.hex
    assert record.certificate_not_after == member.certificate.not_after
    assert (record.standing, record.since_epoch) == ("active", 2)


def test_a_reused_token_is_refused_and_counted(world: World) -> None:
    token = world.token("site-a")
    world.join("site-a", token=token)
    with pytest.raises(TokenRefused, match="is used") as refusal:
        world.join("site-a", token=token)
    assert refusal.value.reason == "token-used"
    assert world.authority.counters.get("refused.token-used") == 1


def test_expired_cancelled_and_unknown_tokens_are_refused_with_their_reason(world: World) -> None:
    expired, cancelled = world.token("site-a"), world.token("site-b")
    by_name = {token.name: token.token_id for token in world.op.list_tokens()}
    world.op.cancel_token(by_name[Name("site-b")])
    world.clock.advance(timedelta(minutes=15))
    for token, reason in (
        (expired, "token-expired"),
        (cancelled, "token-cancelled"),
        (replace(expired, secret=b"\x00" * 32), "token-unknown"),
    ):
        with pytest.raises(TokenRefused) as refusal:
            world.authority.enroll(request(token, generate(), generate()))
        assert refusal.value.reason == reason


def test_what_is_refused_leaves_the_token_unspent(world: World) -> None:
    taken = world.join("site-a")
    token = world.token("site-b")
    with pytest.raises(Conflict, match="node key"):
        world.join("site-b", token=token, node=taken.node)
    assert world.join("site-b", token=token).name == "site-b"


def test_one_token_raced_by_sixteen_threads_enrolls_exactly_one(world: World) -> None:
    token = world.token("site-a", replace=True)
    start, outcomes = threading.Barrier(16), []

    def enroll() -> None:
        ready = request(token, generate(), generate())
        start.wait()
        try:
            outcomes.append(str(world.authority.enroll(ready).spiffe_id))
        except FltrustError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=enroll) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == sorted([f"spiffe://{DOMAIN}/participant/site-a", *["token-used"] * 15])
    assert world.authority.head == 2


def test_a_node_key_needs_the_proof_of_its_holder_over_this_request(world: World) -> None:
    good = request(world.token("site-a"), generate(), generate())
    other = request(world.token("site-b"), generate(), generate())
    for bad, error in (
        (replace(good, node_key_proof=other.node_key_proof), SignatureInvalid),
        (replace(good, node_key=other.node_key), SignatureInvalid),
        (replace(good, csr_der=create_csr(generate())), SignatureInvalid),
        (replace(good, node_key_proof=None), Malformed),
        (replace(good, node_key=None), Malformed),
        (replace(good, node_key=None, node_key_proof=None), Malformed),
        (replace(good, node_key=b"\x30\x00"), Malformed),
        (replace(good, csr_der=b"no request"), Malformed),
    ):
        with pytest.raises(error):
            world.authority.enroll(bad)
    assert world.authority.enroll(good).spiffe_id.name == "site-a"


def test_an_aggregator_brings_no_node_key(world: World) -> None:
    with pytest.raises(Malformed, match="node key"):
        world.authority.enroll(request(world.token("main", Role.AGGREGATOR), generate(), generate()))


def test_an_enrolled_name_needs_a_token_that_replaces_and_loses_its_old_certificates(world: World) -> None:
    old = world.join("site-a")
    with pytest.raises(Conflict, match="enrolled already"):
        world.join("site-a")
    new = world.join("site-a", token=world.token("site-a", replace=True))
    world.authority.judge(new.certificate)
    with pytest.raises(Revoked):
        world.authority.judge(old.certificate)


def test_a_revoked_name_comes_back_only_by_an_operator_and_with_a_new_node_key(world: World) -> None:
    old = world.join("site-a")
    world.revoke(old)
    with pytest.raises(Revoked, match="was revoked"):
        world.join("site-a")
    token = world.token("site-a", replace=True)
    with pytest.raises(Conflict, match="node key"):
        world.join("site-a", token=token, node=old.node)
    new = world.join("site-a", token=token)
    world.authority.judge(new.certificate)
    with pytest.raises(Revoked):
        world.authority.judge(old.certificate)


def test_a_token_made_before_the_revocation_does_not_undo_it(world: World) -> None:
    member = world.join("site-a")
    waiting = world.token("site-a", replace=True)
    world.revoke(member)
    with pytest.raises(TokenRefused, match="cancelled"):
        world.join("site-a", token=waiting)


def test_a_held_name_is_not_enrolled_anew_even_to_replace(world: World) -> None:
    member = world.join("site-a")
    world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    with pytest.raises(Revoked, match="hold") as refusal:
        world.join("site-a", token=world.token("site-a", replace=True))
    assert refusal.value.reason == "held"


def test_renewal_gives_a_new_certificate_and_leaves_the_old_one_good(world: World) -> None:
    old = world.join("site-a")
    world.clock.advance(timedelta(minutes=40))
    new = world.renew(old)
    assert new.certificate.not_after == old.certificate.not_after + timedelta(minutes=40)
    for certificate in (old.certificate, new.certificate):
        world.authority.judge(certificate)
    assert world.op.get_enrollment(old.spiffe_id).certificate_serial == new.certificate.serial.hex
    assert world.authority.head == 2  # a renewal changes nobody's standing


def test_renewal_keeps_the_key_that_the_caller_calls_with_or_takes_a_new_one(world: World) -> None:
    member = world.join("site-a")
    kept = world.renew(member, member.signer).certificate
    assert (kept.key_id, kept.spiffe_id) == (member.certificate.key_id, member.spiffe_id)
    assert kept.serial != member.certificate.serial


def test_renewal_with_a_key_of_somebody_else_or_of_an_earlier_certificate_is_refused(world: World) -> None:
    member, other = world.join("site-a"), world.join("site-b")
    renewed = world.renew(member)
    for caller, used in ((member, other.signer), (renewed, member.signer)):
        with pytest.raises(Conflict, match="new key") as refusal:
            world.session(caller).renew(create_csr(used))
        assert refusal.value.reason == "key-reused"


def test_revoking_a_key_revokes_every_certificate_of_it(world: World) -> None:
    member = world.join("site-a")
    kept = world.renew(member, member.signer).certificate
    events = world.op.revoke(
        RevocationTarget(key=member.certificate.key_id), reason=RevocationReason.KEY_COMPROMISE
    )
    assert set(events[0].serials) == {member.certificate.serial, kept.serial}
    for certificate in (member.certificate, kept):
        with pytest.raises(Revoked):
            world.authority.judge(certificate)


def test_renewal_is_refused_after_revocation_and_after_expiry(world: World) -> None:
    revoked, expired = world.join("site-a"), world.join("site-b")
    world.revoke(revoked)
    with pytest.raises(Revoked):
        world.renew(revoked)
    world.clock.advance(timedelta(hours=1, seconds=1))
    with pytest.raises(CertificateRefused, match="expired"):
        world.renew(expired)


def test_no_identity_has_more_certificates_than_the_event_that_revokes_it_can_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_LIVE_CERTIFICATES < MAX_NAMED
    monkeypatch.setattr(enroller, "MAX_LIVE_CERTIFICATES", 3)
    member = world.join("site-a")
    latest = world.renew(world.renew(member))
    with pytest.raises(LimitExceeded) as refusal:
        world.renew(latest)
    assert refusal.value.reason == "too-many-certificates"
    event = world.revoke(member)
    assert len(event.serials) == 3
    assert event_from_pb(event_to_pb(event)) == event


def test_room_for_a_certificate_comes_back_when_one_expires(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enroller, "MAX_LIVE_CERTIFICATES", 2)
    old = world.join("site-a")
    world.clock.advance(timedelta(minutes=40))
    new = world.renew(old)
    with pytest.raises(LimitExceeded):
        world.renew(new)
    world.clock.advance(timedelta(minutes=21))
    world.renew(new)


def test_only_an_operator_makes_lists_and_cancels_tokens(world: World) -> None:
    for member in (world.join("site-a"), world.join("main", Role.AGGREGATOR)):
        session = world.session(member)
        for call in (
            lambda s=session: s.create_token(Role.PARTICIPANT, Name("x"), ttl=timedelta(minutes=1)),
            session.list_tokens,
            lambda s=session: s.cancel_token("0" * 16),
        ):
            with pytest.raises(PermissionDenied):
                call()


def test_a_token_is_listed_without_its_secret_and_cancelled_once(world: World) -> None:
    token = world.token("site-a")
    (record,) = world.op.list_tokens()
    assert (record.name, record.role, record.status) == ("site-a", Role.PARTICIPANT, TokenStatus.PENDING)
    assert record.created_by == world.operator.spiffe_id
    assert token.secret.hex() not in repr(record)
    assert "secret=…" in repr(token)
    assert world.op.cancel_token(record.token_id).status is TokenStatus.CANCELLED
    assert world.op.cancel_token(record.token_id).status is TokenStatus.CANCELLED
    with pytest.raises(NotFound):
        world.op.cancel_token("0" * 16)


def test_a_token_for_the_coordinator_or_too_long_a_time_is_refused(world: World) -> None:
    with pytest.raises(Malformed):
        world.op.create_token(Role.COORDINATOR, Name("x"), ttl=timedelta(minutes=1))
    for ttl in (timedelta(0), timedelta(days=8)):
        with pytest.raises(Malformed, match="life"):
            world.op.create_token(Role.PARTICIPANT, Name("x"), ttl=ttl)


def test_an_enrollment_that_was_persisted_and_then_failed_took_place(world: World) -> None:
    token, signer, node = world.token("site-a"), generate(), generate()
    world.store.on_commit = _fail_at(CommitStep.AFTER)
    with pytest.raises(OSError, match="crash"):
        world.authority.enroll(request(token, signer, node))
    world.store.on_commit = None
    assert world.authority.head == 2
    with pytest.raises(TokenRefused):
        world.authority.enroll(request(token, generate(), generate()))


def test_an_enrollment_that_failed_before_the_commit_left_nothing(world: World) -> None:
    token, signer, node = world.token("site-a"), generate(), generate()
    world.store.on_commit = _fail_at(CommitStep.BEFORE)
    with pytest.raises(OSError, match="crash"):
        world.authority.enroll(request(token, signer, node))
    world.store.on_commit = None
    assert world.authority.head == 1
    assert world.authority.enroll(request(token, signer, node)).spiffe_id.name == "site-a"


def test_a_first_operator_is_made_once_unless_replaced(world: World) -> None:
    with pytest.raises(Conflict):
        world.authority.bootstrap_operator(Name("root"))
    _, issued = world.authority.bootstrap_operator(Name("root"), replace=True)
    assert issued.spiffe_id == world.operator.spiffe_id
    with pytest.raises(Refused):
        world.op.list_tokens()


def test_the_list_says_of_everybody_what_the_single_record_says(world: World) -> None:
    a, b = world.join("site-a"), world.join("site-b")
    world.clock.advance(timedelta(minutes=30))
    world.renew(a)
    world.revoke(b)
    listed = world.op.list_enrollments()
    assert [e.spiffe_id for e in listed] == [world.operator.spiffe_id, a.spiffe_id, b.spiffe_id]
    assert [e.standing for e in listed] == ["active", "active", "revoked"]
    assert listed == tuple(world.op.get_enrollment(e.spiffe_id) for e in listed)
    with pytest.raises(NotFound):
        world.op.get_enrollment(SpiffeId.of(DOMAIN, Role.PARTICIPANT, "nobody"))


def _fail_at(wanted: CommitStep):
    def fail(step: CommitStep) -> None:
        if step is wanted:
            raise OSError("crash")

    return fail
