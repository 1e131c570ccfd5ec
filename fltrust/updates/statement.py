"""What is signed: in-toto statements about instructions, updates and sealed rounds.

Each is an in-toto Statement v1 in one byte form (compact JSON, keys sorted, UTF-8), so that
a payload and its dataclass determine each other: `from_payload` refuses whatever `to_payload`
would not have written. 64-bit numbers are decimal strings, times are RFC 3339 in UTC with
microseconds, digests are ``<algorithm>:<hex>``. What a statement is about stands in its
subject, and nowhere else:

    instruction    subject  instruction/<instruction id>      {"fltrust-content-v1": …}
    update         subject  update/<instruction id>/<participant's name>   the same
    sealed round   subject  round/<domain>/<index>            {"sha256": of the predicate's bytes}

The statement binds; `fltrust.updates.verify` decides whether what it binds is what was expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self, TypeAlias

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import Digest, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.updates.digest import CONTENT_ALGORITHM, MODEL_ALGORITHM
from fltrust.updates.intoto import (
    INSTRUCTION_PREDICATE,
    MAX_MESSAGE_TYPE,
    MAX_PAYLOAD_BYTES,
    MAX_SEALED_PAYLOAD_BYTES,
    SEALED_ROUND_PREDICATE,
    SHA256,
    STATEMENT_TYPE,
    UPDATE_PREDICATE,
    Phase,
    check_count,
    check_digest,
    check_identity,
    check_participant,
    check_same,
    check_times,
    decode,
    encode,
    phase_of,
    unknown_predicate,
)
from fltrust.updates.receipt import AdmittedUpdate, SealedRoundStatement

__all__ = [
    "INSTRUCTION_PREDICATE",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEALED_PAYLOAD_BYTES",
    "SEALED_ROUND_PREDICATE",
    "STATEMENT_TYPE",
    "UPDATE_PREDICATE",
    "AdmittedUpdate",
    "Exchange",
    "InstructionStatement",
    "Phase",
    "SealedRoundStatement",
    "Statement",
    "UpdateStatement",
    "parse_statement",
    "phase_of",
]

_INSTRUCTION_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What an instruction and its answer both bind.

    `content` digests the message without our own record and `model` the model that the
    instruction carries; `certificate` is the SHA-256 of the signer's leaf in DER.
    """

    domain: TrustDomain
    run_id: RunId
    round: int
    phase: Phase
    step: int
    instruction_id: str
    participant: SpiffeId
    node_id: NodeId
    node_key: KeyId
    message_type: str
    content: Digest
    model: Digest
    certificate: Digest

    def __post_init__(self) -> None:
        check_count(self.round, "round")
        check_count(self.step, "step")
        if phase_of(self.message_type) is not self.phase:
            raise Malformed(f"expected a message type of phase {self.phase}, got {self.message_type!r}")
        if not _INSTRUCTION_ID.match(self.instruction_id):
            raise Malformed(f"expected an instruction id of 32 hex digits, got {self.instruction_id[:80]!r}")
        check_participant(self.participant)
        check_digest(self.content, CONTENT_ALGORITHM, "content")
        check_digest(self.model, MODEL_ALGORITHM, "model")
        check_digest(self.certificate, SHA256, "certificate")

    def _predicate(self) -> dict[str, object]:
        return {
            "domain": self.domain,
            "runId": str(int(self.run_id)),
            "round": self.round,
            "phase": self.phase,
            "step": self.step,
            "instructionId": self.instruction_id,
            "participant": str(self.participant),
            "nodeId": str(int(self.node_id)),
            "nodeKey": self.node_key,
            "messageType": self.message_type,
            "model": str(self.model),
            "certificate": str(self.certificate),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionStatement(Exchange):
    """An aggregator tells one participant's node to do one thing, until `expires_at`."""

    predicate_type: ClassVar[str] = INSTRUCTION_PREDICATE

    aggregator: SpiffeId
    issued_at: datetime
    expires_at: datetime

    def __post_init__(self) -> None:
        Exchange.__post_init__(self)
        check_identity(self.aggregator, Role.AGGREGATOR, self.domain)
        check_times(self.issued_at, self.expires_at)
        if self.expires_at <= self.issued_at:
            raise Malformed("expected an instruction to expire after it was issued")

    @property
    def signer(self) -> SpiffeId:
        return self.aggregator

    @property
    def claimed_at(self) -> datetime:
        """When the signer says that it signed."""
        return self.issued_at

    def to_payload(self) -> bytes:
        """The bytes to sign."""
        predicate = self._predicate() | {
            "aggregator": str(self.aggregator),
            "issuedAt": to_rfc3339(self.issued_at),
            "expiresAt": to_rfc3339(self.expires_at),
        }
        return encode(self.predicate_type, f"instruction/{self.instruction_id}", self.content, predicate)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read what `to_payload` writes; raises `Oversized`, `Malformed` or `StatementRefused`."""
        subject, fields = decode(payload, cls.predicate_type, limit=MAX_PAYLOAD_BYTES)
        statement = cls(
            **_exchange(subject, fields),
            aggregator=fields.spiffe_id("aggregator"),
            issued_at=fields.time("issuedAt"),
            expires_at=fields.time("expiresAt"),
        )
        fields.done()
        check_same(statement.to_payload(), payload)
        return statement


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatement(Exchange):
    """A participant's one answer to one instruction.

    `instruction` is the SHA-256 of that instruction's payload, `model` the model trained
    from, `content` the reply itself.
    """

    predicate_type: ClassVar[str] = UPDATE_PREDICATE

    instruction: Digest
    signed_at: datetime

    def __post_init__(self) -> None:
        Exchange.__post_init__(self)
        check_digest(self.instruction, SHA256, "instruction")
        check_times(self.signed_at)

    @property
    def signer(self) -> SpiffeId:
        return self.participant

    @property
    def claimed_at(self) -> datetime:
        """When the signer says that it signed."""
        return self.signed_at

    def to_payload(self) -> bytes:
        """The bytes to sign."""
        predicate = self._predicate() | {
            "instruction": str(self.instruction),
            "signedAt": to_rfc3339(self.signed_at),
        }
        name = f"update/{self.instruction_id}/{self.participant.name}"
        return encode(self.predicate_type, name, self.content, predicate)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read what `to_payload` writes; raises `Oversized`, `Malformed` or `StatementRefused`."""
        subject, fields = decode(payload, cls.predicate_type, limit=MAX_PAYLOAD_BYTES)
        statement = cls(
            **_exchange(subject, fields),
            instruction=fields.digest("instruction"),
            signed_at=fields.time("signedAt"),
        )
        fields.done()
        check_same(statement.to_payload(), payload)
        return statement


Statement: TypeAlias = InstructionStatement | UpdateStatement | SealedRoundStatement

_KINDS: dict[str, type[InstructionStatement] | type[UpdateStatement] | type[SealedRoundStatement]] = {
    kind.predicate_type: kind for kind in (InstructionStatement, UpdateStatement, SealedRoundStatement)
}


def parse_statement(payload: bytes, *, limit: int = MAX_PAYLOAD_BYTES) -> Statement:
    """Read a statement of whichever kind the payload names, strictly.

    Raises `Oversized`, `Malformed`, or `StatementRefused` with ``unknown-type`` for a
    predicate or message type that is not ours. Give `MAX_SEALED_PAYLOAD_BYTES` for receipts.
    """
    value = strictjson.decode(payload, limit=limit, what="a statement")
    predicate_type = value.get("predicateType")
    kind = _KINDS.get(predicate_type) if isinstance(predicate_type, str) else None
    if kind is None:
        raise unknown_predicate(predicate_type)
    return kind.from_payload(payload)


def _exchange(subject: Digest, fields: Fields) -> dict[str, Any]:
    return {
        "domain": fields.domain("domain"),
        "run_id": RunId(fields.decimal("runId", bits=64)),
        "round": fields.number("round"),
        "phase": fields.choice("phase", Phase),
        "step": fields.number("step"),
        "instruction_id": fields.text("instructionId", limit=32),
        "participant": fields.spiffe_id("participant"),
        "node_id": NodeId(fields.decimal("nodeId", bits=64)),
        "node_key": fields.key_id("nodeKey"),
        "message_type": fields.text("messageType", limit=MAX_MESSAGE_TYPE),
        "content": subject,
        "model": fields.digest("model"),
        "certificate": fields.digest("certificate"),
    }
