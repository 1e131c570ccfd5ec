"""What operators decide, in the words of the log; pure, as `fltrust.coordinator.logbook`."""

from __future__ import annotations

from datetime import datetime

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.coordinator.logbook import Logbook
from fltrust.enrollment.approvals import Decision
from fltrust.enrollment.operation import VerifiedDecision
from fltrust.enrollment.operation_ports import OperationRecord
from fltrust.enrollment.requests import Request
from fltrust.identity import Digest, SpiffeId
from fltrust.tlog.approvals import EnrollmentRequestEntry, OperationEntry, OperationWord, RequestWord
from fltrust.tlog.entries import new_entry
from fltrust.tlog.ports import NewEntry


def request_subject(request_id: str) -> str:
    """What entries about a request are found by."""
    return f"request:{request_id}"


def operation_subject(operation_id: str) -> str:
    """What entries about an operation are found by."""
    return f"operation:{operation_id}"


def decision_digest(request_id: str, decision: Decision) -> Digest:
    """What stands in the log for an operator's words about a request; its id, which is secret, hides them."""
    return Digest.sha256_of(
        strictjson.encode(
            {
                "request": request_id,
                "operator": str(decision.operator),
                "serial": decision.serial.hex,
                "decision": "approve" if decision.is_approval else "deny",
                "reason": decision.reason,
                "at": to_rfc3339(decision.at),
            }
        )
    )


def request_entry(
    book: Logbook,
    request: Request,
    step: RequestWord,
    *,
    at: datetime,
    decision: Decision | None = None,
    count: int = 0,
) -> NewEntry:
    """One step of a request; found by its id, by the name it is for and by who decided."""
    approval = request.approval
    who = None if approval is None else SpiffeId(book.domain, approval.role, approval.name)
    operator = None if decision is None else decision.operator
    entry = EnrollmentRequestEntry(
        at=at,
        request=Digest.sha256_of(request.request_id.encode()),
        step=step,
        protocol=request.protocol,
        evidence=request.evidence,
        role=None if approval is None else approval.role,
        name=None if who is None else book.names.of(who),
        operator=None if operator is None else book.names.of(operator),
        decision=None if decision is None else decision_digest(request.request_id, decision),
        count=count,
        needed=request.needed,
    )
    subjects = [request_subject(request.request_id), *(str(x) for x in (who, operator) if x is not None)]
    return new_entry(entry, subjects=tuple(dict.fromkeys(subjects)))


def operation_entry(
    book: Logbook,
    record: OperationRecord,
    step: OperationWord,
    *,
    at: datetime,
    verified: VerifiedDecision | None,
    count: int,
    result: Digest | None,
) -> NewEntry:
    """One step of an operation; found by its id, its proposer and who decided."""
    operator = None if verified is None else verified.decision.operator
    entry = OperationEntry(
        at=at,
        operation=Digest.sha256_of(record.payload),
        operation_kind=record.kind,
        step=step,
        operator=None if operator is None else book.names.of(operator),
        decision=None if verified is None else verified.digest,
        result=result,
        count=count,
        needed=record.needed,
    )
    subjects = [operation_subject(record.operation_id), str(record.proposer)]
    if operator is not None:
        subjects.append(str(operator))
    return new_entry(entry, subjects=tuple(dict.fromkeys(subjects)))
