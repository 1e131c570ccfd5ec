"""Roots by trust domain: our own, and those of domains that ours federates with.

A certificate claims a trust domain, and the claim selects the roots: what a foreign CA signs can lead to its
own roots alone, and so can name nobody of another domain. What a foreign identity may be here is bounded by
its role beside that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.errors import Conflict, FltrustError, Refusal
from fltrust.identity import Role, TrustDomain
from fltrust.pki.leaf import PARSE_ERRORS, read_leaf, refuse
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import MAX_CERTIFICATE, Purpose, verify_certificate

FOREIGN_ROLES = frozenset({Role.PARTICIPANT})
"""What an identity of another domain may be: never an operator, aggregator, signer or coordinator of ours."""


@dataclass(frozen=True, slots=True)
class TrustSet:
    """The bundles that are trusted, one for each domain. `foreign` names no domain twice, and not our own."""

    home: TrustBundle
    foreign: tuple[TrustBundle, ...] = ()
    _by_domain: dict[TrustDomain, TrustBundle] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_domain = {bundle.domain: bundle for bundle in self.foreign}
        if len(by_domain) != len(self.foreign) or self.home.domain in by_domain:
            raise Conflict(f"expected one bundle for each domain beside {self.home.domain}, got two of one")
        object.__setattr__(self, "_by_domain", by_domain)

    @classmethod
    def of(cls, home: TrustBundle, foreign: Iterable[TrustBundle] = ()) -> TrustSet:
        return cls(home, tuple(foreign))

    def claimed_by(self, chain: Sequence[bytes | x509.Certificate]) -> TrustBundle:
        """The roots to hold a chain against, by the domain that its leaf claims; our own for a claim that
        cannot be read or is of a domain that is not known: they will refuse it."""
        if not self._by_domain or not chain:
            return self.home
        claimed = claimed_domain(chain[0])
        return self.home if claimed is None else self._by_domain.get(claimed, self.home)


def claimed_domain(leaf: bytes | x509.Certificate) -> TrustDomain | None:
    """The trust domain that a leaf claims to be of. A claim: it selects roots, and proves nothing."""
    if isinstance(leaf, bytes) and len(leaf) > MAX_CERTIFICATE:
        return None
    try:
        certificate = x509.load_der_x509_certificate(leaf) if isinstance(leaf, bytes) else leaf
        return read_leaf(certificate).spiffe_id.domain
    except (FltrustError, *PARSE_ERRORS):
        return None


def verify_among(
    chain: Sequence[bytes | x509.Certificate],
    *,
    trust: TrustSet,
    at: datetime,
    expect_role: Role | None = None,
    purpose: Purpose | None = None,
    foreign_roles: frozenset[Role] = FOREIGN_ROLES,
) -> VerifiedCertificate:
    """Return the verified X.509-SVID at the head of `chain`, under the roots of its own domain.

    1. The domain that the leaf claims selects one bundle; that of a domain which is not known is refused with
       ``wrong-domain``.
    2. The chain verifies against that bundle alone (`verify_certificate`).
    3. A foreign identity is of one of `foreign_roles`, else ``wrong-role``.
    """
    bundle = trust.claimed_by(chain)  # 1
    verified = verify_certificate(chain, bundle=bundle, at=at, expect_role=expect_role, purpose=purpose)  # 2
    who = verified.spiffe_id
    if who.domain != trust.home.domain and who.role not in foreign_roles:  # 3
        refuse(
            f"expected {', '.join(sorted(foreign_roles))} of a foreign domain, got {who}",
            reason=Refusal.WRONG_ROLE,
        )
    return verified


def all_roots(trust: TrustSet) -> bytes:
    """Every root in PEM, for a TLS library: it lets a handshake happen. Who it is, `verify_among` decides."""
    seen: dict[bytes, None] = {}
    for bundle in (trust.home, *trust.foreign):
        for root in bundle.roots:
            seen[root.public_bytes(Encoding.PEM)] = None
    return b"".join(seen)
