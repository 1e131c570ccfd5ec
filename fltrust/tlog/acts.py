"""Acts of the coordinator as log entries: canonical JSON with ``"type":"urn:fltrust:log:<kind>:v1"``.

Names are public names: a SPIFFE ID, or the pseudonym that stands for it. What may be large is listed up
to a bound, and counted and digested beyond it: an act is never kept from the log by its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, Role, RunId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.tlog.approvals import EnrollmentRequestEntry, OperationEntry
from fltrust.tlog.keyacts import KeyDestroyed, KeyUsed
from fltrust.tlog.stated import MAX_NAME, PublicName, check_word, encode, take_name, type_name
from fltrust.tlog.taints import Taint
from fltrust.tlog.trustevents import TrustEventEntry


class PublicNames(StrEnum):
    """Under which names participants stand in the log; chosen when it is opened, for good."""

    SPIFFE = "spiffe"
    PSEUDONYMS = "pseudonyms"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOpened:
    """The first entry: whose log it is, and what was chosen for good."""

    kind: ClassVar[str] = "log-opened"
    at: datetime
    domain: TrustDomain
    origin: str
    """The first line of every checkpoint."""
    log_key: str
    """The key that checkpoints are signed with, as a vkey (C2SP signed-note)."""
    public_names: PublicNames
    imported: int = 0
    """So many entries after this one are of acts that were recorded before there was a log."""

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "trustDomain": self.domain,
                "origin": self.origin,
                "logKey": self.log_key,
                "publicNames": self.public_names,
                "imported": self.imported,
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> LogOpened:
        return cls(
            at=fields.time("at"),
            domain=fields.domain("trustDomain"),
            origin=fields.text("origin", limit=MAX_NAME),
            log_key=fields.text("logKey", limit=MAX_NAME),
            public_names=fields.choice("publicNames", PublicNames),
            imported=fields.number("imported"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantCertificate:
    """A participant's certificate where participants have pseudonyms: its digest, not its names."""

    kind: ClassVar[str] = "participant-certificate"
    at: datetime
    name: PublicName
    certificate: Digest
    not_before: datetime
    not_after: datetime

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "name": self.name,
                "certificate": str(self.certificate),
                "notBefore": to_rfc3339(self.not_before),
                "notAfter": to_rfc3339(self.not_after),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> ParticipantCertificate:
        return cls(
            at=fields.time("at"),
            name=take_name(fields, "name"),
            certificate=fields.digest("certificate"),
            not_before=fields.time("notBefore"),
            not_after=fields.time("notAfter"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRefused:
    """Somebody showed a join token that is known and no longer good; `token_id` is not its secret."""

    kind: ClassVar[str] = "enrollment-refused"
    at: datetime
    token_id: str
    role: Role
    name: PublicName
    reason: str
    """``token-used``, ``token-expired`` or ``token-cancelled``."""

    def __post_init__(self) -> None:
        check_word(self.reason, "the reason of a refusal")
        if not 0 < len(self.token_id) <= 64:
            raise Malformed(f"expected a token id of 1 to 64 characters, got {len(self.token_id)}")

    def encode(self) -> bytes:
        return encode(
            self, {"tokenId": self.token_id, "role": self.role, "name": self.name, "reason": self.reason}
        )

    @classmethod
    def parse(cls, fields: Fields) -> EnrollmentRefused:
        return cls(
            at=fields.time("at"),
            token_id=fields.text("tokenId", limit=64),
            role=fields.choice("role", Role),
            name=take_name(fields, "name"),
            reason=fields.text("reason", limit=64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRound:
    """A round was sealed. `receipt` is the SHA-256 of the receipt's payload, which says who was admitted."""

    kind: ClassVar[str] = "sealed-round"
    at: datetime
    run_id: RunId
    step: int
    round: int
    phase: str
    aggregator: PublicName
    epoch: Epoch
    admitted: int
    refused: int
    receipt: Digest

    def __post_init__(self) -> None:
        check_word(self.phase, "the phase of a round")

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "runId": str(self.run_id),
                "step": self.step,
                "round": self.round,
                "phase": self.phase,
                "aggregator": self.aggregator,
                "epoch": str(self.epoch),
                "admitted": self.admitted,
                "refused": self.refused,
                "receipt": str(self.receipt),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> SealedRound:
        return cls(
            at=fields.time("at"),
            run_id=RunId(fields.decimal("runId", bits=64)),
            step=fields.number("step"),
            round=fields.number("round"),
            phase=fields.text("phase", limit=64),
            aggregator=take_name(fields, "aggregator"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            admitted=fields.number("admitted"),
            refused=fields.number("refused"),
            receipt=fields.digest("receipt"),
        )


Act = (
    LogOpened
    | ParticipantCertificate
    | TrustEventEntry
    | EnrollmentRefused
    | SealedRound
    | Taint
    | EnrollmentRequestEntry
    | OperationEntry
    | KeyUsed
    | KeyDestroyed
)

ACTS: dict[str, type[Act]] = {
    act.kind: act
    for act in (
        LogOpened,
        ParticipantCertificate,
        TrustEventEntry,
        EnrollmentRefused,
        SealedRound,
        Taint,
        EnrollmentRequestEntry,
        OperationEntry,
        KeyUsed,
        KeyDestroyed,
    )
}


def parse_act(data: bytes, fields: Fields) -> Act:
    """Read the act in `data`, of which `fields` are the object; its type decides.

    `Malformed` for an unknown type (``unknown-type``), and for a value in any form but the one that
    `encode` gives it (a time with other digits, say).
    """
    name = fields.text("type", limit=128)
    found = next((act for word, act in ACTS.items() if type_name(word) == name), None)
    if found is None:
        raise Malformed(f"expected a log entry of a known type, got {name!r}", reason="unknown-type")
    act = found.parse(fields)
    fields.done()
    if act.encode() != data:
        raise Malformed(f"expected {name} in its one byte form, got another")
    return act
