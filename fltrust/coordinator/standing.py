"""Revoke, hold and release: from a target to the events that say it, decided under the head's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from fltrust.coordinator.ledger import Work
from fltrust.coordinator.requests import drop_requests
from fltrust.coordinator.workloads import unexpired_with_workload
from fltrust.enrollment.ports import CertificateRecord
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.identity import KeyId, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing


@dataclass(frozen=True, slots=True)
class Subject:
    """One identity, whole, or one certificate or key of it."""

    who: SpiffeId
    whole: bool
    serials: tuple[Serial, ...] = ()
    keys: tuple[KeyId, ...] = ()


def resolve(target: RevocationTarget, work: Work, *, domain: TrustDomain) -> tuple[Subject, ...]:
    """Find whom a target means, by the record. `NotFound` for what was never enrolled, issued or opened.

    By name, by a participant's node key and by run: identities, whole. By serial: that certificate.
    By certificate key: that key and its certificate.
    """
    if target.name is not None:
        role, name = target.name
        return (_whole(SpiffeId(domain, role, name), work),)
    if target.foreign is not None:
        if target.foreign.domain == domain:
            raise Malformed(f"expected the name alone of an identity of {domain}, got {target.foreign}")
        return (_whole(target.foreign, work),)
    if target.serial is not None:
        record = work.tx.certificates.by_serial(target.serial)
        if record is None:
            raise NotFound(f"no certificate with serial {target.serial.hex} was issued here")
        return (_part(record, serials=(target.serial,)),)
    if target.key is not None:
        return (_by_key(target.key, work),)
    if target.run is not None:
        return _by_run(target.run, work)
    raise Malformed("expected a name, serial, key or run to act on")


def revoke(
    subject: Subject,
    work: Work,
    *,
    actor: SpiffeId,
    reason: RevocationReason,
    compromised_since: datetime | None,
) -> TrustEvent:
    """Revoke, and return the event; what is revoked already gives the event that said so.

    An earlier `compromised_since` than the one known is new knowledge and takes a new epoch. Tokens
    waiting for the identity are cancelled: coming back needs a decision made after this one. So are those
    that an operator made, of whom all or part is revoked: whoever has its key may have made them.
    """
    known = _said(subject, work, EventKind.REVOKED)
    if _standing(subject, work) is Standing.REVOKED and known is not None:
        if compromised_since is None or (
            known.compromised_since is not None and known.compromised_since <= compromised_since
        ):
            return known
        reason = known.reason or reason
    if subject.whole and subject.who.name is not None and subject.who.domain == work.book.domain:
        work.tx.tokens.cancel_all_for(subject.who.role, subject.who.name, now=work.now)
        drop_requests(subject.who.role, subject.who.name, work)
    if subject.who.role is Role.OPERATOR and subject.who.domain == work.book.domain:
        work.tx.tokens.cancel_all_by(subject.who, now=work.now)
    return _emit(
        subject, work, EventKind.REVOKED, actor=actor, reason=reason, compromised_since=compromised_since
    )


def hold(subject: Subject, work: Work, *, actor: SpiffeId, reason: RevocationReason) -> TrustEvent:
    """Put on hold, and return the event; what is held already gives the event that said so."""
    standing = _standing(subject, work)
    if standing is Standing.REVOKED:
        raise Conflict(
            f"{_words(subject)} is revoked already, a hold would be weaker", reason="already-revoked"
        )
    known = _said(subject, work, EventKind.HELD)
    if standing is Standing.HELD and known is not None and not _is_of_its_own_domain(known, work):
        return known  # what its own domain said is no hold of ours: ours outlasts it
    return _emit(subject, work, EventKind.HELD, actor=actor, reason=reason)


def release(subject: Subject, work: Work, *, actor: SpiffeId) -> TrustEvent:
    """End a hold, and return the event; what was released last gives the event that said so.

    Releasing an identity ends every hold on its certificates too. What is revoked stays so (`Conflict`).
    """
    standing = _standing(subject, work)
    if standing is Standing.REVOKED:
        raise Conflict(
            f"{_words(subject)} is revoked; only a hold is released",
            reason="already-revoked",
            hint="create a token with --replace to enroll it anew",
        )
    known_hold = _said(subject, work, EventKind.HELD)
    if standing is Standing.HELD and known_hold is not None and _is_of_its_own_domain(known_hold, work):
        raise Conflict(
            f"{_words(subject)} is on hold in its own domain",
            reason="held-at-home",
            hint=f"ask the operators of {subject.who.domain}: it is released here when it is there",
        )
    serials, keys = subject.serials, subject.keys
    if subject.whole:
        serials, keys = _on_hold(subject.who, work)
    if standing is not Standing.HELD and not (subject.whole and (serials or keys)):
        known = _said(subject, work, EventKind.RELEASED)
        if known is None:
            raise Conflict(f"{_words(subject)} is not on hold", reason="not-held")
        return known
    freed = Subject(subject.who, subject.whole, serials, keys)
    return _emit(freed, work, EventKind.RELEASED, actor=actor)


def all_that_apply(
    subjects: Iterable[Subject], work: Work, act: Callable[[Subject, Work], TrustEvent]
) -> tuple[TrustEvent, ...]:
    """Act on those that it makes sense for, and pass over the others (`Conflict`)."""
    done = []
    for subject in subjects:
        with suppress(Conflict):
            done.append(act(subject, work))
    return tuple(done)


def _whole(who: SpiffeId, work: Work) -> Subject:
    if who not in work.state.identities:
        raise NotFound(f"{who} was never enrolled", hint="list who is: fltrust participants list")
    records = unexpired_with_workload(who, work.tx.certificates, now=work.now)
    return Subject(who, whole=True, serials=tuple(record.serial for record in records))


def _part(record: CertificateRecord, *, serials: tuple[Serial, ...], keys: tuple[KeyId, ...] = ()) -> Subject:
    if record.spiffe_id.role is Role.COORDINATOR:
        raise Conflict(
            "the coordinator's own certificate is not revoked through the coordinator",
            hint="restart it: every start takes a new key and a new certificate",
        )
    return Subject(record.spiffe_id, whole=False, serials=serials, keys=keys)


def _by_key(key: KeyId, work: Work) -> Subject:
    records = work.tx.certificates.all_by_key(key)
    if records:
        return _part(records[0], serials=tuple(record.serial for record in records), keys=(key,))
    owner = work.tx.enrollments.node_key_owner(key)
    if owner is None:
        raise NotFound(f"no certificate was issued and no node enrolled with the key {key}")
    return _whole(owner, work)


def _by_run(run_id: RunId, work: Work) -> tuple[Subject, ...]:
    if work.tx.rounds.run(run_id) is None:
        raise NotFound(f"no round of run {run_id} was opened here")
    return tuple(_whole(who, work) for who in work.tx.rounds.cohort_of(run_id))


def _standing(subject: Subject, work: Work) -> Standing:
    """How the subject itself stands: of a part, the part."""
    if subject.whole:
        return work.state.own_standing(subject.who) or Standing.REVOKED
    found = [work.state.key_standing(key) for key in subject.keys]
    found = found or [work.state.serial_standing(serial) for serial in subject.serials]
    return found[0]


def _said(subject: Subject, work: Work, kind: EventKind) -> TrustEvent | None:
    """The newest event of this kind that covers the subject, since it was last enrolled."""
    found: TrustEvent | None = None
    for event in work.tx.events.about(subject.who):
        if event.kind is EventKind.ENROLLED and subject.whole:
            found = None
        elif event.kind is kind and _covers(event, subject):
            found = event
    return found


def _is_of_its_own_domain(event: TrustEvent, work: Work) -> bool:
    """Whether another domain said this, of one of its own."""
    return event.actor is not None and event.actor.domain != work.book.domain


def _covers(event: TrustEvent, subject: Subject) -> bool:
    if subject.whole:
        return event.identity_wide
    if subject.keys:
        return not set(subject.keys).isdisjoint(event.keys)
    return not set(subject.serials).isdisjoint(event.serials)


def _on_hold(who: SpiffeId, work: Work) -> tuple[tuple[Serial, ...], tuple[KeyId, ...]]:
    """Certificates and keys of an identity that are on hold, in the order in which they were put there."""
    held = [event for event in work.tx.events.about(who) if event.kind is EventKind.HELD]
    serials = dict.fromkeys(serial for event in held for serial in event.serials)
    keys = dict.fromkeys(key for event in held for key in event.keys)
    return (
        tuple(serial for serial in serials if work.state.serial_standing(serial) is Standing.HELD),
        tuple(key for key in keys if work.state.key_standing(key) is Standing.HELD),
    )


def _emit(
    subject: Subject,
    work: Work,
    kind: EventKind,
    *,
    actor: SpiffeId,
    reason: RevocationReason | None = None,
    compromised_since: datetime | None = None,
) -> TrustEvent:
    return work.emit(
        kind,
        actor=actor,
        subject=subject.who,
        identity_wide=subject.whole,
        serials=subject.serials,
        keys=subject.keys,
        reason=reason,
        compromised_since=compromised_since,
    )


def _words(subject: Subject) -> str:
    if subject.whole:
        return str(subject.who)
    if subject.keys:
        return f"key {subject.keys[0]} of {subject.who}"
    return f"certificate {subject.serials[0].hex} of {subject.who}"
