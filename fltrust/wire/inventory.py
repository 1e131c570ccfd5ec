"""The inventory on the wire."""

from __future__ import annotations

from fltrust.enrollment.inventory import InventoryEntry, InventoryFilter, RoundMark
from fltrust.identity import Role, RunId
from fltrust.wire.enrollment import participant_from_pb, participant_to_pb
from fltrust.wire.pb import enrollment_pb2 as pb
from fltrust.wire.requests import claims_from_pb
from fltrust.wire.values import (
    present,
    text_within,
    time_from_field,
    time_from_optional,
    time_to_pb,
    word,
)

_MAX_WORD = 64


def entry_to_pb(entry: InventoryEntry) -> pb.Participant:
    message = participant_to_pb(entry.enrollment)
    if entry.last_seen is not None:
        message.last_seen.CopyFrom(time_to_pb(entry.last_seen))
    if (mark := entry.last_round) is not None:
        message.last_round.CopyFrom(
            pb.RoundMark(run_id=int(mark.run_id), step=mark.step, at=time_to_pb(mark.at))
        )
    message.claims.update(entry.claims)
    message.live_certificates = entry.live_certificates
    return message


def entry_from_pb(message: pb.Participant) -> InventoryEntry:
    mark = None
    if message.HasField("last_round"):
        present(message.last_round, "at")
        mark = RoundMark(
            run_id=RunId(message.last_round.run_id),
            step=message.last_round.step,
            at=time_from_field(message.last_round, "at"),
        )
    return InventoryEntry(
        enrollment=participant_from_pb(message),
        last_seen=time_from_optional(message, "last_seen"),
        last_round=mark,
        claims=claims_from_pb(message.claims),
        live_certificates=message.live_certificates,
    )


def filter_to_pb(wanted: InventoryFilter) -> pb.FindParticipantsRequest:
    message = pb.FindParticipantsRequest(
        role=wanted.role or "",
        standing=wanted.standing or "",
        evidence=wanted.evidence or "",
        prefix=wanted.prefix,
    )
    for name in ("expires_by", "unseen_since", "no_round_since"):
        if (at := getattr(wanted, name)) is not None:
            getattr(message, name).CopyFrom(time_to_pb(at))
    return message


def filter_from_pb(message: pb.FindParticipantsRequest) -> InventoryFilter:
    """Read a filter; a role that is not known is refused, and lets nobody through by being passed over."""
    return InventoryFilter(
        role=word(Role, message.role, what="a role") if message.role else None,
        standing=text_within(message.standing, limit=_MAX_WORD, what="a standing") or None,
        evidence=text_within(message.evidence, limit=_MAX_WORD, what="a kind of evidence") or None,
        prefix=text_within(message.prefix, limit=_MAX_WORD, what="the beginning of a name"),
        expires_by=time_from_optional(message, "expires_by"),
        unseen_since=time_from_optional(message, "unseen_since"),
        no_round_since=time_from_optional(message, "no_round_since"),
    )
