"""What travels out of this room: a certificate that was verified, and the roots it was verified against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from fltrust.identity import CaKeyId, Digest, KeyId, Serial, SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots of one trust domain. `sequence` grows with every change (SPIFFE Trust Domain, section 4)."""

    domain: TrustDomain
    roots: tuple[x509.Certificate, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """An X.509-SVID whose path, time, domain and profile were checked. Revocation is judged separately.

    `chain` is leaf first, without the root; `fingerprint` is the SHA-256 of the leaf's DER.
    """

    spiffe_id: SpiffeId
    serial: Serial
    key_id: KeyId
    not_before: datetime
    not_after: datetime
    fingerprint: Digest
    chain: tuple[x509.Certificate, ...]
    issuers: tuple[CaKeyId, ...]
    """The keys of the CAs that the path leads through, the leaf's own issuer first, the root last."""

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class TrustedChain:
    """A certificate chain that is trusted from `start` to `end`, both inclusive: the last one is the anchor.

    For a CA what comes before the anchor are intermediates; for a timestamp authority the first one is
    the authority's own.
    """

    certificates: tuple[x509.Certificate, ...]
    start: datetime
    end: datetime | None = None

    def covers(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at <= self.end)

    @property
    def anchor(self) -> x509.Certificate:
        return self.certificates[-1]
