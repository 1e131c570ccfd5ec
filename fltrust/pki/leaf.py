"""A leaf certificate, read once into facts and held against its role's profile.

Issuing checks what it made with this module, verifying checks what came with it: one rule for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.identity import CaKeyId, Serial, SpiffeId
from fltrust.keys.verify import is_p256
from fltrust.pki.leaf_keys import LeafKey, is_leaf_key, key_identifier
from fltrust.pki.profiles import BACKDATE, LEAF_PROFILES, LeafProfile

# Everything `cryptography` raises when it comes upon a hostile field, which it parses on first use.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are errors; a serial of zero gives one
)


_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*\Z")


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf says. Reading it proves nothing: only `verify_certificate` does."""

    certificate: x509.Certificate
    spiffe_id: SpiffeId
    serial: Serial
    public_key: LeafKey
    not_before: datetime
    not_after: datetime
    extensions: Mapping[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]]


def read_leaf(certificate: x509.Certificate) -> Leaf:
    """Take the facts out of a certificate, however hostile it is.

    Raises `CertificateRefused`: ``malformed`` when a field cannot be parsed, ``certificate-profile``
    when it is not of a kind of key that some profile allows, not signed by ECDSA with SHA-256, or does not
    name exactly one SPIFFE ID of ours.
    """
    try:
        extensions = {e.oid: e for e in certificate.extensions}
        serial = Serial(certificate.serial_number)
        public_key = certificate.public_key()
        signature_oid = certificate.signature_algorithm_oid
        der = certificate.public_bytes(serialization.Encoding.DER)
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (*PARSE_ERRORS, Malformed) as error:
        raise CertificateRefused(
            f"expected a well-formed X.509 certificate, found {type(error).__name__} on reading it",
            reason=Refusal.MALFORMED,
        ) from None
    if not is_leaf_key(public_key):
        refuse("expected a P-256 key in the certificate, found a key of another kind")
    spiffe_id = _spiffe_id(extensions)
    if not is_p256(public_key) and not LEAF_PROFILES[spiffe_id.role].may_be_rsa:
        refuse(f"expected a P-256 key in the certificate of {spiffe_id}, found a key of another kind")
    if signature_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        refuse("expected a certificate signed by ECDSA with SHA-256, found another algorithm")
    signature = certificate.signature
    if len(signature) > 72 or not der.endswith(bytes((0x03, len(signature) + 1, 0x00)) + signature):
        # The parser lets a signature's BIT STRING claim unused bits: the same certificate in other bytes.
        refuse("expected one ECDSA signature in whole octets, found another form", reason=Refusal.MALFORMED)
    return Leaf(
        certificate,
        spiffe_id,
        serial,
        public_key,
        not_before,
        not_after,
        extensions,
    )


def check_profile(leaf: Leaf) -> LeafProfile:
    """Return the profile of the leaf's role if the leaf keeps to it; refuse with ``certificate-profile``.

    KeyUsage, ExtendedKeyUsage and SANs must be exactly the profile's; cA false; life within its bounds.
    An empty subject is what we issue, but a subject is not read: the SPIFFE ID is the only name.
    """
    profile, who = LEAF_PROFILES[leaf.spiffe_id.role], leaf.spiffe_id
    constraints = leaf.extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if constraints is not None and constraints.value != x509.BasicConstraints(ca=False, path_length=None):
        refuse(f"expected cA:false in the certificate of {who}, found a CA")
    usage = leaf.extensions.get(ExtensionOID.KEY_USAGE)
    if usage is None or not usage.critical or usage.value != profile.key_usage:
        refuse(f"expected exactly critical digitalSignature as key usage of {who}, found another")
    extended = leaf.extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if (
        extended is None
        or not isinstance(extended.value, x509.ExtendedKeyUsage)
        or len(list(extended.value)) != len(profile.extended_key_usage)
        or set(extended.value) != profile.extended_key_usage
    ):
        refuse(f"expected exactly the extended key usages of a {profile.role} for {who}, found others")
    names, expected = alternative_names(leaf), expected_names(who)
    given = [name for name in names if name not in expected]
    if (
        len(given) + len(expected) != len(names)  # in any order: other CAs sort them by kind
        or len(set(names)) != len(names)
        or not profile.min_dns_names <= len(given) <= profile.max_dns_names
        or not all(isinstance(name, x509.DNSName) and is_dns_name(name.value) for name in given)
    ):
        refuse(f"expected the subject alternative names of a {profile.role} for {who}, found others")
    span = leaf.not_after - leaf.not_before
    if span > profile.max_lifetime + BACKDATE:
        refuse(f"expected {who} to live at most {profile.max_lifetime}, found {span - BACKDATE}")
    return profile


def expected_names(spiffe_id: SpiffeId, dns_names: Sequence[str] = ()) -> list[x509.GeneralName]:
    """Give the SANs of a certificate of `spiffe_id`, in order: its URI, its own DNS name if its role has
    one, then the DNS names that the record gives it."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    if LEAF_PROFILES[spiffe_id.role].has_dns_name:
        names.append(x509.DNSName(spiffe_id.dns_name))
    names.extend(x509.DNSName(name) for name in dns_names)
    return names


def is_dns_name(text: str) -> bool:
    """Whether this is a DNS name as a certificate carries it: lower-case LDH labels, no wildcard."""
    return len(text) <= 253 and _DNS_NAME.match(text) is not None


def alternative_names(leaf: Leaf) -> list[x509.GeneralName]:
    """Give the SANs that the certificate does have."""
    extension = leaf.extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value
    return list(extension) if isinstance(extension, x509.SubjectAlternativeName) else []


def subject_key_identifier(public_key: LeafKey) -> x509.SubjectKeyIdentifier:
    """Name a key as RFC 7093, section 2, method 1 does: the first 160 bits of SHA-256 of its point."""
    return key_identifier(public_key)


def ca_key_id(public_key: CertificatePublicKeyTypes) -> CaKeyId:
    """Name a CA's key by what it is, whatever the certificates under it say: for another kind of key than
    ours, by the first 160 bits of SHA-256 of its SubjectPublicKeyInfo."""
    if is_p256(public_key):
        return CaKeyId(subject_key_identifier(public_key).digest.hex())
    spki = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return CaKeyId(sha256(spki).digest()[:20].hex())


def refuse(message: str, *, reason: Refusal = Refusal.CERTIFICATE_PROFILE) -> NoReturn:
    """Raise `CertificateRefused`, for the profile unless told otherwise."""
    raise CertificateRefused(message, reason=reason)


def _spiffe_id(
    extensions: Mapping[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]],
) -> SpiffeId:
    found = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    names = list(found.value) if found and isinstance(found.value, x509.SubjectAlternativeName) else []
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(uris) != 1:
        refuse(f"expected exactly one URI as subject alternative name, found {len(uris)}")
    try:
        return SpiffeId.parse(uris[0])
    except Malformed as error:
        refuse(error.message)
