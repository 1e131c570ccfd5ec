"""Signatures, checked: the other half of the `Signer` port."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from fltrust.errors import SignatureInvalid

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
"""A key that signatures of strangers may be by: leaves, logs and roots that are not ours."""

_ALGORITHM = ec.ECDSA(SHA256())
_CURVES: dict[type[ec.EllipticCurve], HashAlgorithm] = {
    ec.SECP256R1: SHA256(),
    ec.SECP384R1: SHA384(),
    ec.SECP521R1: SHA512(),
}
_MIN_RSA, _MAX_RSA = 2048, 8192
_MAX_ANY_SIGNATURE = _MAX_RSA // 8
_MAX_SIGNATURE = 72  # SEQUENCE of two INTEGERs of at most 33 octets


def is_p256(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Say whether `key` is a public key on P-256, the one kind every room accepts."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def is_public_key(key: object) -> TypeGuard[PublicKey]:
    """Say whether `verify_with` knows this kind of key: P-256, P-384, P-521, Ed25519, RSA of 2048 to 8192."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return type(key.curve) in _CURVES
    if isinstance(key, rsa.RSAPublicKey):
        return _MIN_RSA <= key.key_size <= _MAX_RSA
    return isinstance(key, ed25519.Ed25519PublicKey)


def verify_with(
    public_key: object, signature: bytes, data: bytes, *, prehash: HashAlgorithm | None = None
) -> None:
    """Return only if `signature` is `public_key`'s over `data`; raise `SignatureInvalid` otherwise.

    By the kind of key, as Sigstore's algorithm registry has it: ECDSA with the curve's own SHA-2 (or
    `prehash`), RSA with PKCS #1 v1.5 and SHA-256, pure Ed25519. Any other key is refused the same way.
    What is ours is P-256 and checked by `verify_signature`, which accepts nothing else.
    """
    if not is_public_key(public_key):
        raise SignatureInvalid("expected a signature by a key of a known kind, got another")
    if len(signature) > _MAX_ANY_SIGNATURE:
        raise SignatureInvalid(
            f"expected a signature of at most {_MAX_ANY_SIGNATURE} bytes, got {len(signature)}"
        )
    try:
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(signature, data, ec.ECDSA(prehash or _CURVES[type(public_key.curve)]))
        elif isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, data, padding.PKCS1v15(), prehash or SHA256())
        else:
            public_key.verify(signature, data)
    except InvalidSignature:
        raise SignatureInvalid("expected a signature by the stated key over this data, it is not") from None


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
