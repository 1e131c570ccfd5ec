"""Which algorithms go together in SCEP. A message is of one suite whole: what mixes two is refused.

A client that signs with SHA-256 and encrypts in DES knows better than DES, and was talked into it: GetCACaps
is not authenticated, so whoever is on the way may change what it says (RFC 8894, 7.5).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fltrust.protocols.scep import asn1 as scep


@dataclass(frozen=True, slots=True)
class Suite:
    """One digest, for signed attributes and signature, and the ciphers that an envelope may have with it."""

    digest: x509.ObjectIdentifier
    hash: hashes.HashAlgorithm
    signatures: Set[x509.ObjectIdentifier]
    ciphers: Set[x509.ObjectIdentifier]
    capabilities: tuple[str, ...]
    """What GetCACaps says for it."""

    def digest_of(self, data: bytes) -> bytes:
        """The suite's digest of some bytes."""
        made = hashes.Hash(self.hash)
        made.update(data)
        return made.finalize()


MODERN: Final = Suite(
    digest=scep.SHA256,
    hash=hashes.SHA256(),
    signatures=frozenset({scep.RSA_ENCRYPTION, scep.RSA_WITH_SHA256}),
    ciphers=scep.AES_CBC,
    capabilities=("AES", "POSTPKIOperation", "Renewal", "SHA-256", "SCEPStandard"),
)
LEGACY: Final = Suite(
    digest=scep.SHA1,
    hash=hashes.SHA1(),  # noqa: S303 - what the clients of this suite sign with; off unless switched on
    signatures=frozenset({scep.RSA_ENCRYPTION, scep.RSA_WITH_SHA1}),
    ciphers=frozenset({scep.DES_CBC, scep.DES_EDE3_CBC}),
    # Single DES has no word. A client that knows triple DES is better off with it.
    capabilities=("DES3", "SHA-1"),
)
"""For devices that know nothing else, where an operator wants them all the same (``scep-legacy``)."""
