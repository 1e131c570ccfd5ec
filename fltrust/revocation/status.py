"""What relying parties are told of certificates that stand badly: one record each, kept for good.

The trust feed says it to everybody of ours by epoch; CRLs and OCSP say it to everybody else by serial. This
is the bridge: an event and what was said before in, records out. Pure, and the same event twice changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntFlag, StrEnum
from typing import Protocol

from fltrust.identity import CaKeyId, Epoch, KeyId, Serial, SpiffeId, TrustDomain
from fltrust.pki.crl import CrlReason, encode_entry
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent


class StatusState(StrEnum):
    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    """Was on hold and is good again; kept for delta CRLs, and for whoever asks later."""


class HeldBy(IntFlag):
    """What a certificate is on hold by; it is good again when all of it has ended."""

    NOTHING = 0
    SERIAL = 1
    KEY = 2
    IDENTITY = 4


REASONS: Mapping[RevocationReason, CrlReason] = {
    RevocationReason.UNSPECIFIED: CrlReason.UNSPECIFIED,
    RevocationReason.KEY_COMPROMISE: CrlReason.KEY_COMPROMISE,
    RevocationReason.AFFILIATION_CHANGED: CrlReason.AFFILIATION_CHANGED,
    RevocationReason.SUPERSEDED: CrlReason.SUPERSEDED,
    RevocationReason.CESSATION_OF_OPERATION: CrlReason.CESSATION_OF_OPERATION,
    RevocationReason.PRIVILEGE_WITHDRAWN: CrlReason.PRIVILEGE_WITHDRAWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """How one certificate stands that was ever revoked or put on hold.

    `since` is when that was: of one that was on hold and then revoked, when it was put on hold, as it was
    good at no time after. `epoch` is the event that changed it last. `entry` is how a CRL says it, in DER.
    """

    serial: Serial
    issuer: CaKeyId
    not_after: datetime
    state: StatusState
    since: datetime
    reason: CrlReason
    invalid_since: datetime | None
    epoch: Epoch
    entry: bytes
    held_by: HeldBy = HeldBy.NOTHING

    @classmethod
    def of(
        cls,
        certificate: IssuedSerial,
        *,
        state: StatusState,
        since: datetime,
        reason: CrlReason,
        invalid_since: datetime | None,
        epoch: Epoch,
        held_by: HeldBy = HeldBy.NOTHING,
    ) -> CertificateStatus:
        """The status of a certificate, with its entry made."""
        since = since.replace(microsecond=0)
        entry = encode_entry(certificate.serial, revoked_at=since, reason=reason, invalid_since=invalid_since)
        return cls(
            serial=certificate.serial,
            issuer=certificate.issuer,
            not_after=certificate.not_after,
            state=state,
            since=since,
            reason=reason,
            invalid_since=invalid_since,
            epoch=epoch,
            entry=entry,
            held_by=held_by,
        )


@dataclass(frozen=True, slots=True)
class IssuedSerial:
    """One certificate that was issued, in short."""

    serial: Serial
    issuer: CaKeyId
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CrlProgress:
    """How far a CA's CRLs are, durably: the last number given out, and as of when its last scheduled complete
    CRL was made (None before there was one)."""

    number: int = 0
    scheduled_at: datetime | None = None


class StatusStore(Protocol):
    """Statuses by serial, and how far each CA's CRLs are. Rows are changed, and never removed."""

    def get(self, serial: Serial) -> CertificateStatus | None: ...

    def look_up(self, serial: Serial) -> tuple[IssuedSerial | None, CertificateStatus | None]:
        """What is on record of one serial: that it was issued, and how it stands if it ever stood badly."""
        ...

    def find(self, serials: Iterable[Serial]) -> dict[Serial, CertificateStatus]: ...

    def put(self, changed: Iterable[CertificateStatus]) -> None:
        """Write statuses, in place of earlier ones of the same serials."""
        ...

    def issued(
        self, *, serials: Iterable[Serial] = (), keys: Iterable[KeyId] = ()
    ) -> tuple[IssuedSerial, ...]:
        """The certificates that were issued with these serials or for these keys."""
        ...

    def held_of(self, who: SpiffeId) -> tuple[IssuedSerial, ...]:
        """The certificates of an identity that are on hold."""
        ...

    def unexpired_under(self, issuer: CaKeyId, *, at: datetime) -> tuple[IssuedSerial, ...]:
        """Every certificate of one CA that has not expired."""
        ...

    def entries(self, issuer: CaKeyId, *, ends_from: datetime) -> list[bytes]:
        """CRL entries of everything that stands badly under a CA and ends at `ends_from` or later."""
        ...

    def changed(self, issuer: CaKeyId, *, after: Epoch, ends_from: datetime) -> tuple[CertificateStatus, ...]:
        """Statuses under a CA that changed after an epoch, of certificates that end no sooner."""
        ...

    def issuer_revoked_at(self, issuer: CaKeyId) -> datetime | None:
        """Since when a whole CA is revoked, if it is."""
        ...

    def note_issuer_revoked(self, issuer: CaKeyId, at: datetime) -> None:
        """Remember that a CA is revoked; the first time counts."""
        ...

    @property
    def fed(self) -> Epoch:
        """The last event that is taken in here; later ones in the feed change no status, or are missing."""
        ...

    def feed_to(self, epoch: Epoch) -> None: ...

    def progress(self, issuer: CaKeyId) -> CrlProgress: ...

    def next_number(self, issuer: CaKeyId, *, at_least: int = 1) -> int:
        """Give out a CRL number of a CA: higher than every one before it, also after a crash, and not
        below `at_least`."""
        ...

    def note_scheduled(self, issuer: CaKeyId, at: datetime) -> None:
        """Remember that a scheduled complete CRL was made."""
        ...


CHANGING = frozenset({EventKind.REVOKED, EventKind.HELD, EventKind.RELEASED, EventKind.ISSUER_REVOKED})
"""Events that can change a status."""


def take_in(event: TrustEvent, statuses: StatusStore, *, home: TrustDomain) -> None:
    """Bring statuses up to an event, in its transaction. An event that changes none is only counted.

    0. What a foreign domain says is of certificates and CAs of its own: it changes nothing here, whatever
       serials and keys it names.
    1. An event speaks of the serials it names and of every certificate of the keys it names; of a revoked
       CA, of everything under it that has not expired.
    2. REVOKED is for good: reason and date stay as they were first said, and only an earlier
       `compromised_since` is taken over. Whoever was on hold is revoked as of the hold.
    3. HELD does nothing to what is revoked. RELEASED ends holds and nothing else: of a certificate that is
       on hold by its serial, its key and its identity, each has to end.
    """
    if event.kind not in CHANGING:
        return
    # 0.
    if _domain_of(event) != home:
        statuses.feed_to(event.epoch)
        return
    # 1.
    concerned = _concerned(event, statuses)
    known = statuses.find(certificate.serial for certificate in concerned)
    # 2. and 3.
    changed = (
        _after(event, certificate, by, known.get(certificate.serial)) for certificate, by in concerned.items()
    )
    statuses.put([status for status in changed if status is not None])
    statuses.feed_to(event.epoch)


def _domain_of(event: TrustEvent) -> TrustDomain | None:
    return event.domain if event.subject is None else event.subject.domain


def _concerned(event: TrustEvent, statuses: StatusStore) -> dict[IssuedSerial, HeldBy]:
    """The certificates that an event speaks of, and by what it does."""
    found: dict[IssuedSerial, HeldBy] = {}
    if event.kind is EventKind.ISSUER_REVOKED:
        if event.issuer is not None:
            statuses.note_issuer_revoked(event.issuer, event.at)
            found = dict.fromkeys(statuses.unexpired_under(event.issuer, at=event.at), HeldBy.NOTHING)
        return found
    by_serial = HeldBy.SERIAL | (HeldBy.IDENTITY if event.identity_wide else HeldBy.NOTHING)
    for certificate in statuses.issued(serials=event.serials):
        found[certificate] = by_serial
    for certificate in statuses.issued(keys=event.keys):
        found[certificate] = found.get(certificate, HeldBy.NOTHING) | HeldBy.KEY
    if event.kind is EventKind.RELEASED and event.identity_wide and event.subject is not None:
        # Also those that were released by their serial before, and are on hold with their identity alone.
        for certificate in statuses.held_of(event.subject):
            found[certificate] = found.get(certificate, HeldBy.NOTHING) | HeldBy.IDENTITY
    return found


def removal_of(status: CertificateStatus) -> bytes:
    """How a delta CRL says that a hold has ended (RFC 5280, 5.2.4)."""
    return encode_entry(status.serial, revoked_at=status.since, reason=CrlReason.REMOVE_FROM_CRL)


def _after(
    event: TrustEvent, certificate: IssuedSerial, by: HeldBy, known: CertificateStatus | None
) -> CertificateStatus | None:
    """The status after the event; None where it stays as it is."""
    state = None if known is None else known.state
    if event.kind is EventKind.RELEASED:
        if known is None or state is not StatusState.HELD:
            return None
        left = known.held_by & ~by
        if left:  # nothing that anybody is told changes
            return replace(known, held_by=left)
        return replace(known, state=StatusState.RELEASED, epoch=event.epoch, held_by=left)
    if event.kind is EventKind.HELD:
        if state is StatusState.REVOKED:
            return None
        if known is not None and state is StatusState.HELD:
            return replace(known, held_by=known.held_by | by)
        return CertificateStatus.of(
            certificate,
            state=StatusState.HELD,
            since=event.at,
            reason=CrlReason.CERTIFICATE_HOLD,
            invalid_since=None,
            epoch=event.epoch,
            held_by=by,
        )
    since, reason, invalid = event.at, _reason_of(event), event.compromised_since
    if known is not None and state is StatusState.REVOKED:
        if invalid is None or (known.invalid_since is not None and known.invalid_since <= invalid):
            return None
        since, reason = known.since, known.reason
    elif known is not None and state is StatusState.HELD:
        since = known.since
    return CertificateStatus.of(
        certificate,
        state=StatusState.REVOKED,
        since=since,
        reason=reason,
        invalid_since=invalid,
        epoch=event.epoch,
    )


def _reason_of(event: TrustEvent) -> CrlReason:
    if event.kind is EventKind.ISSUER_REVOKED:
        return CrlReason.CA_COMPROMISE
    return REASONS[event.reason or RevocationReason.UNSPECIFIED]
