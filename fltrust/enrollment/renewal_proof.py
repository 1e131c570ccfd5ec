"""Proof that the holder of a certificate asks for the next one, for requests that somebody else carries."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from cryptography import x509

from fltrust.enrollment.ports import CertificateRecord
from fltrust.errors import SignatureInvalid
from fltrust.identity import SpiffeId
from fltrust.keys.verify import is_p256, verify_signature

_CONTEXT = b"fltrust-renewal-proof-v1\x00"


def renewal_challenge(csr_der: bytes, who: SpiffeId) -> bytes:
    """Give the bytes that the present certificate's key signs (ECDSA over P-256 with SHA-256)."""
    return _CONTEXT + str(who).encode() + b"\x00" + sha256(csr_der).digest()


def check_renewal_proof(
    proof: bytes, *, csr_der: bytes, who: SpiffeId, certificates: Iterable[CertificateRecord]
) -> None:
    """Return only if the key of one of these certificates, newest last, signed this request."""
    challenge = renewal_challenge(csr_der, who)
    for record in reversed(list(certificates)[-4:]):
        key = x509.load_der_x509_certificate(record.der).public_key()
        if not is_p256(key):
            continue
        try:
            verify_signature(key, proof, challenge)
        except SignatureInvalid:
            continue
        return
    raise SignatureInvalid(
        f"expected the new request of {who} to be signed by the key of a certificate in force, it is not",
        hint="make it where the present key is, before the certificate runs out",
    )
