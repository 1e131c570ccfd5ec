"""Many first enrollments in one transaction, with a few statements for all of them.

Only those about which nothing is on record: a name that was never enrolled, a key that was never certified
nor asked for, a node key that nobody enrolled. About anything else `admit_enrollment` decides, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fltrust.coordinator.enroller import Enroller, record_of
from fltrust.coordinator.ledger import Work
from fltrust.enrollment.dns_names import check_dns_names
from fltrust.enrollment.ports import EnrolledRecord
from fltrust.enrollment.registration import NEVER_JOIN, CheckedRequest
from fltrust.enrollment.types import Approval
from fltrust.errors import Malformed
from fltrust.identity import KeyId, Role, SpiffeId, TrustDomain
from fltrust.pki.profiles import Profiles
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.tlog.ports import NewEntry


@dataclass(frozen=True, slots=True)
class Approved:
    """A request that needs no further approval."""

    approval: Approval
    checked: CheckedRequest


def pick_new(
    wanted: Sequence[Approved], work: Work, *, domain: TrustDomain, profiles: Profiles
) -> frozenset[int]:
    """Which of these, by their place, are about names and keys that nothing is on record of.

    What is wrong with one in any other way leaves it out as well: whoever decides it alone says what.
    """
    keys = [item.checked.key_id for item in wanted]
    node_keys = [_node_key(item) for item in wanted]
    used = work.tx.certificates.known_keys(keys) | work.tx.requests.known_keys(keys)
    taken = work.tx.enrollments.known_node_keys([key for key in node_keys if key is not None])
    found, names = set(), set()
    for place, (item, key, node_key) in enumerate(zip(wanted, keys, node_keys, strict=True)):
        who = SpiffeId(domain, item.approval.role, item.approval.name)
        if (
            who.role in NEVER_JOIN
            or who in work.state.identities
            or who in names
            or key in used
            or (node_key is not None and node_key in taken)
            or (node_key is not None) != (who.role is Role.PARTICIPANT)
            or item.approval.account is not None
            or not _has_its_names(item.approval, profiles)
        ):
            continue
        names.add(who)
        used.add(key)
        if node_key is not None:
            taken.add(node_key)
        found.add(place)
    return frozenset(found)


def enroll_new(
    wanted: Sequence[Approved], work: Work, *, enroller: Enroller, domain: TrustDomain, evidence: str
) -> tuple[bytes, ...]:
    """Enroll those that `pick_new` picked, and return their certificates, in DER.

    Every certificate and every event stands in the log, in the order in which they would one by one.
    """
    certificates, records, events = [], [], []
    entries: list[NewEntry] = []
    epoch = work.tx.events.head
    for item in wanted:
        approval, checked = item.approval, item.checked
        who = SpiffeId(domain, approval.role, approval.name)
        leaf = enroller.sign(who, checked, work, dns_names=approval.dns_names)
        certificates.append(record_of(leaf, who))
        records.append(
            EnrolledRecord(
                who,
                work.now,
                approval.granted_by,
                evidence,
                checked.node_key,
                approval.dns_names,
                approval.claims,
            )
        )
        epoch = epoch.next()
        events.append(
            TrustEvent(
                epoch=epoch,
                kind=EventKind.ENROLLED,
                at=work.now,
                actor=approval.granted_by,
                subject=who,
                node_key=checked.node_key,
            )
        )
        entries += (work.book.certificate(certificates[-1], at=work.now), work.book.event(events[-1]))
    work.tx.certificates.add_all(certificates)
    work.tx.enrollments.add_all(records)
    work.tx.events.append_all(events)
    work.tx.tlog.append(entries)
    work.emitted += events
    return tuple(record.der for record in certificates)


def _node_key(item: Approved) -> KeyId | None:
    return None if item.checked.node_key is None else KeyId.of_spki(item.checked.node_key)


def _has_its_names(approval: Approval, profiles: Profiles) -> bool:
    try:
        check_dns_names(approval.role, approval.dns_names, profiles=profiles)
    except Malformed:
        return False
    return True
