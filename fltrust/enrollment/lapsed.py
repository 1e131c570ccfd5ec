"""Evidence of a node that slept: its own certificate, which ran out meanwhile, and a signature by its key.

A node that was off over a weekend comes back by itself, within a grace that the operator sets, if nothing
has happened to its name: it still stands well, the certificate is on record and is the last that it was
issued. After that, or to come back from a revocation, it needs an operator's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from fltrust.identity import TrustDomain

KIND = "lapsed-certificate"
MAX_PROOF = 256
_CONTEXT = b"fltrust-lapsed-certificate-v1\x00"


@dataclass(frozen=True, slots=True)
class LapsedEvidence:
    """The chain (DER, leaf first), and the leaf key's ECDSA signature over `lapsed_challenge`."""

    chain: tuple[bytes, ...]
    proof: bytes

    def binding(self) -> bytes:
        return b"lapsed-certificate\x00" + b"".join(sha256(der).digest() for der in self.chain[:1])


def lapsed_challenge(csr_der: bytes, leaf_der: bytes, domain: TrustDomain) -> bytes:
    """Give the bytes that the old certificate's key signs: for this request, certificate and domain."""
    return b"".join((_CONTEXT, sha256(csr_der).digest(), sha256(leaf_der).digest(), domain.encode()))
