"""Draft → lint → issue once: what an issuer makes, and what it refuses to make."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fltrust.errors import CertificateRefused, Conflict, Malformed, Refusal, StorageUnavailable
from fltrust.identity import Role, Serial, SpiffeId
from fltrust.keys import generate
from fltrust.pki import BACKDATE, LEAF_PROFILES, Draft, Issuer, lint
from fltrust.testing.identities import given_names


def draft(authority: Any, role: Role = Role.PARTICIPANT, **changes: Any) -> Draft:
    fields = {"now": authority.now, "lifetime": None, "public_key": generate().public_key, **changes}
    return Draft.of(fields.pop("spiffe_id", authority.id(role)), fields.pop("public_key"), **fields)


@pytest.mark.parametrize("role", list(Role))
def test_each_role_gets_exactly_its_profile(authority: Any, role: Role) -> None:
    leaf = authority.issue(role)[0]
    serving = role in (Role.AGGREGATOR, Role.COORDINATOR, Role.WORKLOAD)
    extensions = {extension.oid: extension for extension in leaf.extensions}
    assert set(extensions) == {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
    names = extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(authority.id(role))]
    assert names.value.get_values_for_type(x509.DNSName) == (
        [authority.id(role).dns_name] if serving else list(given_names(role))
    )
    usage = extensions[ExtensionOID.KEY_USAGE]
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    expected = {ExtendedKeyUsageOID.CLIENT_AUTH} | ({ExtendedKeyUsageOID.SERVER_AUTH} if serving else set())
    if role is Role.SERVER:
        expected = {ExtendedKeyUsageOID.SERVER_AUTH}
    assert set(extensions[ExtensionOID.EXTENDED_KEY_USAGE].value) == expected
    assert extensions[ExtensionOID.BASIC_CONSTRAINTS].critical
    assert not extensions[ExtensionOID.BASIC_CONSTRAINTS].value.ca
    assert list(leaf.subject) == []
    assert leaf.not_valid_before_utc == authority.now - timedelta(seconds=60)
    assert leaf.not_valid_after_utc == authority.now + LEAF_PROFILES[role].default_lifetime


def test_lifetimes_are_the_stated_ones() -> None:
    hour = timedelta(hours=1)
    stated = {
        Role.PARTICIPANT: (hour, 24 * hour),
        Role.AGGREGATOR: (hour, 24 * hour),
        Role.OPERATOR: (12 * hour, 30 * 24 * hour),
        Role.COORDINATOR: (24 * hour, 7 * 24 * hour),
        Role.SIGNER: (12 * hour, 30 * 24 * hour),
        Role.SERVER: (7 * 24 * hour, 47 * 24 * hour),
        Role.DEVICE: (7 * 24 * hour, 90 * 24 * hour),
        Role.WORKLOAD: (hour, 24 * hour),
    }
    assert {r: (p.default_lifetime, p.max_lifetime) for r, p in LEAF_PROFILES.items()} == stated


def test_a_participant_may_live_for_five_seconds(authority: Any) -> None:
    leaf = authority.issue(lifetime=timedelta(seconds=5))[0]
    assert leaf.not_valid_after_utc - authority.now == timedelta(seconds=5)


def test_serials_are_twenty_random_octets_with_the_top_bit_clear(authority: Any) -> None:
    asked = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return b"\xff" * count

    issuer = Issuer(
        certificate=authority.issuer.certificate, signer=authority.issuing_signer, entropy=entropy
    )
    assert issuer.redeem(draft(authority)).serial_number == 2**159 - 1
    assert asked == [20]
    assert len({authority.issue()[0].serial_number for _ in range(20)}) == 20
    assert all(Serial(authority.issue()[0].serial_number) for _ in range(3))


@pytest.mark.parametrize("octets", [b"", b"\x01" * 19, b"\x01" * 21, b"\0" * 20, b"\x80" + b"\0" * 19])
def test_bad_entropy_issues_nothing(authority: Any, octets: bytes) -> None:
    issuer = Issuer(
        certificate=authority.issuer.certificate,
        signer=authority.issuing_signer,
        entropy=lambda _count: octets,
    )
    with pytest.raises(Malformed):
        issuer.redeem(draft(authority))


def test_a_draft_is_redeemed_once(authority: Any) -> None:
    one = draft(authority)
    authority.issuer.redeem(one)
    with pytest.raises(Conflict, match="fresh draft"):
        authority.issuer.redeem(one)


def test_a_raced_draft_gives_one_certificate(authority: Any) -> None:
    one, issued, refused = draft(authority), [], []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        try:
            issued.append(authority.issuer.redeem(one))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(issued), len(refused)) == (1, 7)


def test_a_draft_whose_signing_failed_stays_spent(authority: Any) -> None:
    class Broken:
        public_key = authority.issuing_signer.public_key
        key_id = authority.issuing_signer.key_id

        def sign(self, data: bytes) -> bytes:
            raise StorageUnavailable(f"the HSM is away, {len(data)} bytes not signed")

    issuer, one = Issuer(certificate=authority.issuer.certificate, signer=Broken()), draft(authority)
    with pytest.raises(StorageUnavailable):
        issuer.redeem(one)
    with pytest.raises(Conflict):
        issuer.redeem(one)


def test_what_was_signed_wrongly_does_not_leave_the_issuer(authority: Any) -> None:
    class Careless:
        public_key = authority.issuing_signer.public_key
        key_id = authority.issuing_signer.key_id

        def sign(self, data: bytes) -> bytes:
            return bytes(generate().sign(data))

    with pytest.raises(CertificateRefused, match="does not"):
        Issuer(certificate=authority.issuer.certificate, signer=Careless()).redeem(draft(authority))


def test_an_issuer_with_another_key_is_refused(authority: Any) -> None:
    with pytest.raises(Conflict):
        Issuer(certificate=authority.issuer.certificate, signer=generate())


@pytest.mark.parametrize(
    ("role", "lifetime"),
    [
        (Role.PARTICIPANT, timedelta(seconds=4)),
        (Role.PARTICIPANT, timedelta(0)),
        (Role.PARTICIPANT, -timedelta(hours=1)),
        (Role.PARTICIPANT, timedelta(hours=24, seconds=1)),
        (Role.AGGREGATOR, timedelta(hours=24, seconds=1)),
        (Role.OPERATOR, timedelta(days=30, seconds=1)),
        (Role.COORDINATOR, timedelta(days=7, seconds=1)),
    ],
)
def test_a_draft_too_short_or_too_long_for_its_profile_is_refused(
    authority: Any, role: Role, lifetime: timedelta
) -> None:
    with pytest.raises(CertificateRefused, match="life between") as refused:
        authority.issuer.redeem(draft(authority, role, lifetime=lifetime))
    assert refused.value.reason == Refusal.CERTIFICATE_PROFILE


def test_a_draft_that_outlives_the_issuer_is_refused(authority: Any) -> None:
    end = authority.issuer.certificate.not_valid_after_utc
    authority.issuer.redeem(draft(authority, now=end - timedelta(hours=1)))
    with pytest.raises(CertificateRefused, match="when the issuing certificate does") as refused:
        authority.issuer.redeem(draft(authority, now=end - timedelta(minutes=59)))
    assert refused.value.reason == Refusal.CERTIFICATE_PROFILE


def test_a_draft_older_than_the_issuer_is_refused(authority: Any) -> None:
    start = authority.issuer.certificate.not_valid_before_utc
    authority.issuer.redeem(draft(authority, now=start + BACKDATE))
    with pytest.raises(CertificateRefused, match="no earlier"):
        authority.issuer.redeem(draft(authority, now=start))


def test_a_draft_of_another_domain_is_refused(authority: Any) -> None:
    stranger = SpiffeId.of("other.example", Role.PARTICIPANT, "site-a")
    with pytest.raises(CertificateRefused) as refused:
        authority.issuer.redeem(draft(authority, spiffe_id=stranger))
    assert refused.value.reason == Refusal.WRONG_DOMAIN


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
    ],
)
def test_a_draft_with_a_key_that_is_not_p256_is_refused(authority: Any, key: Any) -> None:
    with pytest.raises(CertificateRefused, match="P-256") as refused:
        lint(draft(authority, public_key=key))
    assert refused.value.reason == Refusal.CERTIFICATE_PROFILE


def test_a_draft_with_the_issuers_own_key_is_refused(authority: Any) -> None:
    with pytest.raises(CertificateRefused, match="own"):
        authority.issuer.redeem(draft(authority, public_key=authority.issuing_signer.public_key))


def test_times_that_x509_cannot_say_are_refused(authority: Any) -> None:
    key, now = generate().public_key, authority.now
    for start in (now.replace(microsecond=1), now.replace(tzinfo=None)):
        end = start + timedelta(hours=1)
        with pytest.raises(CertificateRefused, match="whole seconds"):
            lint(Draft(authority.id(), key, start, end))


def test_a_draft_cuts_fractions_and_zones_to_utc_seconds() -> None:
    there = timezone(timedelta(hours=5))
    made = Draft.of(
        SpiffeId.of("a.example", Role.PARTICIPANT, "x"),
        generate().public_key,
        now=datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=there),
        lifetime=timedelta(seconds=10.7),
    )
    assert made.not_before == datetime(2026, 1, 1, 6, 59, 0, tzinfo=UTC)
    assert made.not_after == datetime(2026, 1, 1, 7, 0, 10, tzinfo=UTC)
    lint(made)
