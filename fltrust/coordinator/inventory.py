"""The inventory: everybody in the record, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fltrust.enrollment.inventory import InventoryEntry, InventoryFilter, RoundMark
from fltrust.enrollment.types import Enrollment
from fltrust.pki.profiles import BACKDATE

if TYPE_CHECKING:
    from datetime import datetime

    from fltrust.coordinator.authority import Authority
    from fltrust.identity import SpiffeId

PAGE = 128


def pages(authority: Authority, wanted: InventoryFilter) -> Iterator[tuple[InventoryEntry, ...]]:
    """Yield those that the filter lets through, in the order of their names, as they stood at one moment."""
    with authority.ledger.writing() as work:
        authority.presence.write(work)
    with authority.ledger.reading() as tx:
        seen, rounds = tx.sightings.all(), tx.sightings.last_rounds()
        live = tx.certificates.count_live(now=authority.now())
        claims = {record.spiffe_id: record.claims for record in tx.enrollments.all()}
        issued = {who: record.not_before + BACKDATE for who, record in tx.certificates.newest().items()}
    entries = (
        _entry(found, seen=seen, issued=issued, rounds=rounds, claims=claims, live=live)
        for found in sorted(authority.enrollments(), key=lambda item: str(item.spiffe_id))
    )
    chosen = tuple(entry for entry in entries if wanted.admits(entry))
    for start in range(0, len(chosen), PAGE):
        yield chosen[start : start + PAGE]


def _entry(
    found: Enrollment,
    *,
    seen: Mapping[SpiffeId, datetime],
    issued: Mapping[SpiffeId, datetime],
    rounds: Mapping[SpiffeId, RoundMark],
    claims: Mapping[SpiffeId, Mapping[str, str]],
    live: Mapping[SpiffeId, int],
) -> InventoryEntry:
    who = found.spiffe_id
    # Whoever asked for a certificate was there.
    times = [at for at in (seen.get(who), issued.get(who)) if at is not None]
    return InventoryEntry(
        enrollment=found,
        last_seen=max(times, default=None),
        last_round=rounds.get(who),
        claims=claims.get(who, {}),
        live_certificates=live.get(who, 0),
    )
