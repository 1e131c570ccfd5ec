"""Who may read what of the trust feed: an event as it is, or only that there was one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.pki.workloads import agent_of
from fltrust.revocation.events import EventKind, TrustEvent

_OF_SITES = frozenset({Role.PARTICIPANT, Role.WORKLOAD})
_OF_AUTHORITIES = frozenset({EventKind.BUNDLE_CHANGED, EventKind.ISSUER_REVOKED})
_SHOWN_TO_GUESTS = frozenset({Role.AGGREGATOR})


def as_read_by(
    reader: SpiffeId, event: TrustEvent, *, home: TrustDomain | None = None, lent: Collection[SpiffeId] = ()
) -> TrustEvent:
    """The event as `reader` may read it: itself, or REDACTED, of which only epoch and time remain.

    1. Aggregators and operators read everything.
    2. Everybody else reads what is about itself (an agent: its workload too), about runs and CAs, and about
       identities that are no site's; a participant of another domain than `home`, of those the aggregators
       alone.
    3. The coordinator of another domain reads what is about the participants that are `lent` to it, without
       who did it, and about our own CAs.
    """
    is_foreign = home is not None and reader.domain != home
    subject = event.subject
    if is_foreign and reader.role is Role.COORDINATOR:  # 3
        if subject in lent:
            return replace(event, actor=None)
        is_ours = event.kind in _OF_AUTHORITIES and event.domain == home
        return replace(event, actor=None) if is_ours else _redacted(event)
    if not is_foreign and reader.role in (Role.AGGREGATOR, Role.OPERATOR):  # 1
        return event
    if subject is None or reader in (subject, agent_of(subject)):  # 2
        return event
    if subject.role in _OF_SITES or (is_foreign and subject.role not in _SHOWN_TO_GUESTS):
        return _redacted(event)
    return event


def _redacted(event: TrustEvent) -> TrustEvent:
    return TrustEvent(epoch=event.epoch, kind=EventKind.REDACTED, at=event.at)
