"""The kinds of key that a certificate of ours may be for: P-256, and RSA where a role's profile says so.

RSA is for devices that speak SCEP, whose answers are encrypted to the device's key. It signs nothing that
this trust domain reads: statements, operations and models are of P-256 keys, whatever a profile says.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TypeAlias, TypeGuard

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.keys.verify import is_p256

LeafKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
MIN_RSA, MAX_RSA = 2048, 4096
RSA_EXPONENT = 65_537


def is_rsa(key: object) -> TypeGuard[rsa.RSAPublicKey]:
    """Whether this is an RSA key of 2048 to 4096 bits with the usual exponent."""
    return (
        isinstance(key, rsa.RSAPublicKey)
        and MIN_RSA <= key.key_size <= MAX_RSA
        and key.public_numbers().e == RSA_EXPONENT
    )


def is_leaf_key(key: object) -> TypeGuard[LeafKey]:
    """Whether any profile may allow this key."""
    return is_p256(key) or is_rsa(key)


def key_identifier(key: LeafKey) -> x509.SubjectKeyIdentifier:
    """Name a key as RFC 7093, section 2, method 1 does: 160 bits of SHA-256 of what its BIT STRING holds."""
    if isinstance(key, rsa.RSAPublicKey):
        content = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    else:
        content = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return x509.SubjectKeyIdentifier(sha256(content).digest()[:20])
