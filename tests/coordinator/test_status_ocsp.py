"""OCSP answers: good for what was issued, revoked for what was revoked, unknown for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from authority_world import Authorities, World
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from status_world import DAY, HOUR, MINUTE, asked, leaf_serial, question

from fltrust.errors import EvidenceInvalid, Revoked
from fltrust.identity import Role
from fltrust.pki.crl import CrlReason
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.ocsp import MAX_REQUEST
from fltrust.pki.stapling import check_staple, staple_request
from fltrust.revocation.events import EventKind, RevocationReason

GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
STATUS = ocsp.OCSPResponseStatus


@pytest.fixture
def world(tmp_path: Path, ca: Authorities) -> Iterator[World]:
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 'state.db'}", ca=ca)
    yield world
    world.close()


def refused(world: World, request: bytes) -> ocsp.OCSPResponseStatus:
    return ocsp.load_der_ocsp_response(world.authority.status.answer(request).der).response_status


def test_what_was_issued_is_good_and_what_never_was_is_unknown(world: World) -> None:
    member = world.join("site-a")
    assert asked(world, leaf_serial(member)).certificate_status is GOOD
    assert asked(world, 4711).certificate_status is UNKNOWN
    assert asked(world, 2**400).certificate_status is UNKNOWN


def test_a_revocation_that_is_acknowledged_is_in_the_next_answer(world: World) -> None:
    member = world.join("site-a")
    assert asked(world, leaf_serial(member)).certificate_status is GOOD
    event = world.revoke(member)
    answer = asked(world, leaf_serial(member))
    assert answer.certificate_status is REVOKED
    assert answer.revocation_reason is x509.ReasonFlags.key_compromise
    assert answer.revocation_time_utc == event.at.replace(microsecond=0)


def test_a_hold_is_revoked_until_it_is_released(world: World) -> None:
    member = world.join("site-a")
    world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    held = asked(world, leaf_serial(member))
    assert (held.certificate_status, held.revocation_reason) == (
        REVOKED,
        x509.ReasonFlags.certificate_hold,
    )
    world.op.release(member.target)
    assert asked(world, leaf_serial(member)).certificate_status is GOOD


def test_a_certificate_that_ended_revoked_stays_revoked(world: World) -> None:
    member = world.join("site-a")
    world.revoke(member)
    world.clock.advance(90 * DAY)
    assert asked(world, leaf_serial(member)).certificate_status is REVOKED


def test_no_reason_is_said_by_leaving_it_out_of_an_answer(world: World) -> None:
    member = world.join("site-a")
    world.op.revoke(member.target, reason=RevocationReason.UNSPECIFIED)
    answer = asked(world, leaf_serial(member))
    assert (answer.certificate_status, answer.revocation_reason) == (REVOKED, None)


def test_the_authority_s_own_certificates_are_known(world: World) -> None:
    own = x509.load_der_x509_certificate(world.identity.chain_der[0])
    for certificate in (own, world.notary.timestamps.certificate):
        assert asked(world, certificate.serial_number).certificate_status is GOOD
    responder = asked(world, 4711).certificates[0]
    assert asked(world, responder.serial_number).certificate_status is GOOD


def test_the_answer_is_signed_by_a_responder_that_the_ca_delegated(world: World) -> None:
    answer = asked(world, leaf_serial(world.join("site-a")))
    (responder,) = answer.certificates
    responder.verify_directly_issued_by(world.in_force.issuer.certificate)
    usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert answer.responder_key_hash is not None
    assert world.clock.now() - answer.this_update_utc == MINUTE
    assert answer.next_update_utc is not None
    assert answer.next_update_utc - world.clock.now() == HOUR


def test_a_responder_is_on_record_before_it_answers_and_replaced_in_time(world: World) -> None:
    first = asked(world, 4711).certificates[0]
    with world.store.reading() as tx:
        found = [record.der for record in tx.certificates.all()]
    assert first.public_bytes(Encoding.DER) in found
    world.clock.advance((first.not_valid_after_utc - first.not_valid_before_utc) / 2)
    second = asked(world, 4711).certificates[0]
    assert second.public_key() != first.public_key()


def test_an_answer_without_a_nonce_is_signed_once_and_again_after_half_of_its_life(world: World) -> None:
    serial = leaf_serial(world.join("site-a"))
    first = asked(world, serial).public_bytes(Encoding.DER)
    world.revoke(world.join("site-b"))  # another's revocation changes nothing here
    world.clock.advance(29 * MINUTE)
    assert asked(world, serial).public_bytes(Encoding.DER) == first
    world.clock.advance(2 * MINUTE)
    assert asked(world, serial).public_bytes(Encoding.DER) != first
    world.clock.advance(-DAY)
    back = asked(world, serial)
    assert back.this_update_utc <= world.clock.now()


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_a_nonce_of_1_to_128_octets_comes_back(world: World, length: int) -> None:
    request = question(4711, world.in_force.issuer.certificate, nonce=b"n" * length)
    answer = ocsp.load_der_ocsp_response(world.authority.status.answer(request).der)
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * length


def test_answers_with_nonces_are_signed_for_each_asker(world: World) -> None:
    by = world.in_force.issuer.certificate
    answers = {world.authority.status.answer(question(1, by, nonce=b"same")).der for _ in range(2)}
    assert len(answers) == 2
    answer = world.authority.status.answer(question(1, by, nonce=b"same"))
    assert answer.next_update is None, "nobody else may be given it"


@pytest.mark.parametrize("length", [0, 129])
def test_an_empty_or_long_nonce_is_refused(world: World, length: int) -> None:
    request = question(4711, world.in_force.issuer.certificate, nonce=b"n" * length)
    assert refused(world, request) is STATUS.MALFORMED_REQUEST


def test_a_critical_extension_that_nobody_knows_is_refused(world: World) -> None:
    same = ocsp.load_der_ocsp_request(question(4711, world.in_force.issuer.certificate))
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.99"), b"\x05\x00")
    for critical, expected in ((True, STATUS.MALFORMED_REQUEST), (False, STATUS.SUCCESSFUL)):
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            same.issuer_name_hash, same.issuer_key_hash, 4711, SHA1()
        )
        request = builder.add_extension(strange, critical=critical).build()
        assert refused(world, request.public_bytes(Encoding.DER)) is expected


def test_whatever_is_no_request_is_malformed(world: World) -> None:
    good = question(4711, world.in_force.issuer.certificate)
    for bad in (b"", b"\x30", good[:-1], good + b"\x00", b"\x30" * 99, good * (MAX_REQUEST // len(good) + 1)):
        assert refused(world, bad) is STATUS.MALFORMED_REQUEST


def test_no_request_asks_for_more_certificates_than_the_bound() -> None:
    from cryptography.hazmat import asn1

    from fltrust.errors import Malformed
    from fltrust.pki import rfc6960
    from fltrust.pki.ocsp import MAX_ASKED, read_request
    from fltrust.pki.rfc3161 import SHA256 as OID
    from fltrust.pki.rfc3161 import Algorithm

    def request(count: int) -> bytes:
        one = rfc6960.SingleRequest(
            cert_id=rfc6960.CertId(
                hash_algorithm=Algorithm(algorithm=OID, parameters=None),
                issuer_name_hash=b"n" * 32,
                issuer_key_hash=b"k" * 32,
                serial=5,
            ),
            extensions=None,
        )
        tbs = rfc6960.TbsRequest(version=None, requestor=None, requests=[one] * count, extensions=None)
        return asn1.encode_der(rfc6960.OcspRequest(tbs=tbs, signature=None))

    assert len(read_request(request(MAX_ASKED)).asked) == MAX_ASKED
    for count in (0, MAX_ASKED + 1):
        with pytest.raises(Malformed):
            read_request(request(count))


def test_a_ca_that_is_not_ours_gets_no_answer(world: World) -> None:
    stranger = Authorities.make().issuer.certificate
    assert refused(world, question(4711, stranger)) is STATUS.UNAUTHORIZED
    assert refused(world, question(4711, world.bundle.roots[0])) is STATUS.UNAUTHORIZED


def test_right_key_and_wrong_name_is_not_our_ca(world: World) -> None:
    by = world.in_force.issuer.certificate
    honest = ocsp.load_der_ocsp_request(question(7, by, algorithm=SHA256()))
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        b"\x00" * 32, honest.issuer_key_hash, 7, SHA256()
    )
    assert refused(world, builder.build().public_bytes(Encoding.DER)) is STATUS.UNAUTHORIZED


def test_a_revoked_ca_vouches_for_nothing_whether_it_was_issued_or_not(world: World) -> None:
    member, issuer = world.join("site-a"), world.in_force.issuer.certificate
    assert asked(world, leaf_serial(member)).certificate_status is GOOD
    key = ca_key_id(issuer.public_key())
    with world.authority.ledger.writing() as work:
        work.emit(EventKind.ISSUER_REVOKED, actor=None, domain=member.spiffe_id.domain, issuer=key)
    for serial in (leaf_serial(member), 4711):
        answer = asked(world, serial)
        assert answer.certificate_status is REVOKED
        assert answer.revocation_reason is x509.ReasonFlags.ca_compromise


def test_after_a_rollover_each_ca_has_a_responder_of_its_own(world: World) -> None:
    old, before = world.join("site-a"), world.in_force.issuer.certificate
    following = Authorities.make().issuer
    world.in_force.replace(issuer=following)
    answer = asked(world, leaf_serial(old), issuer=before)
    assert answer.certificate_status is GOOD
    answer.certificates[0].verify_directly_issued_by(before)
    other = asked(world, leaf_serial(old), issuer=following.certificate)
    assert other.certificate_status is UNKNOWN
    other.certificates[0].verify_directly_issued_by(following.certificate)


def test_random_serials_fill_no_memory(world: World) -> None:
    for serial in range(1, 50):
        asked(world, serial)
    (desk,) = world.authority.status._desks.values()
    assert len(desk._presigned) == 0


# What a server staples.


def staple_of(world: World, leaf: x509.Certificate, *, at: timedelta = timedelta(0)) -> object:
    issuer = world.in_force.issuer.certificate
    der = world.authority.status.answer(staple_request(leaf, issuer)).der
    return check_staple(der, leaf=leaf, issuer=issuer, at=world.clock.now() + at)


def test_a_good_and_fresh_answer_can_be_stapled(world: World) -> None:
    leaf = x509.load_der_x509_certificate(world.join("main", Role.AGGREGATOR).chain[0])
    assert staple_of(world, leaf)
    with pytest.raises(EvidenceInvalid, match="fresh"):
        staple_of(world, leaf, at=2 * HOUR)


def test_a_revoked_certificate_has_no_staple(world: World) -> None:
    member = world.join("main", Role.AGGREGATOR)
    world.revoke(member)
    with pytest.raises(Revoked):
        staple_of(world, x509.load_der_x509_certificate(member.chain[0]))


def test_an_answer_that_was_changed_or_is_about_another_is_not_stapled(world: World) -> None:
    leaf = x509.load_der_x509_certificate(world.join("main", Role.AGGREGATOR).chain[0])
    other = x509.load_der_x509_certificate(world.join("site-b").chain[0])
    issuer = world.in_force.issuer.certificate
    der = world.authority.status.answer(staple_request(leaf, issuer)).der
    position = der.index(leaf.serial_number.to_bytes(20, "big").lstrip(b"\x00"))
    changed = bytearray(der)
    changed[position] ^= 1
    for bad, about in ((bytes(changed), leaf), (der, other)):
        with pytest.raises(EvidenceInvalid):
            check_staple(bad, leaf=about, issuer=issuer, at=world.clock.now())


def test_a_stranger_s_answer_is_not_stapled(world: World) -> None:
    """Signed by a participant of the same CA: its certificate does not say OCSPSigning."""
    member = world.join("site-a")
    leaf = x509.load_der_x509_certificate(world.join("main", Role.AGGREGATOR).chain[0])
    own, issuer = x509.load_der_x509_certificate(member.chain[0]), world.in_force.issuer.certificate
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf,
            issuer=issuer,
            algorithm=SHA1(),
            cert_status=GOOD,
            this_update=world.clock.now(),
            next_update=world.clock.now() + HOUR,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, own)
        .certificates([own])
    )
    from fltrust.pki.signing import SignerKey

    forged = builder.sign(SignerKey(member.signer), SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(EvidenceInvalid):
        check_staple(forged, leaf=leaf, issuer=issuer, at=world.clock.now())


def test_every_reason_has_a_code() -> None:
    assert {int(reason) for reason in CrlReason} == {0, 1, 2, 3, 4, 5, 6, 8, 9, 10}
