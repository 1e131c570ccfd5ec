"""The port that every private key stands behind."""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fltrust.identity import KeyId


class Signer(Protocol):
    """Signs with one private key that it never gives away; safe to call from many threads."""

    @property
    def public_key(self) -> EllipticCurvePublicKey: ...

    @property
    def key_id(self) -> KeyId:
        """SHA-256 of the public key's SubjectPublicKeyInfo."""
        ...

    def sign(self, data: bytes) -> bytes:
        """ECDSA over P-256 with SHA-256, DER-encoded (FIPS 186-5)."""
        ...
