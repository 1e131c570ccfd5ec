"""What one end of a mutual TLS connection shows and trusts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fltrust.keys.signer import Signer
from fltrust.pki.types import TrustBundle


class TlsMaterial(Protocol):
    """A certificate in use, its key, and the roots trusted beside it; they never change apart.

    gRPC takes keys as PEM alone, so `key_pem` is the secret itself: it stays in memory, in the
    process that owns the key.
    """

    @property
    def chain_pem(self) -> bytes:
        """Leaf first, without the root."""
        ...

    @property
    def key_pem(self) -> bytes:
        """PKCS#8, not encrypted. `Refused` where the key is in hardware."""
        ...

    @property
    def hardware_signer(self) -> Signer | None:
        """The key, where it is in hardware and signs there; None where `key_pem` gives it."""
        ...

    @property
    def bundle(self) -> TrustBundle: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """`TlsMaterial` held as plain values."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle: TrustBundle
    hardware_signer: Signer | None = None
