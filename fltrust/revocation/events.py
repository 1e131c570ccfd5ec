"""Trust events: the one gapless sequence that everything about standing is written in.

Every change of who is trusted takes the next epoch: enrollment, revocation, hold,
release, the opening and closing of a run, and a change of the CAs themselves. A
watcher that has applied epochs 1…n knows exactly what the coordinator knew at n.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fltrust.identity import CaKeyId, Epoch, KeyId, RunId, Serial, SpiffeId, TrustDomain


class EventKind(StrEnum):
    """What happened. A kind that is not listed here is refused, never skipped."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    RUN_OPENED = "run-opened"
    RUN_CLOSED = "run-closed"
    BUNDLE_CHANGED = "bundle-changed"
    """A trust domain has other roots, or issues under another CA: fetch its bundle."""
    ISSUER_REVOKED = "issuer-revoked"
    """Nothing that leads through this CA's key is good any more, whoever it names."""
    DOMAIN_HELD = "domain-held"
    """Nobody of a foreign trust domain is let in: what its own coordinator says is not heard, or the
    federation with it was ended."""
    DOMAIN_RELEASED = "domain-released"
    """A foreign trust domain is heard again. Who of it is on hold or revoked stays so."""
    REDACTED = "redacted"
    """An event that this watcher may not read; it keeps the sequence without a gap."""


class RevocationReason(StrEnum):
    """CRLReason of RFC 5280, 5.3.1, without those that mean something else here."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"


@dataclass(frozen=True, slots=True)
class TrustEvent:
    """One epoch of the feed.

    `subject` is set for enrollments, revocations, holds and releases.
    A certificate or key that was revoked stays revoked when its identity is
    enrolled anew; a hold ends with RELEASED.
    """

    epoch: Epoch
    kind: EventKind
    at: datetime
    actor: SpiffeId | None = None
    subject: SpiffeId | None = None
    identity_wide: bool = False
    """REVOKED/HELD/RELEASED: the whole identity, not only the certificates and keys listed."""
    serials: tuple[Serial, ...] = ()
    """Certificates named by the event; of an identity-wide one, all that had not expired."""
    keys: tuple[KeyId, ...] = ()
    """Certificate keys named by the event."""
    node_key: bytes | None = None
    """ENROLLED: SubjectPublicKeyInfo (DER) of the participant's Flower node key."""
    run_id: RunId | None = None
    reason: RevocationReason | None = None
    compromised_since: datetime | None = None
    domain: TrustDomain | None = None
    """BUNDLE_CHANGED, ISSUER_REVOKED: whose CA. DOMAIN_HELD, DOMAIN_RELEASED: the domain itself."""
    sequence: int | None = None
    """BUNDLE_CHANGED: the sequence of its bundle from now on."""
    issuer: CaKeyId | None = None
    """ISSUER_REVOKED: the CA's key. BUNDLE_CHANGED: the key that issues from now on, where it is told."""


@dataclass(frozen=True, slots=True)
class FeedHeartbeat:
    """Sent when nothing happens: up to `epoch` there is nothing that the watcher has not seen."""

    epoch: Epoch
    at: datetime


FeedItem = TrustEvent | FeedHeartbeat
