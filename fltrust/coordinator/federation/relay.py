"""What a foreign domain says of its own, taken over into our feed by comparison, so that it can be repeated.

Their feed is followed from its beginning by every process anew. What it comes to is held against what our
feed says, and the difference is written; so nothing is lost in a crash, and nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from fltrust.coordinator.ledger import Work
from fltrust.identity import CaKeyId, KeyId, Role, Serial, SpiffeId, TrustDomain
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.revocation.state import Standing, TrustState
from fltrust.wire.trust import MAX_NAMED

_Named = TypeVar("_Named", Serial, KeyId)
Spread = Callable[[Work, TrustEvent], object]
"""Taints what contains updates that count as compromised, as a revocation of our own does."""


@dataclass(slots=True)
class TheirWord:
    """What one foreign feed has said so far, as far as we may read it."""

    domain: TrustDomain
    state: TrustState = field(default_factory=TrustState)
    serials: dict[SpiffeId, dict[Serial, Standing]] = field(default_factory=dict)
    keys: dict[SpiffeId, dict[KeyId, Standing]] = field(default_factory=dict)
    issuers: set[CaKeyId] = field(default_factory=set)

    def take(self, event: TrustEvent) -> None:
        """Fold the next event; what it says of another domain than its own says nothing."""
        self.state.apply(event)
        if (
            event.kind is EventKind.ISSUER_REVOKED
            and event.domain == self.domain
            and event.issuer is not None
        ):
            self.issuers.add(event.issuer)
        standing = _STANDINGS.get(event.kind)
        if standing is None or event.subject is None or event.subject.domain != self.domain:
            return
        _mark(self.serials.setdefault(event.subject, {}), event.serials, standing)
        _mark(self.keys.setdefault(event.subject, {}), event.keys, standing)


_STANDINGS = {
    EventKind.REVOKED: Standing.REVOKED,
    EventKind.HELD: Standing.HELD,
    EventKind.RELEASED: Standing.ACTIVE,
}


def take_over(said: TheirWord, work: Work, *, home: TrustBundle, spread: Spread) -> None:
    """Write into our feed what `said` says and our feed does not, of admitted participants and of CAs.

    1. Revoked there, or enrolled anew there with another node key: revoked here, for good.
    2. On hold there, or not to be seen there (any more): on hold here. A hold that came from there ends when
       theirs does; one that an operator of ours set does not.
    3. Certificates and keys that are barred there are barred here.
    4. A CA that is revoked there vouches for nobody here. One of ours is not theirs to revoke.

    What was revoked here is never released, whatever is said there.
    """
    for who in tuple(work.state.identities):
        if who.domain == said.domain and who.role is Role.PARTICIPANT:
            _take_over_standing(who, said, work, spread)
            _take_over_parts(who, said, work)
    _take_over_issuers(said, work, home)


def _take_over_standing(who: SpiffeId, said: TheirWord, work: Work, spread: Spread) -> None:
    own, theirs = work.state.own(who), said.state.identities.get(who)
    if own is None or own.standing is Standing.REVOKED:
        return
    there = SpiffeId(said.domain, Role.COORDINATOR, None)
    is_replaced = theirs is not None and theirs.node_key != own.node_key
    if theirs is not None and (theirs.standing is Standing.REVOKED or is_replaced):  # 1
        event = work.emit(
            EventKind.REVOKED,
            actor=there,
            subject=who,
            identity_wide=True,
            reason=RevocationReason.SUPERSEDED if is_replaced else RevocationReason.UNSPECIFIED,
            compromised_since=theirs.compromised_since,
        )
        spread(work, event)
    elif theirs is None or theirs.standing is Standing.HELD:  # 2
        if own.standing is Standing.ACTIVE:
            work.emit(
                EventKind.HELD,
                actor=there,
                subject=who,
                identity_wide=True,
                reason=RevocationReason.UNSPECIFIED,
            )
    elif own.standing is Standing.HELD and _holder(who, work) == there:
        work.emit(EventKind.RELEASED, actor=there, subject=who, identity_wide=True)


def _holder(who: SpiffeId, work: Work) -> SpiffeId | None:
    """Who put this identity on hold last."""
    held = [e for e in work.tx.events.about(who) if e.kind is EventKind.HELD and e.identity_wide]
    return held[-1].actor if held else None


def _take_over_parts(who: SpiffeId, said: TheirWord, work: Work) -> None:
    state = work.state
    there = SpiffeId(said.domain, Role.COORDINATOR, None)
    wanted_serials = said.serials.get(who, {})
    wanted_keys = said.keys.get(who, {})
    for kind, standing in ((EventKind.REVOKED, Standing.REVOKED), (EventKind.HELD, Standing.HELD)):
        serials = tuple(
            serial
            for serial, there_is in wanted_serials.items()
            if there_is is standing
            and state.standing_of_serial(who.domain, serial) not in (standing, Standing.REVOKED)
            and work.tx.certificates.by_serial(serial) is None  # one of ours is not theirs to name
        )
        keys = tuple(
            key
            for key, there_is in wanted_keys.items()
            if there_is is standing
            and state.standing_of_key(who.domain, key) not in (standing, Standing.REVOKED)
            and work.tx.certificates.by_key(key) is None
        )
        _bar(kind, who, there, serials, keys, work)
    freed_serials = tuple(
        serial
        for serial, there_is in wanted_serials.items()
        if there_is is Standing.ACTIVE and state.standing_of_serial(who.domain, serial) is Standing.HELD
    )
    freed_keys = tuple(
        key
        for key, there_is in wanted_keys.items()
        if there_is is Standing.ACTIVE and state.standing_of_key(who.domain, key) is Standing.HELD
    )
    _bar(EventKind.RELEASED, who, there, freed_serials, freed_keys, work)


def _bar(
    kind: EventKind,
    who: SpiffeId,
    there: SpiffeId,
    serials: tuple[Serial, ...],
    keys: tuple[KeyId, ...],
    work: Work,
) -> None:
    if not serials and not keys:
        return
    work.emit(
        kind,
        actor=there,
        subject=who,
        serials=serials[:MAX_NAMED],
        keys=keys[:MAX_NAMED],
        reason=None if kind is EventKind.RELEASED else RevocationReason.UNSPECIFIED,
    )


def _take_over_issuers(said: TheirWord, work: Work, home: TrustBundle) -> None:
    ours = {ca_key_id(root.public_key()) for root in home.roots}
    there = SpiffeId(said.domain, Role.COORDINATOR, None)
    for issuer in sorted(said.issuers):
        if (
            work.state.is_issuer_revoked(issuer, said.domain)
            or issuer in ours
            or work.tx.statuses.unexpired_under(issuer, at=work.now)
        ):
            continue
        work.emit(
            EventKind.ISSUER_REVOKED,
            actor=there,
            domain=said.domain,
            issuer=issuer,
            reason=RevocationReason.KEY_COMPROMISE,
        )


def _mark(marks: dict[_Named, Standing], named: Iterable[_Named], standing: Standing) -> None:
    """What is revoked stays so."""
    for item in named:
        if marks.get(item) is not Standing.REVOKED:
            marks[item] = standing
