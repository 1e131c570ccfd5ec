"""Signatures, checked: the other half of the `Signer` port."""

from __future__ import annotations

from typing import TypeGuard

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from fltrust.errors import SignatureInvalid

_ALGORITHM = ec.ECDSA(SHA256())
_MAX_SIGNATURE = 72  # SEQUENCE of two INTEGERs of at most 33 octets


def is_p256(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Say whether `key` is a public key on P-256, the one kind every room accepts."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def verify_signature(public_key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    """Return only if `signature` is `public_key`'s over `data`; raise `SignatureInvalid` otherwise.

    ECDSA over P-256 with SHA-256, DER-encoded (FIPS 186-5), the form `Signer.sign` gives.
    A key of another kind or curve, an oversized or badly encoded signature is refused the same way.
    """
    if not is_p256(public_key):
        raise SignatureInvalid("expected a signature by a P-256 key, got a key of another kind")
    if len(signature) > _MAX_SIGNATURE:
        raise SignatureInvalid(
            f"expected an ECDSA signature of at most {_MAX_SIGNATURE} bytes, got {len(signature)}"
        )
    try:
        public_key.verify(signature, data, _ALGORITHM)
    except InvalidSignature:
        raise SignatureInvalid("expected a signature by the stated key over this data, it is not") from None
