"""Evidence of the third kind: a certificate of a CA that the operator trusts, and a signature by its key.

The old key signs the new request, so a certificate that was only copied earns nothing. What a certificate
earns is said by a rule in `coordinator.toml`: one field of it, through a pattern, gives the name. Its
alternative names are never carried over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fltrust.enrollment.ports import TokenStore
from fltrust.enrollment.types import Approval, EnrollRequest, Evidence
from fltrust.errors import EvidenceRefused, FltrustError, Malformed, Oversized
from fltrust.identity import Name, Role, TrustDomain
from fltrust.keys.verify import verify_with
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.verify import MAX_CERTIFICATE

KIND = "x509"
MAX_CHAIN = 6
MAX_PROOF = 1024
MAX_FIELD = 512
_CONTEXT = b"fltrust-x509-evidence-v1\x00"


class CertificateField(StrEnum):
    """What of a certificate a rule may read a name from; it must be there exactly once."""

    COMMON_NAME = "subject-cn"
    SERIAL_NUMBER = "subject-serial-number"
    DNS = "san-dns"
    URI = "san-uri"
    EMAIL = "san-email"


@dataclass(frozen=True, slots=True)
class X509Evidence:
    """A chain (DER, leaf first, with or without the root), and the leaf key's signature over
    `x509_challenge`: ECDSA with the curve's own SHA-2, RSA (PKCS #1 v1.5, SHA-256), or Ed25519."""

    chain: tuple[bytes, ...]
    proof: bytes

    def binding(self) -> bytes:
        # Not the proof: another signature over the same is the same evidence.
        return b"x509-chain\x00" + b"".join(sha256(der).digest() for der in self.chain[:1])

    def __repr__(self) -> str:
        return f"X509Evidence({len(self.chain)} certificates)"


def x509_challenge(csr_der: bytes, leaf_der: bytes, domain: TrustDomain) -> bytes:
    """Give the bytes that the old certificate's key signs: for this request, certificate and domain."""
    return b"".join((_CONTEXT, sha256(csr_der).digest(), sha256(leaf_der).digest(), domain.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Rule:
    """Whose certificates earn which name, in which role.

    The name is the group ``name`` of `pattern`, which must match the whole of `field`; `prefix` goes before
    it. `extended_key_usage` is one that the certificate must be for; a CA issues for many purposes.
    """

    roots: tuple[x509.Certificate, ...] = field(repr=False)
    role: Role
    field: CertificateField
    pattern: re.Pattern[str]
    prefix: str = ""
    extended_key_usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A chain that was verified with the proof, and the approval it earns."""

    approval: Approval

    def binding(self) -> bytes:
        return b"x509-verified\x00" + str(self.approval.name).encode()


class X509Checker:
    """Judges certificates by rules, in the order in which they stand; the first that fits decides.

    Whether a certificate was revoked by its CA is not asked: nobody here follows that CA's lists. A rule
    trusts a CA for first enrollment alone, and the name it gives is enrolled once.
    """

    kind = KIND

    def __init__(self, rules: Sequence[X509Rule], domain: TrustDomain) -> None:
        self._rules = tuple(rules)
        self._domain = domain

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, X509Evidence | VerifiedChain)

    def examine(self, request: EnrollRequest, *, now: datetime) -> Evidence:
        """Verify a chain and its proof.

        1. 1 to `MAX_CHAIN` certificates within bounds that parse; a proof within bounds.
        2. The leaf's key signed `x509_challenge` of this request.
        3. A rule's roots lead to the leaf now (RFC 5280, section 6), which is for the rule's usage and is
           no CA.
        4. The rule's field stands in it exactly once and gives a name.

        Raises `Oversized`, `Malformed`, `SignatureInvalid` or `EvidenceRefused`.
        """
        evidence = request.evidence
        if not isinstance(evidence, X509Evidence):
            raise Malformed("expected a chain of certificates as evidence")
        # 1.
        chain = _parse(evidence)
        # 2.
        verify_with(
            chain[0].public_key(),
            evidence.proof,
            x509_challenge(request.csr_der, evidence.chain[0], self._domain),
        )
        # 3. and 4.
        refusal: FltrustError | None = None
        for rule in self._rules:
            try:
                return VerifiedChain(_approve_by(rule, chain, now))
            except EvidenceRefused as error:  # another rule may fit
                refusal = refusal or error
        raise refusal or EvidenceRefused(
            "expected a certificate of a CA that this coordinator trusts for enrollment, there is none",
            reason="issuer-unknown",
            hint="an operator adds a rule under [[evidence.x509]] in coordinator.toml",
        )

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """Say what was earned. Nothing is spent: the proof is for one key, which is certified once."""
        del tokens, now
        if not isinstance(evidence, VerifiedChain):
            raise Malformed("expected a chain that was examined")
        return evidence.approval


def _parse(evidence: X509Evidence) -> list[x509.Certificate]:
    if not 1 <= len(evidence.chain) <= MAX_CHAIN:
        raise Oversized(f"expected 1 to {MAX_CHAIN} certificates, got {len(evidence.chain)}")
    if len(evidence.proof) > MAX_PROOF or any(len(der) > MAX_CERTIFICATE for der in evidence.chain):
        raise Oversized(f"expected certificates of at most {MAX_CERTIFICATE} bytes and a proof, got more")
    try:
        chain = [x509.load_der_x509_certificate(der) for der in evidence.chain]
        for certificate in chain:
            _ = certificate.public_key(), certificate.subject, certificate.extensions  # parsed on first use
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected certificates in DER, found {type(error).__name__} on reading one"
        ) from None
    return chain


def _approve_by(rule: X509Rule, chain: Sequence[x509.Certificate], now: datetime) -> Approval:
    # 3.
    leaf_rules = ExtensionPolicy.permit_all().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
    )
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(list(rule.roots)))
            .time(now)
            .max_chain_depth(MAX_CHAIN - 1)
            .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf_rules)
            .build_client_verifier()
        )
        verifier.verify(chain[0], list(chain[1:]))
    except (VerificationError, *PARSE_ERRORS) as error:
        why = str(error).partition(" (encountered")[0][:160]
        raise EvidenceRefused(
            f"expected a certificate that leads to a root of the rule for {rule.role}, found none: {why}",
            reason="issuer-unknown",
        ) from None
    extensions = {extension.oid: extension.value for extension in chain[0].extensions}
    usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usage, x509.ExtendedKeyUsage) or rule.extended_key_usage not in set(usage):
        raise EvidenceRefused(
            f"expected a certificate for {rule.extended_key_usage.dotted_string}, got one for another use",
            reason="certificate-usage",
        )
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise EvidenceRefused("expected the certificate of a machine, got a CA's", reason="certificate-usage")
    # 4.
    texts = _texts(rule.field, chain[0], extensions)
    found = rule.pattern.fullmatch(texts[0]) if len(texts) == 1 and len(texts[0]) <= MAX_FIELD else None
    if found is None:
        raise EvidenceRefused(
            f"expected exactly one {rule.field} that the rule for {rule.role} gives a name, found none",
            reason="no-rule",
            hint="compare the certificate with the rule's field and pattern in coordinator.toml",
        )
    fingerprint = sha256(chain[0].public_bytes(Encoding.DER)).hexdigest()
    said = {rule.field.value: texts[0], "certificate": f"sha256:{fingerprint}"}
    return Approval(rule.role, Name(rule.prefix + found.group("name")), replace=False, claims=said)


def _texts(
    which: CertificateField,
    leaf: x509.Certificate,
    extensions: dict[x509.ObjectIdentifier, x509.ExtensionType],
) -> list[str]:
    match which:
        case CertificateField.COMMON_NAME | CertificateField.SERIAL_NUMBER:
            oid = NameOID.COMMON_NAME if which is CertificateField.COMMON_NAME else NameOID.SERIAL_NUMBER
            return [str(value.value) for value in leaf.subject.get_attributes_for_oid(oid)]
        case _:
            kinds = {
                CertificateField.DNS: x509.DNSName,
                CertificateField.URI: x509.UniformResourceIdentifier,
                CertificateField.EMAIL: x509.RFC822Name,
            }
            names = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
            if not isinstance(names, x509.SubjectAlternativeName):
                return []
            return [str(name.value) for name in names if isinstance(name, kinds[which])]
