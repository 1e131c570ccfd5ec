"""Endorsement certificates of TPMs: a chain from the manufacturer that says "this key is in a TPM of ours".

Their profile is the TCG's (EK Credential Profile 2.x), not ours: RSA keys, critical extensions of their own,
lives without end. What is demanded here is what the evidence rests on, and is written down below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.errors import EvidenceRefused, Malformed, Oversized
from fltrust.identity import KeyId
from fltrust.pki.leaf import PARSE_ERRORS

MAX_EK_CHAIN = 5
MAX_EK_CERTIFICATE = 8 * 1024
_EK_PURPOSE = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The key of a genuine TPM, by its manufacturer's word. Only its TPM can decrypt to it."""

    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    key_id: KeyId


def verify_endorsement(
    chain: Sequence[bytes], *, roots: Sequence[x509.Certificate], at: datetime
) -> EndorsementKey:
    """Verify an endorsement certificate and return its key, or raise `EvidenceRefused`.

    1. One to five certificates of at most 8 KiB, the endorsement certificate first.
    2. Each is signed by the next, and the last one by a root that the operator trusts, or is one.
    3. All are valid at `at`; every one but the first is a CA that may sign certificates.
    4. The first is no CA, and says that it is an endorsement certificate (tcg-kp-EKCertificate).
    5. Its key is RSA of 2048 bits or on P-256: what TPMs have, and what credentials are made for here.
    """
    # 1.
    if not 1 <= len(chain) <= MAX_EK_CHAIN:
        raise Malformed(f"expected 1 to {MAX_EK_CHAIN} certificates of a TPM's maker, got {len(chain)}")
    path = [_parsed(der) for der in chain]
    # 2.
    if path[-1] not in roots:
        path.append(_root_of(path[-1], roots))
    for child, parent in pairwise(path):
        if not _is_signed(child, parent):
            raise _refused("expected each certificate to be signed by the next, one is not")
    # 3.
    for place, certificate in enumerate(path):
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise _refused("expected certificates that are valid now, one is not")
        if place and not _is_ca(certificate, below=place - 1):
            raise _refused("expected CAs above the endorsement certificate, found something else")
    # 4.
    leaf = path[0]
    if len(path) < 2 or not _is_endorsement(leaf):
        raise _refused("expected an endorsement certificate of a TPM, got another")
    # 5.
    key = leaf.public_key()
    is_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size == 2048 and key.public_numbers().e == 65537
    is_ec = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not (is_rsa or is_ec):
        raise _refused("expected an endorsement key of RSA 2048 or P-256, got another")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return EndorsementKey(key, KeyId.of_spki(spki))


def _parsed(der: bytes) -> x509.Certificate:
    if len(der) > MAX_EK_CERTIFICATE:
        raise Oversized(f"expected a certificate of at most {MAX_EK_CERTIFICATE} bytes, got {len(der)}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        list(certificate.extensions)
        _ = (certificate.issuer, certificate.subject, certificate.not_valid_after_utc)
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate of a TPM's maker, got {type(error).__name__} on reading it"
        ) from None
    return certificate


def _root_of(certificate: x509.Certificate, roots: Sequence[x509.Certificate]) -> x509.Certificate:
    for root in roots:
        if _is_signed(certificate, root):
            return root
    raise _refused("expected a TPM whose maker the operator trusts, got another's")


def _is_signed(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_ca(certificate: x509.Certificate, *, below: int) -> bool:
    """Whether it is a CA that may sign, with at most `below` CAs between it and the first certificate."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    length = constraints.path_length
    return constraints.ca and usage.key_cert_sign and (length is None or length >= below)


def _is_endorsement(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        return _EK_PURPOSE in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False


def _refused(message: str) -> EvidenceRefused:
    return EvidenceRefused(message, reason="tpm-endorsement")
