"""What path validation is asked, with what, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509

ANY_POLICY: Final = x509.ObjectIdentifier("2.5.29.32.0")

PeerName = x509.DNSName | x509.IPAddress | x509.RFC822Name | x509.UniformResourceIdentifier
"""A name that the caller wants to have reached: the leaf must carry it."""


class RevocationMode(StrEnum):
    """What a relying party does where the status of a certificate is not known for certain.

    Whatever the mode, what authentic evidence calls revoked is refused.
    """

    HARD_FAIL = "hard-fail"
    """Every certificate below the anchor must be proven good by evidence that is fresh at the time."""
    SOFT_FAIL = "soft-fail"
    """As hard-fail, but evidence may be over since `grace` at most; then the answer says so."""
    BEST_EFFORT = "best-effort"
    """Evidence is used where there is some; where there is none, the answer says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLimits:
    """How much a validation may cost: what is past a bound is refused with ``oversized``, mostly unparsed."""

    certificates: int = 64
    """Certificates beside the leaf and the anchors."""
    certificate_bytes: int = 16 * 1024
    path_length: int = 10
    """Certificates in a path, leaf and anchor included."""
    paths: int = 64
    """Paths to an anchor that are tried before giving up."""
    steps: int = 5_000
    """Certificates that are put above another on the way to a path."""
    signatures: int = 512
    """Signatures that are checked, those of CRLs and OCSP answers included."""
    policy_nodes: int = 1_000
    name_comparisons: int = 20_000
    """Comparisons of a name with a constraint, over a whole path."""
    crls: int = 64
    crl_bytes: int = 64 * 1024 * 1024
    """Bytes of all CRLs together."""
    ocsp_responses: int = 64
    ocsp_bytes: int = 64 * 1024
    """Bytes of one OCSP answer."""
    signer_depth: int = 3
    """How deep the path of a CRL's signer may again depend on a CRL with a signer of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPolicy:
    """What the relying party demands (RFC 5280, 6.1.1), and how it judges revocation.

    `purpose` is an extended key usage that the leaf, and every CA that restricts it, must allow.
    `strict` also refuses what a conforming CA must not issue (RFC 5280, section 4), where a validator need
    not look: missing key identifiers, basic constraints that are not critical, serials that are not positive…
    """

    purpose: x509.ObjectIdentifier | None = None
    peer: PeerName | None = None
    policies: frozenset[x509.ObjectIdentifier] = frozenset({ANY_POLICY})
    require_explicit_policy: bool = False
    inhibit_policy_mapping: bool = False
    inhibit_any_policy: bool = False
    strict: bool = True
    revocation: RevocationMode = RevocationMode.HARD_FAIL
    grace: timedelta = timedelta(hours=24)
    """How long after its next update evidence still counts under soft-fail."""
    limits: PathLimits = field(default_factory=PathLimits)


class StatusKind(StrEnum):
    """What is known of one certificate that is not revoked."""

    GOOD = "good"
    STALE = "good-but-stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """What the evidence says of one certificate of the path."""

    kind: StatusKind
    source: str
    """``crl``, ``delta-crl``, ``ocsp``, or several joined by '+'; empty where there is none."""
    fresh_until: datetime | None
    """When the evidence is over; None where there is none."""


@dataclass(frozen=True, slots=True)
class ValidatedPath:
    """A path that holds at `at`: leaf first, the trust anchor last.

    `policies` is the user-constrained policy set (RFC 5280, 6.1.6), with anyPolicy in it where every policy
    is valid. `statuses` has one entry for each certificate but the anchor. `second_opinion` tells whether
    `cryptography`'s verifier was able to judge the path, too; where it was, it agreed.
    """

    certificates: tuple[x509.Certificate, ...]
    at: datetime
    policies: frozenset[x509.ObjectIdentifier]
    statuses: tuple[CertificateStatus, ...]
    second_opinion: bool
    warnings: tuple[str, ...] = ()

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def anchor(self) -> x509.Certificate:
        return self.certificates[-1]
