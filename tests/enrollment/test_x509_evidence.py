"""Certificates of other CAs as evidence: what earns a name, and everything that does not."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fltrust.enrollment.types import EnrollRequest
from fltrust.enrollment.x509_evidence import (
    CertificateField,
    VerifiedChain,
    X509Checker,
    X509Evidence,
    X509Rule,
    x509_challenge,
)
from fltrust.errors import EvidenceRefused, FltrustError, Malformed, Oversized, SignatureInvalid
from fltrust.identity import Role, TrustDomain

DOMAIN = TrustDomain("hospitals.example")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CSR = b"the request"


class Corporate:
    """A CA that is not ours, with RSA keys, as such are."""

    def __init__(self, name: str = "Corporate Root") -> None:
        self.key = rsa.generate_private_key(65_537, 2048)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self._sign(
            self._begin(self.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(ca=True), critical=True)
        )

    def issue(
        self,
        key: Any,
        *,
        cn: str = "scanner-3.plant.example",
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        more: tuple[x509.NameAttribute, ...] = (),
        before: datetime = NOW - timedelta(days=1),
        after: datetime = NOW + timedelta(days=1),
        is_ca: bool = False,
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn), *more])
        names = [
            x509.DNSName("bank.example"),
            x509.UniformResourceIdentifier("spiffe://x.example/operator/root"),
        ]
        certificate = self._sign(
            self._begin(subject, key.public_key(), before, after)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(_usage(ca=is_ca), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return certificate.public_bytes(Encoding.DER)

    def _begin(
        self,
        subject: x509.Name,
        public_key: Any,
        before: datetime = NOW - timedelta(days=30),
        after: datetime = NOW + timedelta(days=300),
    ) -> x509.CertificateBuilder:
        own = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(before)
            .not_valid_after(after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self.key, SHA256())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


@pytest.fixture(scope="module")
def corporate() -> Corporate:
    return Corporate()


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rule(corporate: Corporate, **changed: Any) -> X509Rule:
    given: dict[str, Any] = {
        "roots": (corporate.root,),
        "role": Role.DEVICE,
        "field": CertificateField.COMMON_NAME,
        "pattern": re.compile(r"(?P<name>[a-z0-9-]+)\.plant\.example"),
        **changed,
    }
    return X509Rule(**given)


def shown(leaf: bytes, key: Any, *, csr: bytes = CSR, domain: TrustDomain = DOMAIN) -> X509Evidence:
    data = x509_challenge(csr, leaf, domain)
    if isinstance(key, rsa.RSAPrivateKey):
        return X509Evidence((leaf,), key.sign(data, padding.PKCS1v15(), SHA256()))
    return X509Evidence((leaf,), key.sign(data, ec.ECDSA(SHA256())))


def examine(evidence: X509Evidence, *rules: X509Rule, at: datetime = NOW) -> VerifiedChain:
    found = X509Checker(rules, DOMAIN).examine(EnrollRequest(evidence, CSR), now=at)
    assert isinstance(found, VerifiedChain)
    return found


def refused(evidence: X509Evidence, *rules: X509Rule, at: datetime = NOW) -> FltrustError:
    with pytest.raises(FltrustError) as caught:
        examine(evidence, *rules, at=at)
    return caught.value


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_certificate_earns_the_name_that_the_rule_says_and_none_of_its_own(
    corporate: Corporate, key: ec.EllipticCurvePrivateKey, kind: str
) -> None:
    holder = key if kind == "ec" else rsa.generate_private_key(65_537, 2048)
    approval = examine(shown(corporate.issue(holder), holder), rule(corporate)).approval
    assert (approval.role, approval.name, approval.replace) == (Role.DEVICE, "scanner-3", False)
    assert approval.dns_names == ()


def test_a_copied_certificate_earns_nothing(corporate: Corporate, key: ec.EllipticCurvePrivateKey) -> None:
    leaf, thief = corporate.issue(key), ec.generate_private_key(ec.SECP256R1())
    assert isinstance(refused(shown(leaf, thief), rule(corporate)), SignatureInvalid)


def test_a_proof_is_for_one_request_one_certificate_and_one_domain(
    corporate: Corporate, key: ec.EllipticCurvePrivateKey
) -> None:
    leaf, other = corporate.issue(key), corporate.issue(key, cn="scanner-4.plant.example")
    for evidence in (
        shown(leaf, key, csr=b"another request"),
        shown(leaf, key, domain=TrustDomain("other.example")),
        X509Evidence((other,), shown(leaf, key).proof),
    ):
        assert isinstance(refused(evidence, rule(corporate)), SignatureInvalid)


def test_a_ca_that_no_rule_names_earns_nothing_even_under_the_same_name(
    corporate: Corporate, key: ec.EllipticCurvePrivateKey
) -> None:
    impostor = Corporate()
    assert refused(shown(impostor.issue(key), key), rule(corporate)).reason == "issuer-unknown"
    assert refused(shown(corporate.issue(key), key)).reason == "issuer-unknown"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "certificate-usage"),
        ({"cn": "scanner-3.evil.example"}, "no-rule"),
        ({"cn": "x.scanner-3.plant.example"}, "no-rule"),
        ({"cn": "scanner-3.plant.example\n"}, "no-rule"),
        ({"more": (x509.NameAttribute(NameOID.COMMON_NAME, "b.plant.example"),)}, "no-rule"),
        ({"before": NOW - timedelta(days=9), "after": NOW - timedelta(days=8)}, "issuer-unknown"),
        ({"before": NOW + timedelta(days=1), "after": NOW + timedelta(days=2)}, "issuer-unknown"),
    ],
)
def test_a_certificate_that_is_not_the_rules_earns_nothing(
    corporate: Corporate, key: ec.EllipticCurvePrivateKey, changed: dict[str, Any], reason: str
) -> None:
    error = refused(shown(corporate.issue(key, **changed), key), rule(corporate))
    assert isinstance(error, EvidenceRefused)
    assert error.reason == reason


def test_a_cas_certificate_is_no_machines(corporate: Corporate, key: ec.EllipticCurvePrivateKey) -> None:
    assert isinstance(refused(shown(corporate.issue(key, is_ca=True), key), rule(corporate)), EvidenceRefused)
    root = corporate.root.public_bytes(Encoding.DER)
    assert isinstance(refused(shown(root, corporate.key), rule(corporate)), EvidenceRefused)


def test_what_is_too_much_or_no_certificate_is_refused(
    corporate: Corporate, key: ec.EllipticCurvePrivateKey
) -> None:
    good = shown(corporate.issue(key), key)
    assert isinstance(refused(X509Evidence((), good.proof), rule(corporate)), Oversized)
    assert isinstance(refused(X509Evidence(good.chain * 7, good.proof), rule(corporate)), Oversized)
    assert isinstance(refused(X509Evidence(good.chain, bytes(2_000)), rule(corporate)), Oversized)
    assert isinstance(refused(X509Evidence((b"\x30\x80",), good.proof), rule(corporate)), Malformed)
    assert isinstance(refused(X509Evidence(good.chain, b""), rule(corporate)), SignatureInvalid)
