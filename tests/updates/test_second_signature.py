"""Two signatures, where two are asked for: nothing makes one of them do for both."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    Malformed,
    Oversized,
    Refused,
    StatementRefused,
)
from fltrust.identity import Role, SpiffeId
from fltrust.keys import generate
from fltrust.keys.mldsa import MLDSA65, MldsaSigner, generate_mldsa, load_mldsa, save_mldsa
from fltrust.pki.second import (
    SecondAuthority,
    SecondLeaf,
    create_second_issuing,
    create_second_root,
    second_leaf_of,
    second_roots_of,
    verify_second_chain,
)
from fltrust.updates.dsse import Envelope
from fltrust.updates.second import SecondSignature, demand_second, require_consistent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SITE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")
OTHER = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-b")
PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'
LIFE = timedelta(hours=1)


class World:
    """A second root, its issuing CA, and one signer with a certificate."""

    def __init__(self, domain: str = "hospitals.example") -> None:
        self.root_key, self.issuing_key, self.key = generate_mldsa(), generate_mldsa(), generate_mldsa()
        who = SpiffeId.of(domain, Role.PARTICIPANT, "site-a")
        self.root = create_second_root(who.domain, self.root_key, now=NOW)
        issuing = create_second_issuing(self.root, self.root_key, self.issuing_key, now=NOW)
        self.authority = SecondAuthority(issuing, self.issuing_key)
        issued = self.authority.issue(who, self.key.public_key, now=NOW, not_after=NOW + LIFE)
        self.chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in issued)

    def sign(self, payload: bytes = PAYLOAD) -> SecondSignature:
        return SecondSignature.sign(payload, signer=self.key, chain=self.chain)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def check(
    second: SecondSignature | None,
    world: World,
    *,
    payload: bytes = PAYLOAD,
    who: SpiffeId = SITE,
    at: datetime = NOW,
) -> SecondLeaf:
    data = None if second is None else second.to_json()
    return demand_second(data, payload=payload, who=who, roots=second_roots_of([world.root]), at=at)


def test_both_signatures_over_one_payload_are_what_both_asks_for(world: World) -> None:
    second = SecondSignature.from_json(world.sign().to_json())
    assert check(second, world).spiffe_id == SITE


def test_todays_verifier_reads_the_first_envelope_as_ever(world: World) -> None:
    first = Envelope.sign(PAYLOAD, signer=generate())
    second = world.sign()
    assert Envelope.from_json(first.to_json()).payload == second.payload
    with pytest.raises(FltrustError):  # and never takes the second one for a first
        Envelope.from_json(second.to_json())


def test_a_second_signature_that_is_missing_is_refused(world: World) -> None:
    with pytest.raises(StatementRefused) as refused:
        check(None, world)
    assert refused.value.reason == "second-signature-missing"


def test_without_a_root_to_verify_it_under_it_is_refused(world: World) -> None:
    with pytest.raises(Refused) as refused:
        demand_second(world.sign().to_json(), payload=PAYLOAD, who=SITE, roots={}, at=NOW)
    assert refused.value.reason == "second-root-missing"


def test_without_a_root_it_is_held_to_its_own_leaf(world: World) -> None:
    """What a coordinator can tell: it keeps no junk, and cannot tell whose CA signed the leaf."""
    require_consistent(world.sign(), payload=PAYLOAD, who=SITE)
    require_consistent(World().sign(), payload=PAYLOAD, who=SITE)
    good = world.sign()
    junk = replace(good, chain_der=(bytes(9000), bytes(9000)))
    for bad, payload, who in (
        (good, b"{}", SITE),
        (good, PAYLOAD, OTHER),
        (replace(good, signature=bytes(len(good.signature))), PAYLOAD, SITE),
        (replace(good, key_id=World().key.key_id), PAYLOAD, SITE),
        (junk, PAYLOAD, SITE),
    ):
        with pytest.raises(FltrustError):
            require_consistent(bad, payload=payload, who=who)


def test_a_leaf_whose_subject_cannot_be_read_is_refused_and_ends_nothing(world: World) -> None:
    """Its CA is another's: what it signs must not end a verification with an error of Python's own."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ABCDEFGH")])
    leaf = x509.load_der_x509_certificate(world.chain[0])
    builder = x509.CertificateBuilder(
        leaf.issuer, name, leaf.public_key(), leaf.serial_number, NOW, NOW + LIFE, list(leaf.extensions)
    )
    der = builder.sign(world.issuing_key.private_key, None).public_bytes(Encoding.DER)
    hostile = der.replace(b"ABCDEFGH", b"\xff\xfe\xff\xfeEFGH")
    with pytest.raises(CertificateRefused):
        second_leaf_of(hostile, expect=SITE)


def test_an_issuing_ca_ends_with_its_root(world: World) -> None:
    late = world.root.not_valid_after_utc - timedelta(days=3)
    issuing = create_second_issuing(world.root, world.root_key, world.issuing_key, now=late)
    assert issuing.not_valid_after_utc == world.root.not_valid_after_utc


def test_a_certificate_that_would_outlive_its_issuing_ca_is_not_issued(world: World) -> None:
    late = NOW + timedelta(days=364)
    with pytest.raises(CertificateRefused):
        world.authority.issue(SITE, world.key.public_key, now=late, not_after=late + timedelta(days=2))


def test_one_over_another_payload_is_refused(world: World) -> None:
    with pytest.raises(StatementRefused) as refused:
        check(world.sign(b"{}"), world)
    assert refused.value.reason == "digest-mismatch"


@pytest.mark.parametrize("at", [0, 100, 3308])
def test_a_flipped_bit_of_it_is_refused(world: World, at: int) -> None:
    second = world.sign()
    signature = bytearray(second.signature)
    signature[at] ^= 1
    with pytest.raises(FltrustError) as refused:
        check(replace(second, signature=bytes(signature)), world)
    assert refused.value.reason == "signature-invalid"


def test_one_of_another_identity_is_refused(world: World) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check(world.sign(), world, who=OTHER)
    assert refused.value.reason == "unknown-identity"


def test_one_of_another_key_under_a_stolen_chain_is_refused(world: World) -> None:
    thief = SecondSignature.sign(PAYLOAD, signer=generate_mldsa(), chain=world.chain)
    with pytest.raises(FltrustError) as refused:
        check(thief, world)
    assert refused.value.reason == "signature-invalid"
    with pytest.raises(FltrustError) as refused:
        check(replace(thief, key_id=world.key.key_id), world)
    assert refused.value.reason == "signature-invalid"


def test_a_chain_of_another_root_is_refused(world: World) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check(World().sign(), world)
    assert refused.value.reason == "certificate-path"


def test_a_root_of_another_domain_is_refused() -> None:
    foreign = World("elsewhere.example")
    with pytest.raises(Refused) as refused:
        check(foreign.sign(), foreign)
    assert refused.value.reason == "second-root-missing"
    roots = {SITE.domain: foreign.root}
    with pytest.raises(CertificateRefused) as under:  # also where it is said to be this domain's
        demand_second(foreign.sign().to_json(), payload=PAYLOAD, who=SITE, roots=roots, at=NOW)
    assert under.value.reason == "wrong-domain"


def test_roots_are_sorted_by_domain_and_none_stands_for_two(world: World) -> None:
    foreign = World("elsewhere.example")
    assert list(second_roots_of([world.root, foreign.root])) == ["hospitals.example", "elsewhere.example"]
    with pytest.raises(Conflict):
        second_roots_of([world.root, World().root])
    issuing = x509.load_der_x509_certificate(world.chain[1])
    with pytest.raises(CertificateRefused):  # a CA, and no root
        second_roots_of([issuing])


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOW + 2 * LIFE, "certificate-expired"),
        (NOW - timedelta(minutes=10), "certificate-not-yet-valid"),
    ],
)
def test_one_out_of_its_time_is_refused(world: World, at: datetime, reason: str) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check(world.sign(), world, at=at)
    assert refused.value.reason == reason


def test_a_leaf_that_is_a_ca_signs_nothing(world: World) -> None:
    """The issuing CA's own certificate in the leaf's place, and the root's in the issuing CA's."""
    chain = (world.chain[1], world.root.public_bytes(Encoding.DER))
    with pytest.raises(CertificateRefused):
        verify_second_chain(chain, root=world.root, at=NOW, expect=SITE)


def test_a_leaf_issues_nothing(world: World) -> None:
    """A participant that signs a certificate for another name with its own key."""
    leaf = x509.load_der_x509_certificate(world.chain[0])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://hospitals.example")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.subject)
        .public_key(generate_mldsa().public_key)
        .serial_number(7)
        .not_valid_before(NOW - LIFE)
        .not_valid_after(NOW + LIFE)
        .add_extension(names, critical=True)
    )
    forged = builder.sign(world.key.private_key, None).public_bytes(Encoding.DER)
    with pytest.raises(CertificateRefused):
        verify_second_chain((forged, world.chain[0]), root=world.root, at=NOW, expect=OTHER)


def test_a_chain_with_a_classical_link_is_refused(world: World) -> None:
    """A leaf by an ECDSA key under a CA of P-256 is what a quantum computer can forge."""
    from fltrust.pki import Draft, Issuer, create_issuing, create_root

    root_key, issuing_key = generate(), generate()
    root = create_root(SITE.domain, signer=root_key, now=NOW)
    issuing = create_issuing(root=root, root_signer=root_key, public_key=issuing_key.public_key, now=NOW)
    leaf = Issuer(certificate=issuing, signer=issuing_key).redeem(
        Draft.of(SITE, generate().public_key, now=NOW)
    )
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in (leaf, issuing))
    for trusted in (root, world.root):
        with pytest.raises(CertificateRefused):
            verify_second_chain(chain, root=trusted, at=NOW, expect=SITE)


def test_a_weaker_parameter_set_is_refused(world: World) -> None:
    with pytest.raises(CertificateRefused):
        world.authority.issue(
            SITE,
            MLDSA44PrivateKey.generate().public_key(),  # type: ignore[arg-type]
            now=NOW,
            not_after=NOW + LIFE,
        )


@pytest.mark.parametrize("change", ["type", "field", "two", "none", "spaces", "short"])
def test_an_envelope_in_any_other_form_is_refused(world: World, change: str) -> None:
    data = world.sign().to_json()
    signature = data[data.index(b'{"keyid"') : data.index(b"]}", data.index(b'{"keyid"'))]
    hostile = {
        "type": data.replace(b"second-signature:v1", b"second-signature:v2"),
        "field": data.replace(b'"type"', b'"more":1,"type"'),
        "two": data.replace(signature, signature + b"," + signature),
        "none": data.replace(signature, b""),
        "spaces": data.replace(b'","', b'", "', 1),
        "short": data.replace(b'"sig":"', b'"sig":"AAAA', 1),
    }[change]
    assert hostile != data
    with pytest.raises((Malformed, StatementRefused)):
        SecondSignature.from_json(hostile)


def test_its_size_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(Oversized):
        SecondSignature.from_json(b"{" * 101, limit=100)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_its_key_lies_in_a_private_file(tmp_path: Path, passphrase: bytes | None) -> None:
    signer = generate_mldsa()
    save_mldsa(signer, tmp_path / "k", passphrase=passphrase)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert load_mldsa(tmp_path / "k", passphrase=passphrase).key_id == signer.key_id
    assert isinstance(signer, MldsaSigner)


def test_its_certificates_state_the_algorithm_of_rfc_9881(world: World) -> None:
    for der in world.chain:
        assert x509.load_der_x509_certificate(der).signature_algorithm_oid == MLDSA65
