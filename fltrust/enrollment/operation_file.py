"""An operation and its signed decisions in one file, which verifies with the roots alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fltrust import strictjson
from fltrust.enrollment.operation import (
    MAX_OPERATION,
    MAX_SIGNED_DECISION,
    Operation,
    Verdict,
    VerifiedDecision,
    verify_decision,
)
from fltrust.errors import Malformed, StatementRefused
from fltrust.pki.types import TrustBundle
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.strictjson import Fields

MAX_FILE = 4 * 2**20
_MAX_DECISIONS = 64


@dataclass(frozen=True, slots=True)
class OperationFile:
    """The words, and what was signed of them; nothing of it is verified yet."""

    TYPE: ClassVar[str] = "urn:fltrust:operation-file:v1"
    payload: bytes
    signed: tuple[bytes, ...]

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": self.TYPE,
                "operation": to_base64(self.payload),
                "decisions": [to_base64(item) for item in self.signed],
            }
        )


def read_operation_file(
    data: bytes, *, bundle: TrustBundle
) -> tuple[Operation, tuple[VerifiedDecision, ...]]:
    """Return the operation and its decisions, each verified at its own time; see `verify_decision`.

    The first decision is the proposer's own proposal, and no other one proposes, else `StatementRefused`.
    """
    what = "an operation's file"
    fields = Fields(strictjson.decode(data, limit=MAX_FILE, what=what), what)
    if (found := fields.text("type", limit=128)) != OperationFile.TYPE:
        raise Malformed(f"expected {OperationFile.TYPE!r}, got {found[:80]!r}", reason="unknown-type")
    payload = from_base64(fields.text("operation", limit=2 * MAX_OPERATION), "an operation")
    texts = fields.texts("decisions", limit=_MAX_DECISIONS, each=2 * MAX_SIGNED_DECISION)
    fields.done()
    operation = Operation.from_payload(payload)
    decisions = tuple(
        verify_decision(from_base64(text, "a decision"), operation, bundle=bundle) for text in texts
    )
    proposals = [d.decision.operator for d in decisions if d.decision.verdict is Verdict.PROPOSE]
    if proposals != [operation.proposer] or decisions[0].decision.verdict is not Verdict.PROPOSE:
        raise StatementRefused(
            "expected one proposal, by the proposer, before the other decisions", reason="wrong-proposer"
        )
    return operation, decisions
