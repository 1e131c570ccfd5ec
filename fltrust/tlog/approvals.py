"""What operators decide, as log entries: requests to enroll, and sensitive operations.

Neither the id of a request nor the words of an operation are public: a digest stands for each, and who is
shown what it is of can check it. Names are public names, as everywhere in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from fltrust.errors import Malformed
from fltrust.identity import Digest, Role
from fltrust.strictjson import Fields
from fltrust.tlog.stated import PublicName, check_word, encode, take_name

MAX_NEEDED = 16


class RequestWord(StrEnum):
    """What happened to a request."""

    SUBMITTED = "submitted"
    APPROVED = "approved"
    """One operator approved; enough have where `count` reaches `needed`."""
    REOPENED = "reopened"
    """Approvals no longer count, since their operator was revoked or held."""
    DENIED = "denied"
    EXPIRED = "expired"
    ISSUED = "issued"


class OperationWord(StrEnum):
    """What happened to an operation."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    EXECUTED = "executed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRequestEntry:
    """One step of a request to enroll that operators decide.

    `request` is the SHA-256 of its id; `decision` that of the canonical JSON
    ``{"at","decision","operator","reason","request","serial"}``, in which ``request`` is the id itself.
    """

    kind: ClassVar[str] = "enrollment-request"
    at: datetime
    request: Digest
    step: RequestWord
    protocol: str
    evidence: str
    role: Role | None
    name: PublicName | None
    operator: PublicName | None = None
    decision: Digest | None = None
    count: int = 0
    """Operators whose approval counts now."""
    needed: int = 0

    def __post_init__(self) -> None:
        check_word(self.protocol, "the protocol of a request")
        check_word(self.evidence, "the evidence of a request")
        _check_counts(self.count, self.needed)

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "request": str(self.request),
                "step": self.step,
                "protocol": self.protocol,
                "evidence": self.evidence,
                "role": self.role,
                "name": self.name,
                "operator": self.operator,
                "decision": None if self.decision is None else str(self.decision),
                "count": self.count,
                "needed": self.needed,
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> EnrollmentRequestEntry:
        return cls(
            at=fields.time("at"),
            request=fields.digest("request"),
            step=fields.choice("step", RequestWord),
            protocol=fields.text("protocol", limit=64),
            evidence=fields.text("evidence", limit=64),
            role=None if fields.is_null("role") else fields.choice("role", Role),
            name=None if fields.is_null("name") else take_name(fields, "name"),
            operator=None if fields.is_null("operator") else take_name(fields, "operator"),
            decision=fields.optional_digest("decision"),
            count=fields.number("count"),
            needed=fields.number("needed"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEntry:
    """One step of a sensitive operation.

    `operation` is the SHA-256 of its words, as its operators signed them; `decision` that of the payload of
    one operator's signed decision; `result` that of what its execution answered.
    """

    kind: ClassVar[str] = "operation"
    at: datetime
    operation: Digest
    operation_kind: str
    step: OperationWord
    operator: PublicName | None = None
    decision: Digest | None = None
    result: Digest | None = None
    count: int = 0
    needed: int = 0

    def __post_init__(self) -> None:
        check_word(self.operation_kind, "the kind of an operation")
        _check_counts(self.count, self.needed)

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "operation": str(self.operation),
                "operationKind": self.operation_kind,
                "step": self.step,
                "operator": self.operator,
                "decision": None if self.decision is None else str(self.decision),
                "result": None if self.result is None else str(self.result),
                "count": self.count,
                "needed": self.needed,
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> OperationEntry:
        return cls(
            at=fields.time("at"),
            operation=fields.digest("operation"),
            operation_kind=fields.text("operationKind", limit=64),
            step=fields.choice("step", OperationWord),
            operator=None if fields.is_null("operator") else take_name(fields, "operator"),
            decision=fields.optional_digest("decision"),
            result=fields.optional_digest("result"),
            count=fields.number("count"),
            needed=fields.number("needed"),
        )


def _check_counts(count: int, needed: int) -> None:
    if not (0 <= needed <= MAX_NEEDED and count >= 0):
        raise Malformed(f"expected 0 to {MAX_NEEDED} operators to be needed, got {needed}")
