"""What one end of an mTLS connection needs: its chain, its key and the roots it trusts."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.types import TrustBundle


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate in use. `chain_pem` is leaf first, without the root; `key_pem` is PKCS#8, not encrypted.

    gRPC takes keys in this form alone, so this lives in memory only, in the process that owns the key.
    """

    chain_pem: bytes
    key_pem: bytes
    bundle: TrustBundle

    @property
    def roots_pem(self) -> bytes:
        return bundle_to_pem(self.bundle)

    def __repr__(self) -> str:
        return f"Credentials(domain={self.bundle.domain!r}, key=…)"
