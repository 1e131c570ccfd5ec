"""Verification at a stated time: the good pass, every other is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.errors import CertificateRefused, Refusal
from fltrust.identity import Digest, KeyId, Role, SpiffeId, TrustDomain
from fltrust.keys import generate, spki_der
from fltrust.pki import Draft, Issuer, TrustBundle, create_issuing, verify_certificate
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.profiles import key_usage
from fltrust.pki.verify import MAX_CERTIFICATE, Purpose


def refusal(authority: Any, chain: Any, **how: Any) -> str:
    arguments = {"bundle": authority.bundle, "at": authority.now, **how}
    with pytest.raises(CertificateRefused) as refused:
        verify_certificate(chain, **arguments)
    return refused.value.reason


def der(chain: Any) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in chain]


@pytest.mark.parametrize("role", list(Role))
def test_what_the_issuer_made_verifies_and_says_who_it_is(authority: Any, role: Role) -> None:
    chain = authority.issue(role)
    purpose: Purpose = "server" if role is Role.SERVER else "client"
    for presented in (der(chain), chain, [*chain, authority.root]):
        found = verify_certificate(
            presented, bundle=authority.bundle, at=authority.now, expect_role=role, purpose=purpose
        )
        assert found.spiffe_id == authority.id(role)
        assert found.serial == chain[0].serial_number
        assert found.key_id == KeyId.of_spki(spki_der(chain[0].public_key()))
        assert found.fingerprint == Digest.sha256_of(chain[0].public_bytes(Encoding.DER))
        assert found.chain == tuple(chain)
        assert found.issuers == tuple(
            ca_key_id(ca.public_key()) for ca in (authority.issuer.certificate, authority.root)
        )
        assert (found.not_before, found.not_after) == (
            chain[0].not_valid_before_utc,
            chain[0].not_valid_after_utc,
        )


def test_time_is_judged_to_the_second_with_skew_on_not_before_only(authority: Any) -> None:
    chain = authority.issue()
    start, end = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    tick = timedelta(microseconds=1)

    def at(time: datetime) -> str:
        try:
            verify_certificate(chain, bundle=authority.bundle, at=time)
        except CertificateRefused as refused:
            return refused.reason
        return "verified"

    assert at(start) == at(end) == at(start - timedelta(seconds=30)) == "verified"
    assert at(end + tick) == at(end + timedelta(days=9999)) == Refusal.CERTIFICATE_EXPIRED
    assert at(start - timedelta(seconds=30) - tick) == Refusal.CERTIFICATE_NOT_YET_VALID


def test_expired_is_said_only_of_what_was_once_good(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    impostor = new_authority().issue()
    later = authority.now + timedelta(days=2)
    assert refusal(authority, impostor, at=later) == Refusal.CERTIFICATE_PATH


def test_a_naive_time_is_a_programming_error(authority: Any) -> None:
    with pytest.raises(ValueError, match="aware"):
        verify_certificate(authority.issue(), bundle=authority.bundle, at=authority.now.replace(tzinfo=None))


def test_an_expired_issuing_certificate_breaks_the_path(authority: Any) -> None:
    end = authority.issuer.certificate.not_valid_after_utc
    chain = authority.forge(not_before=end - timedelta(hours=1), not_after=end + timedelta(hours=1))
    verify_certificate(chain, bundle=authority.bundle, at=end)
    assert refusal(authority, chain, at=end + timedelta(minutes=1)) == Refusal.CERTIFICATE_PATH


def test_the_same_names_under_another_root_are_refused(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    impostor = new_authority()
    assert refusal(authority, impostor.issue()) == Refusal.CERTIFICATE_PATH
    assert refusal(authority, [*impostor.issue(), impostor.root]) == Refusal.CERTIFICATE_PATH
    mixed = [impostor.issue()[0], authority.issuer.certificate]
    assert refusal(authority, mixed) == Refusal.CERTIFICATE_PATH


def test_a_missing_issuing_certificate_or_empty_bundle_has_no_path(authority: Any) -> None:
    chain = authority.issue()
    assert refusal(authority, chain[:1]) == Refusal.CERTIFICATE_PATH
    empty = TrustBundle(authority.domain, (), 1)
    assert refusal(authority, chain, bundle=empty) == Refusal.CERTIFICATE_PATH


def test_a_leaf_cannot_issue(authority: Any) -> None:
    parent_signer = generate()
    parent = authority.forge(public_key=parent_signer.public_key)
    child = authority.__class__(
        authority.domain, authority.root, authority.root_signer, authority.issuer, parent_signer
    ).forge()[0]
    assert refusal(authority, [child, *parent]) == Refusal.CERTIFICATE_PATH


def test_an_issuing_ca_under_an_issuing_ca_is_refused(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    second = generate()
    under = create_issuing(
        root=authority.issuer.certificate,
        root_signer=authority.issuing_signer,
        public_key=second.public_key,
        now=authority.now - timedelta(days=2),
    )
    draft = Draft.of(authority.id(), generate().public_key, now=authority.now)
    leaf = Issuer(certificate=under, signer=second).redeem(draft)
    assert refusal(authority, [leaf, under, authority.issuer.certificate]) == Refusal.CERTIFICATE_PATH


def test_another_domain_is_refused_before_any_path_is_tried(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    other = new_authority("other.example")
    assert refusal(authority, other.issue()) == Refusal.WRONG_DOMAIN
    assert refusal(authority, authority.issue(), bundle=other.bundle) == Refusal.WRONG_DOMAIN
    assert (
        refusal(authority, authority.issue(), expect_domain=TrustDomain("other.example"))
        == Refusal.WRONG_DOMAIN
    )


def test_our_own_root_may_not_name_another_domain(authority: Any) -> None:
    # Signed by our issuing key, so the path is good; only the domain says no.
    chain = authority.forge(SpiffeId.of("other.example", Role.PARTICIPANT, "site-a"))
    assert refusal(authority, chain) == Refusal.WRONG_DOMAIN


def test_another_role_is_refused(authority: Any) -> None:
    assert refusal(authority, authority.issue(), expect_role=Role.OPERATOR) == Refusal.WRONG_ROLE


def test_only_a_serving_role_is_good_as_a_server(authority: Any) -> None:
    for role in (Role.PARTICIPANT, Role.OPERATOR):
        assert refusal(authority, authority.issue(role), purpose="server") == Refusal.CERTIFICATE_PROFILE
    for role in (Role.AGGREGATOR, Role.COORDINATOR):
        verify_certificate(authority.issue(role), bundle=authority.bundle, at=authority.now, purpose="server")


URI = "spiffe://hospitals.example/participant/site-a"
U, D = x509.UniformResourceIdentifier, x509.DNSName
EKU = ExtendedKeyUsageOID
SAN, KU, BC, XKU = (
    x509.SubjectAlternativeName,
    x509.KeyUsage,
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
)


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        pytest.param({SAN: None}, Refusal.CERTIFICATE_PROFILE, id="no SAN"),
        pytest.param({SAN: (SAN([D("a.example")]), True)}, Refusal.CERTIFICATE_PROFILE, id="no URI"),
        pytest.param({SAN: (SAN([U(URI), U(URI)]), True)}, Refusal.CERTIFICATE_PROFILE, id="URI twice"),
        pytest.param(
            {SAN: (SAN([U(URI), U(URI.replace("site-a", "site-b"))]), True)},
            Refusal.CERTIFICATE_PROFILE,
            id="two URIs",
        ),
        pytest.param(
            {SAN: (SAN([U(URI), D("x.example")]), True)}, Refusal.CERTIFICATE_PROFILE, id="a DNS name too"
        ),
        pytest.param({SAN: (SAN([U("https://a.example")]), True)}, Refusal.CERTIFICATE_PROFILE, id="https"),
        pytest.param(
            {SAN: (SAN([U(URI.upper())]), True)}, Refusal.CERTIFICATE_PROFILE, id="upper-case SPIFFE ID"
        ),
        pytest.param(
            {SAN: (SAN([U(URI + "/x")]), True)}, Refusal.CERTIFICATE_PROFILE, id="a longer SPIFFE ID"
        ),
        pytest.param(
            {SAN: (SAN([U("spiffe://hospitals.example/admin/x")]), True)},
            Refusal.CERTIFICATE_PROFILE,
            id="an unknown role",
        ),
        pytest.param({BC: (BC(True, 0), True)}, Refusal.CERTIFICATE_PATH, id="CA:true"),
        pytest.param(
            {BC: (BC(True, None), True), KU: (key_usage(key_cert_sign=True, digital_signature=True), True)},
            Refusal.CERTIFICATE_PATH,
            id="CA:true that may sign",
        ),
        pytest.param({KU: None}, Refusal.CERTIFICATE_PROFILE, id="no key usage"),
        pytest.param(
            {KU: (key_usage(digital_signature=True), False)},
            Refusal.CERTIFICATE_PROFILE,
            id="key usage not critical",
        ),
        pytest.param(
            {KU: (key_usage(digital_signature=True, crl_sign=True), True)},
            Refusal.CERTIFICATE_PROFILE,
            id="may sign CRLs",
        ),
        pytest.param({XKU: None}, Refusal.CERTIFICATE_PROFILE, id="no EKU"),
        pytest.param(
            {XKU: (XKU([EKU.SERVER_AUTH]), False)}, Refusal.CERTIFICATE_PROFILE, id="serverAuth only"
        ),
        pytest.param(
            {XKU: (XKU([EKU.CLIENT_AUTH, EKU.SERVER_AUTH]), False)},
            Refusal.CERTIFICATE_PROFILE,
            id="a participant that could serve",
        ),
        pytest.param(
            {XKU: (XKU([EKU.ANY_EXTENDED_KEY_USAGE]), False)}, Refusal.CERTIFICATE_PROFILE, id="any EKU"
        ),
        pytest.param(
            {XKU: (XKU([EKU.CLIENT_AUTH, EKU.CODE_SIGNING]), False)},
            Refusal.CERTIFICATE_PROFILE,
            id="code signing too",
        ),
        pytest.param(
            {
                x509.UnrecognizedExtension: (
                    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
                    True,
                )
            },
            Refusal.CERTIFICATE_PATH,
            id="an unknown critical extension",
        ),
        pytest.param({x509.AuthorityKeyIdentifier: None}, Refusal.CERTIFICATE_PATH, id="no AKI"),
    ],
)
def test_a_leaf_that_breaks_the_profile_is_refused(
    authority: Any, extensions: dict[Any, Any], reason: Refusal
) -> None:
    assert refusal(authority, authority.forge(extensions=extensions)) == reason


def test_a_leaf_made_by_the_forge_without_changes_verifies(authority: Any) -> None:
    # The control of the test above: the changes are what is refused, not the forge.
    verify_certificate(authority.forge(), bundle=authority.bundle, at=authority.now)


def test_an_unknown_extension_that_is_not_critical_is_ignored(authority: Any) -> None:
    note = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    chain = authority.forge(extensions={x509.UnrecognizedExtension: (note, False)})
    verify_certificate(chain, bundle=authority.bundle, at=authority.now)


@pytest.mark.parametrize(
    "names",
    [
        [U(URI.replace("participant", "aggregator"))],
        [U(URI.replace("participant", "aggregator")), D("other.example")],
    ],
)
def test_a_serving_leaf_has_exactly_its_own_dns_name(authority: Any, names: list[Any]) -> None:
    chain = authority.forge(authority.id(Role.AGGREGATOR), extensions={SAN: (SAN(names), True)})
    assert refusal(authority, chain) == Refusal.CERTIFICATE_PROFILE


def test_a_leaf_that_lives_too_long_is_refused(authority: Any) -> None:
    chain = authority.forge(not_after=authority.now + timedelta(hours=24, seconds=1))
    assert refusal(authority, chain) == Refusal.CERTIFICATE_PROFILE


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
    ],
)
def test_a_leaf_key_that_is_not_p256_is_refused(authority: Any, key: Any) -> None:
    # The forge asks for the SPKI of any kind: what a careless CA would have signed.
    assert refusal(authority, authority.forge(public_key=key)) == Refusal.CERTIFICATE_PROFILE


def test_a_leaf_signed_with_another_hash_is_refused(authority: Any) -> None:
    chain = authority.forge(algorithm=hashes.SHA384())
    assert refusal(authority, chain) == Refusal.CERTIFICATE_PROFILE


def test_bounds_come_before_parsing(authority: Any) -> None:
    chain = der(authority.issue())
    assert refusal(authority, []) == Refusal.OVERSIZED
    assert refusal(authority, [*chain, *chain, chain[1]]) == Refusal.OVERSIZED
    assert refusal(authority, [b"\0" * (MAX_CERTIFICATE + 1)]) == Refusal.OVERSIZED
    assert refusal(authority, [chain[0], b"\0" * (MAX_CERTIFICATE + 1)]) == Refusal.OVERSIZED


def test_a_huge_parsed_certificate_is_refused_too(authority: Any) -> None:
    names = SAN([U(URI), *(D(f"n{n}.example") for n in range(2000))])
    assert refusal(authority, authority.forge(extensions={SAN: (names, True)})) == Refusal.OVERSIZED


@pytest.mark.parametrize(
    "junk", [b"", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"-----BEGIN", b"\0" * 16384]
)
def test_junk_is_malformed_wherever_it_stands(authority: Any, junk: bytes) -> None:
    chain = der(authority.issue())
    assert refusal(authority, [junk]) == Refusal.MALFORMED
    assert refusal(authority, [chain[0], junk]) == Refusal.MALFORMED
    assert refusal(authority, [chain[0] + b"\0", chain[1]]) == Refusal.MALFORMED


def test_unrelated_certificates_beside_the_path_do_no_harm_and_are_left_out(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    chain = authority.issue()
    presented = [chain[0], new_authority("other.example").root, chain[1]]
    assert verify_certificate(presented, bundle=authority.bundle, at=authority.now).chain == tuple(chain)


def test_the_old_root_and_the_new_one_are_both_trusted_during_a_change(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    successor = new_authority()
    both = TrustBundle(authority.domain, (authority.root, successor.root), 2)
    for who in (authority, successor):
        verify_certificate(who.issue(), bundle=both, at=authority.now)


def test_same_inputs_give_the_same_answer(authority: Any) -> None:
    chain = der(authority.issue())
    answers = {verify_certificate(chain, bundle=authority.bundle, at=authority.now) for _ in range(3)}
    assert len(answers) == 1
