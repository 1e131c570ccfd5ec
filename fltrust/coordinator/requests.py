"""Requests that operators decide: kept, approved by enough of them or denied, and issued when collected.

A certificate is issued when its requester comes for it, not when it is approved: it lives for an hour, and
who asked may come back tomorrow.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

from fltrust.coordinator.approval_book import request_entry
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.operators import stands_well
from fltrust.enrollment.approvals import (
    MANUAL,
    ApprovalPolicy,
    Decision,
    check_four_eyes,
    check_reason,
    count_approvals,
)
from fltrust.enrollment.registration import CheckedRequest
from fltrust.enrollment.requests import (
    CERTIFIED,
    OPEN,
    Assignment,
    Request,
    RequestState,
    RequestStep,
    RequestView,
    advance,
)
from fltrust.enrollment.types import Approval, EnrollRequest, Evidence, Issued, Pending
from fltrust.errors import Conflict, LimitExceeded, Malformed, NotFound, PermissionDenied, RequestDenied
from fltrust.identity import Name, Role, SpiffeId
from fltrust.pki.csr import parse_request
from fltrust.pki.types import VerifiedCertificate
from fltrust.tlog.approvals import RequestWord

MAX_OPEN = 4_096
"""Requests of one kind of evidence that no operator granted and that wait, in all."""
MAX_OPEN_OF_SOURCE = 16
"""The same from one source."""
RETRY_AFTER = timedelta(seconds=15)


def digest_of(evidence: Evidence) -> bytes:
    """What the record keeps of evidence: enough to know it again."""
    return sha256(b"fltrust-evidence-v1\n" + evidence.binding()).digest()


class RequestDesk:
    """Keeps requests and decides them; what is issued is the enroller's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        policy: ApprovalPolicy,
        check: Callable[[Approval, CheckedRequest, Work, str], None],
        entropy: Callable[[int], bytes],
    ) -> None:
        """`check` raises where an approved request, with that kind of evidence, could not be issued as
        things stand."""
        self._ledger = ledger
        self.policy = policy
        self._check = check
        self._entropy = entropy
        self.published_size: Callable[[], int] | None = None
        """How much of the log is public; None where it is not served."""

    def find(self, request: EnrollRequest, checked: CheckedRequest, work: Work) -> Request | None:
        """The request that this one repeats: same key, same evidence. An answer may have been lost."""
        known = work.tx.requests.find(checked.key_id, digest_of(request.evidence))
        if known is None or known.state_at(work.now) not in OPEN | CERTIFIED:
            return None
        if known.node_key != checked.node_key:
            raise Conflict(
                "expected the node key that this request was first sent with, got another",
                reason="request-differs",
                hint="ask anew, with a new certificate key",
            )
        return known

    def keep(
        self,
        request: EnrollRequest,
        checked: CheckedRequest,
        approval: Approval | None,
        work: Work,
        *,
        evidence: str,
        claims: dict[str, str] | None = None,
    ) -> Pending:
        """Take a request in for operators to decide; without an `approval`, its name, too."""
        self._sweep(work)
        if approval is None or approval.granted_by is None:
            self._bound(request.source, evidence, work)
        kept = Request(
            request_id=self._entropy(16).hex(),
            state=RequestState.SUBMITTED,
            protocol=request.protocol,
            evidence=evidence,
            evidence_digest=digest_of(request.evidence),
            csr_der=request.csr_der,
            key_id=checked.key_id,
            node_key=checked.node_key,
            approval=approval,
            source=request.source[:64],
            needed=self.policy.needed(approval, evidence=evidence, protocol=request.protocol),
            submitted_at=work.now,
            expires_at=work.now + self.policy.decide_within,
            claims=dict(approval.claims) if approval is not None else claims or {},
        )
        if approval is not None:
            kept = replace(kept, state=advance(kept.state, RequestStep.CHECK))
        work.tx.requests.add(kept)
        if approval is not None:  # what anybody can send is logged when an operator has looked at it
            self._note(kept, RequestWord.SUBMITTED, work)
        return Pending(kept.request_id, RETRY_AFTER)

    def resume(self, known: Request, work: Work) -> Request | Pending | RequestDenied:
        """Where a request stands for who asks about it: to be issued, issued, waiting, or over.

        Approvals are counted once more: an operator who was revoked meanwhile has approved nothing.
        """
        state = known.state_at(work.now)
        if state in CERTIFIED:
            return known
        if state is RequestState.APPROVED:
            count = self._count(known, work)
            if count >= known.needed:
                return known
            known = replace(known, state=advance(known.state, RequestStep.REOPEN), decided_at=None)
            work.tx.requests.put(known)
            self._note(known, RequestWord.REOPENED, work, count=count)
        elif state not in OPEN:
            return _over(replace(known, state=state))
        return Pending(known.request_id, RETRY_AFTER)

    def collected(self, request_id: str, checked: CheckedRequest, work: Work) -> Request:
        """The request with this id and this key. `NotFound` says not which of the two was wrong."""
        known = work.tx.requests.get(request_id) if len(request_id) == 32 else None
        if known is None or not hmac.compare_digest(known.key_id, checked.key_id):
            raise NotFound("no request with this id and this key is known here")
        return known

    def issued(self, known: Request, issued: Issued, work: Work) -> None:
        """Write down that a request was issued."""
        leaf = work.tx.certificates.by_key(known.key_id)
        known = replace(
            known,
            state=advance(known.state, RequestStep.ISSUE),
            serial=None if leaf is None else leaf.serial,
            log_size=work.tx.tlog.head.size,
            issuers=issued.chain_der[1:],
        )
        work.tx.requests.put(known)
        self._note(known, RequestWord.ISSUED, work)

    def deliver(self, request_id: str, work: Work) -> None:
        """Write down that the certificate was handed over; it may have been before."""
        known = work.tx.requests.get(request_id)
        if known is not None and known.state is RequestState.ISSUED:
            work.tx.requests.put(replace(known, state=advance(known.state, RequestStep.DELIVER)))

    def approve(
        self,
        request_id: str,
        *,
        reason: str,
        assignment: Assignment | None,
        caller: VerifiedCertificate,
    ) -> RequestView:
        """Count one operator's approval; the one that completes the number approves the request.

        1. The request waits, and the caller stands well, under the lock.
        2. A request without evidence is given its name by its first approval, and every other names the same;
           any other request has its name from its evidence, and nobody gives it one.
        3. Four eyes: who granted the evidence does not approve.
        4. It could be issued as things stand.
        5. Approvals of operators who stand well now are counted, each operator once.
        """
        reason = check_reason(reason)
        with self._ledger.writing() as work:
            # 1.
            work.state.judge(caller)
            known = self._open(request_id, work, RequestStep.APPROVE)
            # 2.
            approval = _assigned(known, assignment, by=caller.spiffe_id)
            needed = self.policy.needed(approval, evidence=known.evidence, protocol=known.protocol)
            known = replace(known, approval=approval, needed=max(known.needed, needed))
            # 3.
            check_four_eyes(caller.spiffe_id, asked=_asker(known), needed=known.needed)
            # 4.
            self._check(approval, checked_again(known), work, known.evidence)
            if known.state is RequestState.SUBMITTED:
                known = replace(known, state=advance(known.state, RequestStep.CHECK))
            # 5.
            decision = Decision(
                operator=caller.spiffe_id,
                serial=caller.serial,
                is_approval=True,
                reason=reason,
                at=work.now,
            )
            work.tx.requests.decide(request_id, decision)
            count = self._count(known, work)
            if count >= known.needed and known.state is RequestState.CHECKED:
                known = replace(
                    known,
                    state=advance(known.state, RequestStep.APPROVE),
                    decided_at=work.now,
                    expires_at=work.now + self.policy.decide_within,
                )
            work.tx.requests.put(known)
            self._note(known, RequestWord.APPROVED, work, decision=decision, count=count)
            return self._view(known, work)

    def deny(self, request_id: str, *, reason: str, caller: VerifiedCertificate) -> RequestView:
        """Deny a request for good, approved or not, as long as nothing was issued; any operator can."""
        reason = check_reason(reason)
        with self._ledger.writing() as work:
            work.state.judge(caller)
            known = self._open(request_id, work, RequestStep.DENY)
            decision = Decision(
                operator=caller.spiffe_id,
                serial=caller.serial,
                is_approval=False,
                reason=reason,
                at=work.now,
            )
            work.tx.requests.decide(request_id, decision)
            known = replace(
                known,
                state=advance(known.state, RequestStep.DENY),
                decided_at=work.now,
                reason=reason,
            )
            work.tx.requests.put(known)
            self._note(known, RequestWord.DENIED, work, decision=decision)
            return self._view(known, work)

    def get(self, request_id: str, *, caller: VerifiedCertificate) -> RequestView:
        """One request, for an operator; `NotFound` if there is none."""
        with self._ledger.writing() as work:
            work.state.judge(caller)
            self._sweep(work)
            return self._view(_known(work.tx.requests.get(request_id)), work)

    def list(
        self, *, caller: VerifiedCertificate, after: str = "", limit: int = 256, open_only: bool = False
    ) -> tuple[RequestView, ...]:
        """Requests by id, after an id; with `open_only`, those that may still be issued."""
        states = OPEN if open_only else frozenset(RequestState)
        with self._ledger.writing() as work:
            work.state.judge(caller)
            self._sweep(work)
            found = work.tx.requests.select(states, after=after, limit=limit)
            views = [self._view(request, work) for request in found]
        return tuple(view for view in views if view.request.state in states)

    def _open(self, request_id: str, work: Work, step: RequestStep) -> Request:
        """The request, if the step is possible; an approval may come to one that is approved already."""
        known = _known(work.tx.requests.get(request_id))
        state = known.state_at(work.now)
        if step is RequestStep.DENY or state not in OPEN:
            advance(state, step)
        return known

    def _count(self, known: Request, work: Work) -> int:
        return count_approvals(
            work.tx.requests.decisions(known.request_id),
            asked=_asker(known),
            is_good=lambda who, serial: stands_well(who, serial, work),
        )

    def _view(self, known: Request, work: Work) -> RequestView:
        return RequestView(
            request=replace(known, state=known.state_at(work.now)),
            decisions=work.tx.requests.decisions(known.request_id),
            count=self._count(known, work),
        )

    def _bound(self, source: str, evidence: str, work: Work) -> None:
        requests = work.tx.requests
        if requests.count_open(work.now, evidence=evidence, source=source[:64]) >= MAX_OPEN_OF_SOURCE:
            raise LimitExceeded(
                f"expected at most {MAX_OPEN_OF_SOURCE} requests of one source to wait for operators",
                reason="too-many-requests",
                hint="ask the operator to decide those that wait",
            )
        if requests.count_open(work.now, evidence=evidence) >= MAX_OPEN:
            raise LimitExceeded(
                f"expected at most {MAX_OPEN} requests to wait for operators", reason="too-many-requests"
            )

    def _sweep(self, work: Work) -> None:
        """Write down what time has ended and what has become public; until then both count all the same."""
        for known in work.tx.requests.overdue(work.now):
            known = replace(known, state=advance(known.state, RequestStep.EXPIRE), decided_at=work.now)
            work.tx.requests.put(known)
            if known.approval is not None:  # what only strangers touched leaves no trace in the log
                self._note(known, RequestWord.EXPIRED, work)
        if self.published_size is not None:
            for known in work.tx.requests.unpublished(self.published_size()):
                work.tx.requests.put(replace(known, state=advance(known.state, RequestStep.PUBLISH)))

    def _note(
        self,
        known: Request,
        step: RequestWord,
        work: Work,
        *,
        decision: Decision | None = None,
        count: int = 0,
    ) -> None:
        work.log(request_entry(work.book, known, step, at=work.now, decision=decision, count=count))


def drop_requests(role: Role, name: Name, work: Work) -> None:
    """Deny every request for a name that is revoked: coming back needs a decision made after this one."""
    for known in work.tx.requests.open_of(role, name):
        known = replace(
            known,
            state=advance(known.state, RequestStep.DENY),
            decided_at=work.now,
            reason="the name was revoked",
        )
        work.tx.requests.put(known)
        work.log(request_entry(work.book, known, RequestWord.DENIED, at=work.now))


def _assigned(known: Request, assignment: Assignment | None, *, by: SpiffeId) -> Approval:
    if known.evidence != MANUAL:
        if assignment is not None:
            raise Malformed("expected no name for a request whose evidence gives it one")
        if known.approval is None:
            raise Malformed("expected a request with a name")
        return known.approval
    if assignment is None:
        raise Malformed(
            "expected the role and the name that this request without evidence is to have",
            hint="give them, also where another operator did before: everybody approves the same name",
        )
    found = Approval(
        assignment.role,
        assignment.name,
        assignment.replace,
        granted_by=by,
        dns_names=assignment.dns_names,
        claims=known.claims,
    )
    if known.approval is None:
        return found
    if replace(found, granted_by=known.approval.granted_by) != known.approval:
        raise Conflict(
            f"expected the name that was decided first, {known.approval.role}/{known.approval.name}, "
            f"got {assignment.role}/{assignment.name}",
            reason="request-assigned",
            hint="look at it again; deny it if that name is wrong",
        )
    return known.approval


def _asker(known: Request) -> SpiffeId | None:
    """The operator who asked: who granted the evidence. Of a request without, nobody: a stranger did."""
    return None if known.evidence == MANUAL or known.approval is None else known.approval.granted_by


def checked_again(known: Request) -> CheckedRequest:
    """The request's keys, which were checked when it came in."""
    return CheckedRequest(parse_request(known.csr_der), known.key_id, known.node_key, known.csr_der)


def _known(request: Request | None) -> Request:
    if request is None:
        raise NotFound("no such request is known here", hint="list them: fltrust requests list")
    return request


def _over(known: Request) -> RequestDenied:
    if known.state is RequestState.EXPIRED:
        return RequestDenied(
            "no operator decided this request in time, or nobody came for it",
            reason="request-expired",
            hint="ask anew",
        )
    return RequestDenied(f"an operator denied this request: {known.reason}", hint="ask the operator")


def check_manual(policy: ApprovalPolicy) -> None:
    """Raise `PermissionDenied` where requests without evidence are not taken."""
    if not policy.is_manual_taken:
        raise PermissionDenied(
            "expected evidence: this coordinator takes no request without",
            reason="manual-refused",
            hint="ask the operator for a join token",
        )
