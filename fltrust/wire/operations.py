"""Sensitive operations on the wire."""

from __future__ import annotations

from dataclasses import replace

from fltrust.enrollment.operation import MAX_OPERATION, MAX_SIGNED_DECISION, check_kind, check_operation_id
from fltrust.enrollment.operation_ports import OperationRecord, OperationState, SignedDecision
from fltrust.identity import SpiffeId
from fltrust.wire.pb import operations_pb2 as pb
from fltrust.wire.requests import decision_from_pb, decision_to_pb
from fltrust.wire.values import (
    at_most,
    bounded,
    bounded_or_none,
    present,
    time_from_field,
    time_from_optional,
    time_to_pb,
    word,
)

MAX_RESULT = 256 * 1024
_MAX_DECISIONS = 64
LISTED_PAYLOAD = 2_048
"""Bytes of an operation's words that a list shows; longer ones are asked for one by one."""


def operation_to_pb(
    record: OperationRecord, decisions: tuple[SignedDecision, ...] = (), *, is_listed: bool = False
) -> pb.Operation:
    if is_listed and len(record.payload) > LISTED_PAYLOAD:
        record = replace(record, payload=b"")
    if is_listed and record.result is not None and len(record.result) > LISTED_PAYLOAD:
        record = replace(record, result=None)
    message = pb.Operation(
        operation_id=record.operation_id,
        kind=record.kind,
        payload=record.payload,
        proposer=str(record.proposer),
        state=record.state,
        needed=record.needed,
        proposed_at=time_to_pb(record.proposed_at),
        expires_at=time_to_pb(record.expires_at),
        result=record.result or b"",
        decisions=[
            pb.SignedDecision(decision=decision_to_pb(item.decision), signed=item.signed)
            for item in decisions
        ],
    )
    if record.decided_at is not None:
        message.decided_at.CopyFrom(time_to_pb(record.decided_at))
    return message


def operation_from_pb(message: pb.Operation) -> tuple[OperationRecord, tuple[SignedDecision, ...]]:
    """Read an operation and what was signed of it; nothing of it is verified here."""
    at_most(message.decisions, _MAX_DECISIONS, what="decisions on an operation")
    record = OperationRecord(
        operation_id=check_operation_id(message.operation_id),
        kind=check_kind(message.kind),
        payload=bounded_or_none(message.payload, limit=MAX_OPERATION, what="an operation") or b"",
        proposer=SpiffeId.parse(message.proposer),
        state=word(OperationState, message.state, what="an operation's state"),
        needed=message.needed,
        proposed_at=time_from_field(message, "proposed_at"),
        expires_at=time_from_field(message, "expires_at"),
        decided_at=time_from_optional(message, "decided_at"),
        result=bounded_or_none(message.result, limit=MAX_RESULT, what="a result"),
    )
    return record, tuple(map(_decision, message.decisions))


def _decision(message: pb.SignedDecision) -> SignedDecision:
    present(message, "decision")
    return SignedDecision(decision=decision_from_pb(message.decision), signed=signed_from_pb(message.signed))


def propose_request_from_pb(message: pb.ProposeOperationRequest) -> tuple[bytes, bytes]:
    payload = bounded(message.payload, limit=MAX_OPERATION, what="an operation")
    return payload, signed_from_pb(message.signed)


def decide_request_from_pb(message: pb.DecideOperationRequest) -> tuple[str, bytes]:
    return check_operation_id(message.operation_id), signed_from_pb(message.signed)


def signed_from_pb(data: bytes) -> bytes:
    return bounded(data, limit=MAX_SIGNED_DECISION, what="a signed decision")


def operation_id_from_pb(text: str) -> str:
    return check_operation_id(text)
