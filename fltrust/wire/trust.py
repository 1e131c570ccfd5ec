"""The trust feed and revocation on the wire."""

from __future__ import annotations

from datetime import datetime

from fltrust.errors import Malformed
from fltrust.identity import CaKeyId, Epoch, KeyId, Name, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.revocation.events import EventKind, FeedHeartbeat, FeedItem, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.wire.enrollment import MAX_NODE_KEY
from fltrust.wire.pb import trust_pb2 as pb
from fltrust.wire.values import (
    at_most,
    bounded_or_none,
    missing,
    present,
    spiffe_or_none,
    text_of,
    time_from_field,
    time_from_optional,
    time_to_pb,
    word,
)

MAX_NAMED = 10_000
"""Serials or keys that one event may name."""

_BARRING = {EventKind.REVOKED, EventKind.HELD, EventKind.RELEASED}
_DOMAIN_KINDS = {EventKind.DOMAIN_HELD, EventKind.DOMAIN_RELEASED}
_RUN_KINDS = {EventKind.RUN_OPENED, EventKind.RUN_CLOSED}


def event_to_pb(event: TrustEvent) -> pb.TrustEvent:
    message = pb.TrustEvent(
        epoch=event.epoch,
        kind=event.kind,
        at=time_to_pb(event.at),
        actor=text_of(event.actor),
        subject=text_of(event.subject),
        identity_wide=event.identity_wide,
        serials=[serial.hex for serial in event.serials],
        keys=list(event.keys),
        node_key=event.node_key or b"",
        run_id=event.run_id,
        reason=text_of(event.reason),
        domain=text_of(event.domain),
        sequence=event.sequence,
        issuer=text_of(event.issuer),
    )
    if event.compromised_since is not None:
        message.compromised_since.CopyFrom(time_to_pb(event.compromised_since))
    return message


def event_from_pb(message: pb.TrustEvent) -> TrustEvent:
    """Read one event. A kind or reason that is not known, or a subject or run that its kind must
    have and has not, is refused: a watcher that skipped it would no longer know who is trusted."""
    kind = word(EventKind, message.kind, what="a kind of trust event")
    at_most(message.serials, MAX_NAMED, what="serials in a trust event")
    at_most(message.keys, MAX_NAMED, what="keys in a trust event")
    event = TrustEvent(
        epoch=Epoch(message.epoch),
        kind=kind,
        at=time_from_field(message, "at"),
        actor=spiffe_or_none(message.actor),
        subject=spiffe_or_none(message.subject),
        identity_wide=message.identity_wide,
        serials=tuple(Serial.parse(text) for text in message.serials),
        keys=tuple(KeyId(text) for text in message.keys),
        node_key=bounded_or_none(message.node_key, limit=MAX_NODE_KEY, what="a node key"),
        run_id=RunId(message.run_id) if message.HasField("run_id") else None,
        reason=_reason_or_none(message.reason),
        compromised_since=time_from_optional(message, "compromised_since"),
        domain=TrustDomain(message.domain) if message.domain else None,
        sequence=message.sequence if message.HasField("sequence") else None,
        issuer=CaKeyId(message.issuer) if message.issuer else None,
    )
    if kind in _RUN_KINDS and event.run_id is None:
        raise Malformed(f"expected a run in the {kind} event of epoch {event.epoch}, got none")
    if (kind in _BARRING or kind is EventKind.ENROLLED) and event.subject is None:
        raise Malformed(f"expected a subject in the {kind} event of epoch {event.epoch}, got none")
    if kind is EventKind.BUNDLE_CHANGED and (event.domain is None or event.sequence is None):
        raise Malformed(f"expected domain and sequence in the {kind} event of epoch {event.epoch}")
    if kind in _DOMAIN_KINDS and event.domain is None:
        raise Malformed(f"expected a domain in the {kind} event of epoch {event.epoch}, got none")
    if kind is EventKind.ISSUER_REVOKED and (event.domain is None or event.issuer is None):
        raise Malformed(f"expected domain and issuer in the {kind} event of epoch {event.epoch}")
    return event


def item_to_pb(item: FeedItem) -> pb.WatchResponse:
    if isinstance(item, TrustEvent):
        return pb.WatchResponse(event=event_to_pb(item))
    return pb.WatchResponse(heartbeat=pb.Heartbeat(epoch=item.epoch, at=time_to_pb(item.at)))


def item_from_pb(message: pb.WatchResponse) -> FeedItem:
    """Read one item of the feed: an event or a heartbeat, nothing else."""
    match message.WhichOneof("item"):
        case "event":
            return event_from_pb(message.event)
        case "heartbeat":
            beat = message.heartbeat
            return FeedHeartbeat(Epoch(beat.epoch), time_from_field(beat, "at"))
        case _:
            raise missing("an event or a heartbeat in the trust feed")


def target_to_pb(target: RevocationTarget) -> pb.RevocationTarget:
    if target.name is not None:
        role, name = target.name
        return pb.RevocationTarget(name=f"{role}/{name}")
    if target.foreign is not None:
        return pb.RevocationTarget(name=str(target.foreign))
    if target.serial is not None:
        return pb.RevocationTarget(serial=target.serial.hex)
    if target.key is not None:
        return pb.RevocationTarget(key=target.key)
    return pb.RevocationTarget(run_id=target.run)


def target_from_pb(message: pb.RevocationTarget) -> RevocationTarget:
    """Read whom or what a revocation is for. A name is ``<role>/<name>``, or a foreign SPIFFE ID."""
    match message.WhichOneof("target"):
        case "name":
            if message.name.startswith("spiffe://"):
                return RevocationTarget(foreign=SpiffeId.parse(message.name))
            role, slash, name = message.name.partition("/")
            if not slash:
                raise Malformed(f"expected '<role>/<name>' to revoke, got {message.name[:80]!r}")
            return RevocationTarget(name=(word(Role, role, what="a role"), Name(name)))
        case "serial":
            return RevocationTarget(serial=Serial.parse(message.serial))
        case "key":
            return RevocationTarget(key=KeyId(message.key))
        case "run_id":
            return RevocationTarget(run=RunId(message.run_id))
        case _:
            raise missing("a name, serial, key or run to revoke")


def revoke_request_to_pb(
    target: RevocationTarget, *, reason: RevocationReason, compromised_since: datetime | None
) -> pb.RevokeRequest:
    message = pb.RevokeRequest(target=target_to_pb(target), reason=reason)
    if compromised_since is not None:
        message.compromised_since.CopyFrom(time_to_pb(compromised_since))
    return message


def revoke_request_from_pb(
    message: pb.RevokeRequest,
) -> tuple[RevocationTarget, RevocationReason, datetime | None]:
    """Target, reason, and since when what it signed is not to be believed."""
    present(message, "target")
    return (
        target_from_pb(message.target),
        word(RevocationReason, message.reason, what="a reason"),
        time_from_optional(message, "compromised_since"),
    )


def hold_request_from_pb(message: pb.HoldRequest) -> tuple[RevocationTarget, RevocationReason]:
    present(message, "target")
    return target_from_pb(message.target), word(RevocationReason, message.reason, what="a reason")


def release_request_from_pb(message: pb.ReleaseRequest) -> RevocationTarget:
    present(message, "target")
    return target_from_pb(message.target)


def _reason_or_none(text: str) -> RevocationReason | None:
    return word(RevocationReason, text, what="a reason") if text else None
