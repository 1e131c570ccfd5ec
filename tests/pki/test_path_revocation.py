"""What CRLs and OCSP answers say, which of them are believed, and what follows in each mode."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPCertStatus, OCSPRequestBuilder
from cryptography.x509.oid import ExtendedKeyUsageOID
from path_world import DAY, MADE, NOW, Domain, make_domain

from fltrust.errors import CertificateRefused, Malformed, Oversized, Refusal, Revoked
from fltrust.keys import FileSigner, generate
from fltrust.pki.ca_certificates import authority_key
from fltrust.pki.crl import CrlReason
from fltrust.pki.issuing import Issuer
from fltrust.pki.ocsp import GOOD, Responder, read_request
from fltrust.pki.path import Evidence, PathLimits, RevocationMode, StatusKind
from fltrust.pki.pointers import PublicUrl, key_identifier_of
from fltrust.pki.responder import ResponderDraft, issue_responder
from fltrust.pki.signing import SignerKey

HARD, SOFT, BEST = RevocationMode
REVOKED = OCSPCertStatus.REVOKED


@pytest.fixture(scope="module")
def domain() -> Domain:
    return make_domain()


def refused(domain: Domain, leaf: x509.Certificate, **asked: Any) -> str:
    with pytest.raises((CertificateRefused, Revoked)) as found:
        domain.validate(leaf, **asked)
    return found.value.reason


def test_a_fresh_crl_without_the_certificate_proves_it_good_until_its_next_update(domain: Domain) -> None:
    found = domain.validate(domain.issue(), crls=[domain.crl(leaves=True)])
    assert [(s.kind, s.source) for s in found.statuses] == [(StatusKind.GOOD, "crl")] * 2
    assert found.statuses[0].fresh_until == NOW + 7 * DAY
    assert found.second_opinion
    assert found.warnings == ()


@pytest.mark.parametrize("mode", list(RevocationMode))
def test_what_a_crl_lists_is_refused_in_every_mode_fresh_or_not(domain: Domain, mode: RevocationMode) -> None:
    leaf = domain.issue()
    for crl in (
        domain.crl(leaf, leaves=True),
        domain.crl(leaf, leaves=True, this_update=NOW - 9 * DAY, next_update=NOW - 8 * DAY),
    ):
        assert refused(domain, leaf, crls=[crl], revocation=mode) == Refusal.REVOKED
    held = domain.crl(leaf, leaves=True, reason=CrlReason.CERTIFICATE_HOLD)
    assert refused(domain, leaf, crls=[held], revocation=mode) == Refusal.HELD


@pytest.mark.parametrize(
    ("over_since", "mode", "outcome"),
    [
        (timedelta(seconds=1), HARD, "revocation-stale"),
        (timedelta(seconds=1), SOFT, StatusKind.STALE),
        (timedelta(hours=2), SOFT, "revocation-stale"),
        (timedelta(hours=2), BEST, StatusKind.STALE),
        (timedelta(0), HARD, StatusKind.GOOD),
        (None, HARD, "revocation-unknown"),
        (None, SOFT, "revocation-unknown"),
        (None, BEST, StatusKind.UNKNOWN),
    ],
)
def test_the_mode_decides_about_evidence_that_is_over_or_not_there(
    domain: Domain, over_since: timedelta | None, mode: RevocationMode, outcome: object
) -> None:
    leaf, crls = domain.issue(), []
    if over_since is not None:
        crls = [domain.crl(leaves=True, next_update=NOW - over_since)]
    asked: dict[str, Any] = {"crls": crls, "revocation": mode, "grace": timedelta(hours=1)}
    if isinstance(outcome, StatusKind):
        found = domain.validate(leaf, **asked)
        assert found.statuses[0].kind is outcome
        assert len(found.warnings) == (outcome is not StatusKind.GOOD)
    else:
        assert refused(domain, leaf, **asked) == outcome


def test_of_two_crls_the_newer_counts_whichever_comes_first(domain: Domain) -> None:
    leaf = domain.issue()
    held = domain.crl(leaf, leaves=True, reason=CrlReason.CERTIFICATE_HOLD, number=1)
    released = domain.crl(leaves=True, number=2)
    for crls in ([held, released], [released, held]):
        domain.validate(leaf, crls=crls)
    assert refused(domain, leaf, crls=[domain.crl(leaf, leaves=True, number=3), released]) == Refusal.REVOKED


def test_a_delta_adds_to_its_base_takes_back_a_hold_and_makes_an_older_base_fresh(domain: Domain) -> None:
    leaf = domain.issue()
    base = domain.crl(leaves=True, number=5)
    old = domain.crl(leaves=True, number=5, next_update=NOW - timedelta(hours=1))
    held = domain.crl(leaf, leaves=True, number=5, reason=CrlReason.CERTIFICATE_HOLD)
    delta = domain.crl(leaves=True, number=7, base=5)
    found = domain.validate(leaf, crls=[old, delta])
    assert (found.statuses[0].kind, found.statuses[0].source) == (StatusKind.GOOD, "delta-crl")
    revoking = domain.crl(leaf, leaves=True, number=7, base=5)
    assert refused(domain, leaf, crls=[base, revoking]) == Refusal.REVOKED
    releasing = domain.crl(leaf, leaves=True, number=8, base=5, reason=CrlReason.REMOVE_FROM_CRL)
    domain.validate(leaf, crls=[held, releasing])
    assert refused(domain, leaf, crls=[held, delta]) == Refusal.HELD


def test_a_delta_that_continues_nothing_proves_nothing_and_still_revokes(domain: Domain) -> None:
    leaf = domain.issue()
    gap = domain.crl(leaves=True, number=9, base=8)
    assert refused(domain, leaf, crls=[gap]) == "revocation-unknown"
    revoking = domain.crl(leaf, leaves=True, number=9, base=8)
    assert refused(domain, leaf, crls=[domain.crl(leaves=True, number=5), revoking]) == Refusal.REVOKED


def test_evidence_from_after_the_time_asked_about_can_only_revoke(domain: Domain) -> None:
    leaf = domain.issue()
    later = {"leaves": True, "this_update": NOW + DAY, "next_update": NOW + 2 * DAY, "number": 20}
    assert refused(domain, leaf, crls=[domain.crl(**later)]) == "revocation-unknown"
    fresh = domain.crl(leaves=True)
    domain.validate(leaf, crls=[fresh, domain.crl(leaf, revoked_at=NOW + timedelta(hours=1), **later)])
    assert refused(domain, leaf, crls=[fresh, domain.crl(leaf, revoked_at=NOW, **later)]) == Refusal.REVOKED
    since = domain.crl(leaf, revoked_at=NOW + timedelta(hours=1), invalid_since=MADE, **later)
    assert refused(domain, leaf, crls=[fresh, since]) == Refusal.REVOKED


def test_a_crl_counts_only_for_the_kind_of_certificate_and_the_address_that_it_is_for(domain: Domain) -> None:
    leaf = domain.issue()
    elsewhere = domain.crl(leaves=True, point="http://crl.example/other.crl")
    assert refused(domain, leaf, crls=[elsewhere]) == "revocation-unknown"


def test_what_our_coordinator_publishes_proves_good_what_it_issues(domain: Domain) -> None:
    url = PublicUrl("http://trust.hospitals.example")
    issuer = Issuer(certificate=domain.issuing, signer=domain.issuing_signer, public_url=url)
    leaf = replace(domain, issuer=issuer).issue()
    assert leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    point = url.crl(key_identifier_of(domain.issuing))
    whole = domain.crl(leaves=True, point=point, number=3)
    assert domain.validate(leaf, crls=[whole]).statuses[0].source == "crl"
    delta = domain.crl(leaf, leaves=True, point=point, number=4, base=3)
    assert refused(domain, leaf, crls=[whole, delta]) == Refusal.REVOKED


def test_a_crl_of_another_key_or_with_a_flipped_bit_is_not_believed(domain: Domain) -> None:
    leaf, other = domain.issue(), make_domain()
    assert refused(domain, leaf, crls=[other.crl(leaves=True)]) == "revocation-unknown"
    forged = bytearray(domain.crl(leaves=True))
    forged[-1] ^= 1
    assert refused(domain, leaf, crls=[bytes(forged)]) == "revocation-unknown"
    impostor = forged_crl(domain, generate())
    assert refused(domain, leaf, crls=[impostor], extra=[other.issuing]) == "revocation-unknown"


def forged_crl(domain: Domain, signer: FileSigner) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(domain.issuing.subject)
    builder = builder.last_update(MADE).next_update(NOW + DAY)
    return builder.sign(SignerKey(signer), SHA256()).public_bytes(Encoding.DER)


def test_a_leaf_of_the_cas_name_signs_no_crl_for_it(domain: Domain) -> None:
    signer, leaf = generate(), domain.issue()
    namesake = (
        x509.CertificateBuilder()
        .subject_name(domain.issuing.subject)
        .issuer_name(domain.issuing.subject)
        .public_key(signer.public_key)
        .serial_number(5)
        .not_valid_before(MADE)
        .not_valid_after(NOW + DAY)
        .add_extension(authority_key(domain.issuing), critical=False)
        .sign(SignerKey(domain.issuing_signer), SHA256())
    )
    crl = forged_crl(domain, signer)
    assert refused(domain, leaf, crls=[crl], extra=[namesake], strict=False) == "revocation-unknown"


@pytest.mark.parametrize("algorithm", [SHA1(), SHA256()])
def test_an_answer_of_the_issuer_proves_good_or_revoked(domain: Domain, algorithm: Any) -> None:
    leaf = domain.issue()
    found = domain.validate(leaf, answers=[domain.answer(leaf, algorithm=algorithm)])
    assert (found.statuses[0].kind, found.statuses[0].source) == (StatusKind.GOOD, "ocsp")
    assert refused(domain, leaf, answers=[domain.answer(leaf, status=REVOKED)]) == Refusal.REVOKED
    hold = domain.answer(leaf, status=REVOKED, reason=x509.ReasonFlags.certificate_hold)
    assert refused(domain, leaf, answers=[hold]) == Refusal.HELD
    both = domain.validate(leaf, answers=[domain.answer(leaf)], crls=[domain.crl(leaves=True)])
    assert both.statuses[0].source == "crl+ocsp"


def test_revoked_by_either_is_revoked(domain: Domain) -> None:
    leaf = domain.issue()
    good, listed = domain.answer(leaf), domain.crl(leaf, leaves=True)
    assert refused(domain, leaf, answers=[good], crls=[listed]) == Refusal.REVOKED
    revoked = domain.answer(leaf, status=REVOKED)
    assert refused(domain, leaf, answers=[good, revoked], crls=[domain.crl(leaves=True)]) == Refusal.REVOKED


def test_unknown_another_certificates_and_unsuccessful_answers_are_no_evidence(domain: Domain) -> None:
    from fltrust.pki.ocsp import OcspFailure, failure

    leaf, other = domain.issue(), domain.issue("site-b")
    namesake, forged = make_domain(), bytearray(domain.answer(leaf))
    forged[-1] ^= 1
    for answer in (
        domain.answer(leaf, status=OCSPCertStatus.UNKNOWN),
        domain.answer(other),
        failure(OcspFailure.TRY_LATER),
        domain.answer(leaf, issuer=namesake.issuing),
        bytes(forged),
        domain.answer(leaf, this_update=NOW + DAY, next_update=NOW + 2 * DAY),
    ):
        assert refused(domain, leaf, answers=[answer]) == "revocation-unknown"


def test_an_answer_without_a_next_update_was_fresh_when_it_was_made(domain: Domain) -> None:
    leaf = domain.issue()
    assert refused(domain, leaf, answers=[domain.answer(leaf, next_update=None)]) == "revocation-stale"
    domain.validate(leaf, answers=[domain.answer(leaf, next_update=None)], revocation=SOFT, grace=2 * DAY)


def test_our_own_responder_is_believed(domain: Domain) -> None:
    leaf, signer = domain.issue(), generate()
    draft = ResponderDraft.of(domain.issuer, signer.public_key, now=NOW)
    responder = Responder(certificate=issue_responder(domain.issuer, draft), signer=signer)
    asked = OCSPRequestBuilder().add_certificate(leaf, domain.issuing, SHA256()).build()
    question = read_request(asked.public_bytes(Encoding.DER))
    answer = responder.answer([(question.asked[0], GOOD)], at=NOW, lifetime=DAY)
    assert domain.validate(leaf, answers=[answer]).statuses[0].source == "ocsp"


def delegate(
    domain: Domain,
    signer: FileSigner,
    *,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.OCSP_SIGNING,
    no_check: bool = True,
    by: FileSigner | None = None,
    until: datetime = NOW + DAY,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "responder")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(domain.issuing.subject)
        .public_key(signer.public_key)
        .serial_number(99)
        .not_valid_before(MADE)
        .not_valid_after(until)
        .add_extension(authority_key(domain.issuing), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if no_check:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    return builder.sign(SignerKey(by or domain.issuing_signer), SHA256())


def test_a_responder_is_believed_if_the_issuer_itself_certified_it_for_that(domain: Domain) -> None:
    leaf, signer = domain.issue(), generate()

    def answered(**asked: Any) -> list[bytes]:
        return [domain.answer(leaf, responder=delegate(domain, signer, **asked), signer=signer)]

    domain.validate(leaf, answers=answered())
    for wrong in (
        {"usage": ExtendedKeyUsageOID.SERVER_AUTH},
        {"by": generate()},
        {"until": NOW - timedelta(hours=1)},
        {"no_check": False},
    ):
        assert refused(domain, leaf, answers=answered(**wrong)) == "revocation-unknown"
    answer = domain.answer(leaf, responder=domain.issue("site-b", signer=signer), signer=signer)
    assert refused(domain, leaf, answers=[answer]) == "revocation-unknown"


def test_a_responder_that_must_be_checked_is_good_if_a_crl_says_so(domain: Domain) -> None:
    leaf, signer = domain.issue(), generate()
    responder = delegate(domain, signer, no_check=False)
    answer = domain.answer(leaf, responder=responder, signer=signer, status=REVOKED)
    assert refused(domain, leaf, answers=[answer], crls=[domain.crl(leaves=True)]) == Refusal.REVOKED
    revoked = domain.crl(responder, leaves=True)
    domain.validate(leaf, answers=[answer], crls=[revoked])  # not believed: its responder is revoked


@pytest.mark.parametrize(
    ("crls", "answers", "limits"),
    [
        ([b""] * 3, [], PathLimits(crls=2)),
        ([b"\x30" * 20], [], PathLimits(crl_bytes=10)),
        ([], [b""] * 3, PathLimits(ocsp_responses=2)),
        ([], [b"\x30" * 20], PathLimits(ocsp_bytes=10)),
    ],
)
def test_evidence_past_its_bounds_is_refused_unread(
    crls: list[bytes], answers: list[bytes], limits: PathLimits
) -> None:
    with pytest.raises(Oversized):
        Evidence.read(crls=crls, ocsp_answers=answers, limits=limits)


@pytest.mark.parametrize("junk", [b"", b"\x30", b"\x30\x03\x02\x01\x01", b"no DER"])
def test_what_is_no_crl_and_no_answer_is_said_to_be_none(junk: bytes) -> None:
    with pytest.raises(Malformed):
        Evidence.read(crls=[junk])
    with pytest.raises(Malformed):
        Evidence.read(ocsp_answers=[junk])
