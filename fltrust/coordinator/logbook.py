"""What the coordinator does, in the words of its log; under public names, which are set here alone."""

from __future__ import annotations

from datetime import datetime

from fltrust.coordinator.public_names import PublicNaming
from fltrust.enrollment.ports import CertificateRecord
from fltrust.enrollment.types import TokenRecord
from fltrust.identity import Digest, Role, RunId, SpiffeId, TrustDomain
from fltrust.revocation.events import TrustEvent
from fltrust.rounds.logged import sealed_entry
from fltrust.tlog.entries import (
    AuthorityChange,
    CertificateLeaf,
    EnrollmentRefused,
    Entry,
    ParticipantCertificate,
    PrecertificateLeaf,
    TrustEventEntry,
    new_entry,
    to_milliseconds,
)
from fltrust.tlog.ports import NewEntry
from fltrust.updates.receipt import SealedRoundStatement


def run_subject(run_id: RunId) -> str:
    """What entries about a run are found by."""
    return f"run:{int(run_id)}"


def token_subject(token_id: str) -> str:
    """What refusals of a join token are found by."""
    return f"token:{token_id}"


def certificate_subject(der: bytes) -> str:
    """What the entry of a timestamp authority's certificate is found by."""
    return f"certificate:{Digest.sha256_of(der).hex}"


def authority_of(event: TrustEvent) -> AuthorityChange | None:
    """What an event says of a CA, where it is of one."""
    if event.domain is None:
        return None
    return AuthorityChange(event.domain, event.sequence, event.issuer)


class Logbook:
    """Makes entries. Pure: the same act gives the same entry.

    What an entry is found by (its subjects) are names as they are, not public names: the index is the
    operators', and never served.
    """

    def __init__(self, domain: TrustDomain, names: PublicNaming) -> None:
        self.domain = domain
        self.names = names

    def certificate(self, record: CertificateRecord, *, at: datetime) -> NewEntry:
        """A certificate that was issued: an RFC 6962 entry, or its digest where its name is not public."""
        entry: Entry
        if self.names.has_pseudonym(record.spiffe_id):
            entry = ParticipantCertificate(
                at=at,
                name=self.names.of(record.spiffe_id),
                certificate=Digest.sha256_of(record.der),
                not_before=record.not_before,
                not_after=record.not_after,
            )
        else:
            entry = CertificateLeaf(to_milliseconds(at), record.der)
        return new_entry(entry, subjects=(str(record.spiffe_id),), at=at)

    def tsa_certificate(self, der: bytes, *, at: datetime) -> NewEntry:
        """A certificate of the timestamp authority, which is part of the coordinator."""
        who = SpiffeId(self.domain, Role.COORDINATOR, None)
        leaf = CertificateLeaf(to_milliseconds(at), der)
        return new_entry(leaf, subjects=(str(who), certificate_subject(der)), at=at)

    def precertificate(self, leaf: PrecertificateLeaf, who: SpiffeId, *, at: datetime) -> NewEntry:
        """A certificate with an embedded SCT, as the SCT signs it; to `who`, who has no pseudonym."""
        return new_entry(leaf, subjects=(str(who),), at=at)

    def event(self, event: TrustEvent) -> NewEntry:
        """One epoch of the trust feed. Without the node key of who has a pseudonym: others know that key."""
        of, subject = self.names.of, event.subject
        is_known_by_key = subject is not None and not self.names.has_pseudonym(subject)
        entry = TrustEventEntry.of(
            epoch=event.epoch,
            event=event.kind,
            at=event.at,
            actor=None if event.actor is None else of(event.actor),
            subject=None if subject is None else of(subject),
            identity_wide=event.identity_wide,
            serials=event.serials,
            keys=event.keys,
            node_key=event.node_key if is_known_by_key else None,
            run_id=event.run_id,
            reason=event.reason,
            compromised_since=event.compromised_since,
            authority=authority_of(event),
        )
        named = [str(who) for who in (event.subject, event.actor) if who is not None]
        if event.run_id is not None:
            named.append(run_subject(event.run_id))
        return new_entry(entry, subjects=tuple(dict.fromkeys(named)))

    def refusal(self, token: TokenRecord, reason: str, *, at: datetime) -> NewEntry:
        """An enrollment that was refused, with a join token that is known here."""
        who = SpiffeId(self.domain, token.role, token.name)
        entry = EnrollmentRefused(
            at=at, token_id=token.token_id, role=token.role, name=self.names.of(who), reason=reason
        )
        return new_entry(entry, subjects=(str(who), token_subject(token.token_id)))

    def sealed(self, receipt: SealedRoundStatement, *, payload: Digest) -> NewEntry:
        """A sealed round; found by its run, its aggregator and by everybody in its receipt."""
        people = [
            receipt.aggregator,
            *(entry.participant for entry in receipt.admitted),
            *(who for who, _ in receipt.refused),
        ]
        subjects = (run_subject(receipt.run_id), *dict.fromkeys(map(str, people)))
        return new_entry(sealed_entry(receipt, payload=payload), subjects=subjects)
