"""Requests that operators decide, and bulk, on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fltrust.enrollment.approvals import MAX_REASON, Decision
from fltrust.enrollment.bulk import (
    MAX_ITEMS,
    BulkAnswer,
    BulkItem,
    BulkResult,
    Refusal,
)
from fltrust.enrollment.requests import Assignment, RequestState, RequestView
from fltrust.enrollment.types import EnrollmentProtocol, Issued, Pending
from fltrust.errors import Malformed
from fltrust.identity import KeyId, Name, Role, Serial, SpiffeId
from fltrust.pki.csr import MAX_CSR
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN
from fltrust.wire.enrollment import (
    MAX_NODE_KEY,
    MAX_PROOF,
    bundle_from_pb,
    bundle_to_pb,
    dns_names_from_pb,
    issued_from_pb,
    issued_to_pb,
)
from fltrust.wire.pb import enrollment_pb2, requests_pb2
from fltrust.wire.values import (
    at_most,
    bounded,
    bounded_or_none,
    present,
    spiffe_or_none,
    text_of,
    text_within,
    time_from_field,
    time_to_pb,
    word,
)

MAX_REQUEST_ID = 64
MAX_PAGE = 256
_MAX_CLAIMS = 32
_MAX_CLAIM = 512
_MAX_WORD = 64
_MAX_DECISIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """A request as an operator reads it; keys as their ids, to compare with what the site says."""

    request_id: str
    state: RequestState
    protocol: EnrollmentProtocol
    evidence: str
    key_id: KeyId
    node_key_id: KeyId | None
    who: Assignment | None
    granted_by: SpiffeId | None
    claims: dict[str, str]
    needed: int
    count: int
    submitted_at: datetime
    expires_at: datetime
    decisions: tuple[Decision, ...]

    @classmethod
    def of(cls, view: RequestView) -> RequestSummary:
        request, approval = view.request, view.request.approval
        return cls(
            request_id=request.request_id,
            state=request.state,
            protocol=request.protocol,
            evidence=request.evidence,
            key_id=request.key_id,
            node_key_id=None if request.node_key is None else KeyId.of_spki(request.node_key),
            who=None
            if approval is None
            else Assignment(
                role=approval.role,
                name=approval.name,
                dns_names=approval.dns_names,
                replace=approval.replace,
            ),
            granted_by=None if approval is None else approval.granted_by,
            claims=dict(request.claims),
            needed=request.needed,
            count=view.count,
            submitted_at=request.submitted_at,
            expires_at=request.expires_at,
            decisions=view.decisions,
        )


def summary_to_pb(found: RequestSummary) -> requests_pb2.EnrollmentRequest:
    who = found.who
    return requests_pb2.EnrollmentRequest(
        request_id=found.request_id,
        state=found.state,
        protocol=found.protocol,
        evidence=found.evidence,
        key_id=found.key_id,
        node_key_id=text_of(found.node_key_id),
        role="" if who is None else who.role,
        name="" if who is None else who.name,
        dns_names=() if who is None else who.dns_names,
        replace=who is not None and who.replace,
        granted_by=text_of(found.granted_by),
        claims=found.claims,
        needed=found.needed,
        count=found.count,
        submitted_at=time_to_pb(found.submitted_at),
        expires_at=time_to_pb(found.expires_at),
        decisions=map(decision_to_pb, found.decisions),
    )


def summary_from_pb(message: requests_pb2.EnrollmentRequest) -> RequestSummary:
    at_most(message.decisions, _MAX_DECISIONS, what="decisions on a request")
    who = None
    if message.role:
        who = Assignment(
            role=word(Role, message.role, what="a role"),
            name=Name(message.name),
            dns_names=dns_names_from_pb(message.dns_names),
            replace=message.replace,
        )
    return RequestSummary(
        request_id=text_within(message.request_id, limit=MAX_REQUEST_ID, what="a request id"),
        state=word(RequestState, message.state, what="a request's state"),
        protocol=word(EnrollmentProtocol, message.protocol, what="a protocol"),
        evidence=text_within(message.evidence, limit=_MAX_WORD, what="a kind of evidence"),
        key_id=KeyId(message.key_id),
        node_key_id=KeyId(message.node_key_id) if message.node_key_id else None,
        who=who,
        granted_by=spiffe_or_none(message.granted_by),
        claims=claims_from_pb(message.claims),
        needed=message.needed,
        count=message.count,
        submitted_at=time_from_field(message, "submitted_at"),
        expires_at=time_from_field(message, "expires_at"),
        decisions=tuple(map(decision_from_pb, message.decisions)),
    )


def claims_from_pb(claims: Mapping[str, str]) -> dict[str, str]:
    """Read what evidence said; at most 32 claims of 512 characters."""
    found = dict(claims)
    at_most(found, _MAX_CLAIMS, what="claims of evidence")
    for key, value in found.items():
        text_within(key + value, limit=_MAX_CLAIM, what="a claim of evidence")
    return found


def decision_to_pb(decision: Decision) -> requests_pb2.Decision:
    return requests_pb2.Decision(
        operator=str(decision.operator),
        serial=decision.serial.hex,
        is_approval=decision.is_approval,
        reason=decision.reason,
        at=time_to_pb(decision.at),
    )


def decision_from_pb(message: requests_pb2.Decision) -> Decision:
    return Decision(
        operator=SpiffeId.parse(message.operator),
        serial=Serial.parse(message.serial),
        is_approval=message.is_approval,
        reason=text_within(message.reason, limit=MAX_REASON, what="a reason"),
        at=time_from_field(message, "at"),
    )


def assignment_to_pb(who: Assignment) -> requests_pb2.Assignment:
    return requests_pb2.Assignment(role=who.role, name=who.name, dns_names=who.dns_names, replace=who.replace)


def assignment_from_pb(message: requests_pb2.Assignment) -> Assignment:
    return Assignment(
        role=word(Role, message.role, what="a role"),
        name=Name(message.name),
        dns_names=dns_names_from_pb(message.dns_names),
        replace=message.replace,
    )


def request_id_from_pb(text: str) -> str:
    if not text:
        raise Malformed("expected the id of a request, got nothing")
    return text_within(text, limit=MAX_REQUEST_ID, what="a request id")


def approve_request_from_pb(
    message: requests_pb2.ApproveRequestRequest,
) -> tuple[str, str, Assignment | None]:
    """Id, reason and the name for a request without evidence."""
    assignment = assignment_from_pb(message.assignment) if message.HasField("assignment") else None
    reason = text_within(message.reason, limit=MAX_REASON, what="a reason")
    return request_id_from_pb(message.request_id), reason, assignment


def outcome_to_pb(
    outcome: Issued | Pending,
) -> tuple[enrollment_pb2.IssuedCertificate | None, enrollment_pb2.PendingRequest | None]:
    """What stands in the answer to Enroll and to Collect: a certificate, or that operators decide."""
    if isinstance(outcome, Issued):
        return issued_to_pb(outcome), None
    pending = enrollment_pb2.PendingRequest(
        request_id=outcome.request_id,
        retry_after_seconds=max(1, int(outcome.retry_after.total_seconds())),
    )
    return None, pending


def outcome_from_pb(
    message: enrollment_pb2.EnrollResponse | enrollment_pb2.CollectResponse,
) -> Issued | Pending:
    """Read either; `Malformed` for neither."""
    if message.WhichOneof("outcome") == "pending":
        seconds = min(max(1, message.pending.retry_after_seconds), 24 * 3600)
        return Pending(request_id_from_pb(message.pending.request_id), timedelta(seconds=seconds))
    present(message, "issued")
    return issued_from_pb(message.issued)


def items_to_pb(items: Iterable[BulkItem]) -> list[requests_pb2.BulkItem]:
    return [
        requests_pb2.BulkItem(
            who=assignment_to_pb(item.who),
            csr=item.csr_der,
            node_key=item.node_key or b"",
            node_key_proof=item.node_key_proof or b"",
            proof=item.proof or b"",
        )
        for item in items
    ]


def items_from_pb(messages: Sequence[requests_pb2.BulkItem]) -> tuple[BulkItem, ...]:
    """Read at most `MAX_ITEMS` items."""
    at_most(messages, MAX_ITEMS, what="items in one call")
    return tuple(
        BulkItem(
            who=assignment_from_pb(message.who),
            csr_der=bounded(message.csr, limit=MAX_CSR, what="a certificate request"),
            node_key=bounded_or_none(message.node_key, limit=MAX_NODE_KEY, what="a node key"),
            node_key_proof=bounded_or_none(
                message.node_key_proof, limit=MAX_PROOF, what="a node key's proof"
            ),
            proof=bounded_or_none(message.proof, limit=MAX_PROOF, what="a proof"),
        )
        for message in messages
    )


def assignments_from_pb(messages: Sequence[requests_pb2.Assignment]) -> tuple[Assignment, ...]:
    at_most(messages, MAX_ITEMS, what="items in one call")
    return tuple(map(assignment_from_pb, messages))


def answer_to_pb(
    answer: BulkAnswer, kind: type[requests_pb2.EnrollBulkResponse] | type[requests_pb2.RenewBulkResponse]
) -> requests_pb2.EnrollBulkResponse | requests_pb2.RenewBulkResponse:
    return kind(
        results=map(_result_to_pb, answer.results), issuers=answer.issuers, bundle=bundle_to_pb(answer.bundle)
    )


def answer_from_pb(
    message: requests_pb2.EnrollBulkResponse | requests_pb2.RenewBulkResponse,
) -> BulkAnswer:
    at_most(message.results, MAX_ITEMS, what="results in one answer")
    at_most(message.issuers, MAX_CHAIN, what="certificates in a chain")
    present(message, "bundle")
    return BulkAnswer(
        results=tuple(map(_result_from_pb, message.results)),
        issuers=tuple(bounded(der, limit=MAX_CERTIFICATE, what="a certificate") for der in message.issuers),
        bundle=bundle_from_pb(message.bundle),
    )


def _result_to_pb(result: BulkResult) -> requests_pb2.BulkResult:
    message = requests_pb2.BulkResult(spiffe_id=str(result.spiffe_id))
    if result.certificate is not None:
        message.certificate = result.certificate
    elif result.request_id is not None:
        message.request_id = result.request_id
    elif result.refused is not None:
        message.refused.reason = result.refused.reason
        message.refused.message = result.refused.message[:_MAX_CLAIM]
    return message


def _result_from_pb(message: requests_pb2.BulkResult) -> BulkResult:
    who = SpiffeId.parse(message.spiffe_id)
    match message.WhichOneof("outcome"):
        case "certificate":
            der = bounded(message.certificate, limit=MAX_CERTIFICATE, what="a certificate")
            return BulkResult(spiffe_id=who, certificate=der)
        case "request_id":
            return BulkResult(spiffe_id=who, request_id=request_id_from_pb(message.request_id))
        case "refused":
            refused = Refusal(
                reason=text_within(message.refused.reason, limit=_MAX_WORD, what="a reason"),
                message=text_within(message.refused.message, limit=_MAX_CLAIM, what="a message"),
            )
            return BulkResult(spiffe_id=who, refused=refused)
        case _:
            raise Malformed(f"expected what became of {who}, got nothing")
