"""What must always hold of certificates, against inputs nobody thought of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fltrust.errors import CertificateRefused, FltrustError, InvalidInput, Refusal
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import (
    LEAF_PROFILES,
    Draft,
    Issuer,
    bundle_from_json,
    certificates_from_pem,
    create_csr,
    create_issuing,
    create_root,
    make_bundle,
    parse_csr,
    verify_certificate,
)
from fltrust.testing.identities import given_names

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")
SITE = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
ROOT_SIGNER, ISSUING_SIGNER, KEY = generate(), generate(), generate()
ROOT = create_root(DOMAIN, signer=ROOT_SIGNER, now=NOW)
ISSUING = create_issuing(root=ROOT, root_signer=ROOT_SIGNER, public_key=ISSUING_SIGNER.public_key, now=NOW)
ISSUER = Issuer(certificate=ISSUING, signer=ISSUING_SIGNER)
BUNDLE = make_bundle(DOMAIN, [ROOT])
LEAF = ISSUER.redeem(Draft.of(SITE, KEY.public_key, now=NOW)).public_bytes(Encoding.DER)
ISSUING_DER = ISSUING.public_bytes(Encoding.DER)
REQUEST = create_csr(KEY)

quiet = pytest.mark.filterwarnings("ignore:Parsed a serial number:UserWarning")
roles = st.sampled_from(list(Role))


def leaf_with_a_signature_in_even_bits() -> bytes:
    """A leaf whose signature ends in a zero bit: its BIT STRING could claim one bit less and say the same."""
    while True:
        der = ISSUER.redeem(Draft.of(SITE, KEY.public_key, now=NOW)).public_bytes(Encoding.DER)
        if der[-1] % 2 == 0:
            return der


@quiet
def test_every_single_flipped_bit_of_a_leaf_is_refused() -> None:
    leaf = leaf_with_a_signature_in_even_bits()
    for bit in range(len(leaf) * 8):
        changed = bytearray(leaf)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CertificateRefused):
            verify_certificate([bytes(changed), ISSUING_DER], bundle=BUNDLE, at=NOW)


@quiet
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_leaf_damaged_in_any_way_is_refused(data: st.DataObject) -> None:
    changed = bytearray(LEAF)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 6)))
        changed[start:end] = data.draw(st.binary(max_size=6))
    if bytes(changed) == LEAF:
        return
    with pytest.raises(CertificateRefused):
        verify_certificate([bytes(changed), ISSUING_DER], bundle=BUNDLE, at=NOW)


@quiet
@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(ISSUING_DER) - 1), value=st.integers(0, 255))
def test_a_damaged_issuing_certificate_never_lets_another_leaf_in(position: int, value: int) -> None:
    changed = bytearray(ISSUING_DER)
    changed[position] = value
    try:
        found = verify_certificate([LEAF, bytes(changed)], bundle=BUNDLE, at=NOW)
    except CertificateRefused:
        return
    assert found.spiffe_id == SITE
    assert found.chain[1].tbs_certificate_bytes == ISSUING.tbs_certificate_bytes


@settings(max_examples=300, deadline=None)
@given(junk=st.lists(st.binary(max_size=300), max_size=6))
@example([LEAF, ISSUING_DER, LEAF, LEAF, LEAF])
@example([ISSUING_DER, LEAF])
def test_junk_is_refused_in_our_own_words(junk: list[bytes]) -> None:
    with pytest.raises(CertificateRefused):
        verify_certificate(junk, bundle=BUNDLE, at=NOW)
    for data in junk:
        with pytest.raises(FltrustError):
            parse_csr(data)
        with pytest.raises(InvalidInput):
            bundle_from_json(data)
        with pytest.raises(InvalidInput):
            certificates_from_pem(data, limit=2)


@quiet
@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(REQUEST) - 1), value=st.integers(0, 255))
def test_a_damaged_request_is_refused_or_gives_the_key_that_signed(position: int, value: int) -> None:
    changed = bytearray(REQUEST)
    changed[position] = value
    try:
        assert parse_csr(bytes(changed)) == KEY.public_key
    except FltrustError:
        return


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(common=names, uris=st.lists(names.map("spiffe://{}".format), max_size=3), ca=st.booleans())
@example(common="coordinator", uris=["spiffe://hospitals.example/coordinator"], ca=True)
def test_names_never_come_from_the_request(common: str, uris: list[str], ca: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if uris:
        wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        request = request.add_extension(wanted, critical=False)
    der = request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    leaf = ISSUER.redeem(Draft.of(SITE, parse_csr(der), now=NOW))
    found = verify_certificate([leaf, ISSUING], bundle=BUNDLE, at=NOW)
    assert found.spiffe_id == SITE
    assert list(leaf.subject) == []
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@settings(max_examples=150, deadline=None)
@given(
    role=roles,
    life=st.integers(-10, 31 * 24 * 3600),
    offset=st.integers(-200, 31 * 24 * 3600),
)
@example(role=Role.PARTICIPANT, life=5, offset=5)
@example(role=Role.PARTICIPANT, life=5, offset=6)
@example(role=Role.PARTICIPANT, life=5, offset=-90)
@example(role=Role.PARTICIPANT, life=5, offset=-91)
def test_a_certificate_is_good_exactly_from_its_beginning_to_its_end(
    role: Role, life: int, offset: int
) -> None:
    profile, lifetime = LEAF_PROFILES[role], timedelta(seconds=life)
    who = SpiffeId.of(DOMAIN, role, None if role is Role.COORDINATOR else "x")
    draft = Draft.of(who, generate().public_key, now=NOW, lifetime=lifetime, dns_names=given_names(role))
    if not profile.min_lifetime <= lifetime <= profile.max_lifetime:
        with pytest.raises(CertificateRefused):
            ISSUER.redeem(draft)
        return
    chain = [ISSUER.redeem(draft), ISSUING]
    at = NOW + timedelta(seconds=offset)
    if -90 <= offset <= life:
        assert verify_certificate(chain, bundle=BUNDLE, at=at).spiffe_id == who
        return
    with pytest.raises(CertificateRefused) as refused:
        verify_certificate(chain, bundle=BUNDLE, at=at)
    expected = Refusal.CERTIFICATE_EXPIRED if offset > life else Refusal.CERTIFICATE_NOT_YET_VALID
    assert refused.value.reason == expected
