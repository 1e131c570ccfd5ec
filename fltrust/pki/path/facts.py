"""A certificate of a path, read once into facts. Reading it proves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from fltrust.errors import Refusal
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.path.names import NameKey, name_key

POLICY_MAPPINGS: Final = x509.ObjectIdentifier("2.5.29.33")
MAX_POLICIES: Final = 128
"""Policies, and policy mappings, in one certificate."""

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@asn1.sequence
class _Mapping:
    issuer: x509.ObjectIdentifier
    subject: x509.ObjectIdentifier


@asn1.sequence
class _Mappings:
    items: list[_Mapping]


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What one certificate says, as far as path validation asks."""

    certificate: x509.Certificate
    der: bytes
    subject: NameKey
    issuer: NameKey
    serial: int
    spki: bytes
    not_before: datetime
    not_after: datetime
    extensions: Mapping[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]]
    mappings: tuple[tuple[x509.ObjectIdentifier, x509.ObjectIdentifier], ...]

    @property
    def label(self) -> str:
        """How messages name it; subjects may be hostile and are not quoted."""
        return f"serial {self.serial:x}"[:48]

    @property
    def fingerprint(self) -> bytes:
        return sha256(self.der).digest()

    @property
    def is_self_issued(self) -> bool:
        return self.subject == self.issuer

    @property
    def is_ca(self) -> bool:
        constraints = self.get(x509.BasicConstraints)
        return constraints is not None and constraints.ca

    @property
    def path_length(self) -> int | None:
        constraints = self.get(x509.BasicConstraints)
        return None if constraints is None else constraints.path_length

    @property
    def subject_key_id(self) -> bytes | None:
        found = self.get(x509.SubjectKeyIdentifier)
        return None if found is None else found.digest

    @property
    def authority_key_id(self) -> bytes | None:
        found = self.get(x509.AuthorityKeyIdentifier)
        return None if found is None else found.key_identifier

    def get(self, kind: type[_Extension]) -> _Extension | None:
        """The value of an extension, or None where the certificate has none."""
        found = self.extensions.get(kind.oid)
        return found.value if found is not None and isinstance(found.value, kind) else None

    def is_critical(self, oid: x509.ObjectIdentifier) -> bool:
        found = self.extensions.get(oid)
        return found is not None and found.critical

    def may_sign(self, *, crls: bool = False) -> bool:
        """Whether its key usage lets it sign certificates, or CRLs; without one a CA may (4.2.1.3)."""
        usage = self.get(x509.KeyUsage)
        if usage is None:
            return self.is_ca
        return usage.crl_sign if crls else usage.key_cert_sign

    @property
    def policies(self) -> frozenset[x509.ObjectIdentifier] | None:
        found = self.get(x509.CertificatePolicies)
        return None if found is None else frozenset(policy.policy_identifier for policy in found)


def read_facts(item: bytes | x509.Certificate, *, limit: int) -> Facts:
    """Take the facts out of a certificate, however hostile it is.

    Raises `CertificateRefused`: ``oversized`` above `limit` bytes, before anything is parsed; ``malformed``
    where a field of it cannot be read.
    """
    der = item.public_bytes(Encoding.DER) if isinstance(item, x509.Certificate) else item
    if len(der) > limit:
        refuse(f"expected a certificate of at most {limit} bytes, got {len(der)}", reason=Refusal.OVERSIZED)
    try:
        certificate = item if isinstance(item, x509.Certificate) else x509.load_der_x509_certificate(der)
        extensions = {e.oid: e for e in certificate.extensions}
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Facts(
            certificate,
            der,
            name_key(certificate.subject),
            name_key(certificate.issuer),
            certificate.serial_number,
            spki,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            extensions,
            _mappings(extensions),
        )
    except PARSE_ERRORS as error:
        refuse(
            f"expected a well-formed certificate, found {type(error).__name__} on reading it",
            reason=Refusal.MALFORMED,
        )


def read_pool(items: Sequence[bytes | x509.Certificate], *, limit: int, count: int) -> tuple[Facts, ...]:
    """Read the certificates that a path may be built of; what cannot be read takes no part in any path.

    More than `count` are refused with ``oversized``, unread.
    """
    from fltrust.errors import CertificateRefused

    if len(items) > count:
        refuse(f"expected at most {count} certificates, got {len(items)}", reason=Refusal.OVERSIZED)
    found: dict[bytes, Facts] = {}
    for item in items:
        try:
            facts = read_facts(item, limit=limit)
        except CertificateRefused as error:
            if error.reason == Refusal.OVERSIZED:
                raise
            continue
        found.setdefault(facts.der, facts)
    return tuple(found.values())


def _mappings(
    extensions: Mapping[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]],
) -> tuple[tuple[x509.ObjectIdentifier, x509.ObjectIdentifier], ...]:
    policies = extensions.get(ExtensionOID.CERTIFICATE_POLICIES)
    if policies is not None and isinstance(policies.value, x509.CertificatePolicies):
        identifiers = [policy.policy_identifier for policy in policies.value]
        if len(identifiers) > MAX_POLICIES or len(set(identifiers)) != len(identifiers):
            raise ValueError("too many certificate policies, or one twice")
    found = extensions.get(POLICY_MAPPINGS)
    if found is None or not isinstance(found.value, x509.UnrecognizedExtension):
        return ()
    raw = found.value.value
    size = len(raw).to_bytes((len(raw).bit_length() + 7) // 8 or 1, "big")
    header = size if len(raw) < 0x80 else bytes((0x80 | len(size),)) + size
    pairs = asn1.decode_der(_Mappings, b"\x30" + header + raw).items
    if not 1 <= len(pairs) <= MAX_POLICIES:
        raise ValueError("no policy mappings, or too many")
    return tuple((pair.issuer, pair.subject) for pair in pairs)
