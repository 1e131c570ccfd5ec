"""Sensitive operations: proposed, signed by enough operators, executed in the transaction of the last one.

A kind of operation is an `Executor` in the registry. The registry knows nothing of what kinds do; a kind
knows nothing of who must approve. Four eyes: with ``[approvals] operations`` of one or more, so many
operators beside the proposer sign; with none, the proposer's signature alone executes it, and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.coordinator.approval_book import operation_entry
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.operators import stands_well
from fltrust.enrollment.approvals import ApprovalPolicy, Decision, check_four_eyes, count_approvals
from fltrust.enrollment.operation import Operation, Verdict, VerifiedDecision, verify_decision
from fltrust.enrollment.operation_ports import (
    OperationRecord,
    OperationState,
    SignedDecision,
)
from fltrust.errors import Conflict, LimitExceeded, Malformed, NotFound, StatementRefused
from fltrust.identity import Digest, TrustDomain
from fltrust.pki.types import VerifiedCertificate
from fltrust.tlog.approvals import OperationWord

_log = logging.getLogger(__name__)

MAX_PROPOSED = 64
"""Operations of one operator that wait for others."""
MAX_AGE = timedelta(minutes=5)
"""How old a signature may be when it comes in: a proposal is signed at once, not kept for later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What an operation answered: JSON values for the record, and what is left to do once it is durable.

    `then` runs after the commit, in the thread of the last operator. It may be lost in a crash, so a kind
    that needs it does the same at its start, from what it wrote in the transaction.
    """

    result: Mapping[str, object]
    then: Callable[[], None] | None = None


class Executor(Protocol):
    """One kind of operation."""

    @property
    def kind(self) -> str:
        """The word that operators sign, e.g. ``release-hold``."""
        ...

    def check(self, operation: Operation, work: Work) -> None:
        """Raise where it could not be executed as things stand: when it is proposed, and again before it is
        executed. Reads its `operation.parameters` strictly; changes nothing."""
        ...

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:
        """Do it, in the transaction of the last approval; `actor` is whose approval that was (without a
        quorum, the proposer's). Raises to undo all of it, that approval included."""
        ...


class Operations:
    """The registry of kinds, and the way of an operation through its operators."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        ca: CurrentCa,
        domain: TrustDomain,
        policy: ApprovalPolicy,
        executors: Iterable[Executor] = (),
    ) -> None:
        self._ledger = ledger
        self._ca = ca
        self._domain = domain
        self._policy = policy
        self._executors: dict[str, Executor] = {}
        for executor in executors:
            self.register(executor)

    @property
    def has_quorum(self) -> bool:
        """Whether anybody beside the proposer must approve. Then nothing sensitive has another way."""
        return self._policy.operations > 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self._executors))

    def register(self, executor: Executor) -> None:
        """Add a kind; when the process is put together. `Conflict` for one that is there."""
        if executor.kind in self._executors:
            raise Conflict(f"expected one executor for operations of the kind {executor.kind!r}, got two")
        self._executors[executor.kind] = executor

    def propose(self, payload: bytes, signed: bytes, *, caller: VerifiedCertificate) -> OperationRecord:
        """Take an operation in, in its proposer's own words; executed at once where no quorum is asked.

        1. The words are well formed, of this domain and a known kind, the caller's, and expire in time.
        2. The proposer signed exactly them, a moment ago, with a certificate that is good now.
        3. The caller stands well, under the lock; the id is new, and not too many of its operations wait.
        4. Its kind says that it could be executed.
        5. It is kept and logged; without a quorum it is executed in the same transaction.
        """
        # 1.
        operation = Operation.from_payload(payload)
        executor = self._executor(operation.kind)
        if operation.domain != self._domain or operation.proposer != caller.spiffe_id:
            raise StatementRefused(
                f"expected an operation of {self._domain} that {caller.spiffe_id} proposes",
                reason="wrong-proposer",
            )
        now = self._ledger.now()
        if not abs(now - operation.proposed_at) <= MAX_AGE:
            raise StatementRefused(
                f"expected an operation proposed about now, got one of {to_rfc3339(operation.proposed_at)}",
                reason="expired",
                hint="is this machine's clock right?",
            )
        if operation.expires_at > now + self._policy.decide_within + MAX_AGE:
            raise Malformed(
                f"expected an operation to expire within {self._policy.decide_within}, "
                f"got {to_rfc3339(operation.expires_at)}"
            )
        # 2.
        verified = self._verify(signed, operation, caller=caller, expect=(Verdict.PROPOSE,))
        then: Callable[[], None] | None = None
        with self._ledger.writing() as work:
            # 3.
            work.state.judge(caller)
            self._expire(work)
            if work.tx.operations.get(operation.operation_id) is not None:
                raise Conflict("expected a new operation, this one was proposed already", reason="replayed")
            waiting = work.tx.operations.count_proposed(caller.spiffe_id, work.now)
            if waiting >= MAX_PROPOSED:
                raise LimitExceeded(
                    f"expected at most {MAX_PROPOSED} operations of {caller.spiffe_id} to wait for others",
                    reason="too-many-operations",
                    hint="deny those that are not wanted any more: fltrust operations deny",
                )
            # 4.
            executor.check(operation, work)
            # 5.
            record = OperationRecord(
                operation_id=operation.operation_id,
                kind=operation.kind,
                payload=payload,
                proposer=operation.proposer,
                state=OperationState.PROPOSED,
                needed=self._policy.operations,
                proposed_at=work.now,
                expires_at=operation.expires_at,
            )
            work.tx.operations.add(record)
            self._keep(record, verified, signed, work, is_approval=True)
            self._note(record, work, OperationWord.PROPOSED, verified)
            if not record.needed:
                record, then = self._execute(record, operation, work, actor=caller)
        _run(then)
        return record

    def decide(self, operation_id: str, signed: bytes, *, caller: VerifiedCertificate) -> OperationRecord:
        """Take one operator's signed approval or denial; the approval that completes the quorum executes it.

        1. The operation is there and waits; it has not expired.
        2. The caller signed exactly its words, a moment ago, with a certificate that is good now.
        3. The caller stands well, under the lock.
        4. A denial ends it, whoever's it is. An approval counts once for each operator, and never the
           proposer's.
        5. Approvals of operators who stand well now are counted; enough of them, and its kind checks and
           executes it.
        """
        with self._ledger.reading() as tx:
            found = tx.operations.get(operation_id)
        operation = Operation.from_payload(_known(found).payload)
        # 2.
        verified = self._verify(signed, operation, caller=caller, expect=(Verdict.APPROVE, Verdict.DENY))
        then: Callable[[], None] | None = None
        with self._ledger.writing() as work:
            # 3.
            work.state.judge(caller)
            # 1. again, under the lock: of two last approvals, one executes.
            record = _known(work.tx.operations.get(operation_id))
            if (state := record.state_at(work.now)) is not OperationState.PROPOSED:
                raise Conflict(
                    f"expected an operation that waits for operators, this one is {state}",
                    reason=f"operation-{state}",
                )
            # 4.
            needed = max(record.needed, self._policy.operations)
            if verified.decision.verdict is Verdict.DENY:
                self._keep(record, verified, signed, work, is_approval=False)
                record = replace(record, state=OperationState.DENIED, decided_at=work.now)
                work.tx.operations.put(record)
                self._note(record, work, OperationWord.DENIED, verified)
                return record
            check_four_eyes(caller.spiffe_id, asked=record.proposer, needed=needed)
            self._keep(record, verified, signed, work, is_approval=True)
            # 5.
            count = self._count(record, work)
            self._note(record, work, OperationWord.APPROVED, verified, count=count)
            if count >= needed:
                record, then = self._execute(record, operation, work, actor=caller)
        _run(then)
        return record

    def get(self, operation_id: str) -> tuple[OperationRecord, tuple[SignedDecision, ...]]:
        """An operation and what was signed of it; `NotFound` if there is none."""
        with self._ledger.reading() as tx:
            record = _known(tx.operations.get(operation_id))
            decisions = tx.operations.decisions(operation_id)
        return replace(record, state=record.state_at(self._ledger.now())), decisions

    def list(
        self, *, after: str = "", limit: int = 256, waiting_only: bool = False
    ) -> tuple[OperationRecord, ...]:
        """Operations by id, after an id; with `waiting_only`, those that operators may still decide."""
        states = (OperationState.PROPOSED,) if waiting_only else tuple(OperationState)
        now = self._ledger.now()
        with self._ledger.reading() as tx:
            found = tx.operations.select(states, after=after, limit=limit)
        told = (replace(record, state=record.state_at(now)) for record in found)
        return tuple(r for r in told if not waiting_only or r.state is OperationState.PROPOSED)

    def _executor(self, kind: str) -> Executor:
        executor = self._executors.get(kind)
        if executor is None:
            raise Malformed(
                f"expected an operation of a known kind ({', '.join(self.kinds)}), got {kind!r}",
                reason="unknown-type",
            )
        return executor

    def _verify(
        self,
        signed: bytes,
        operation: Operation,
        *,
        caller: VerifiedCertificate,
        expect: tuple[Verdict, ...],
    ) -> VerifiedDecision:
        now = self._ledger.now()
        verified = verify_decision(signed, operation, bundle=self._ca.bundle, at=now)
        decision = verified.decision
        if verified.certificate.serial != caller.serial:
            raise StatementRefused(
                f"expected {caller.spiffe_id} to sign with the certificate that it calls with",
                reason="wrong-certificate",
            )
        if decision.verdict not in expect:
            raise StatementRefused(
                f"expected one of {', '.join(expect)}, got {decision.verdict}", reason="wrong-verdict"
            )
        if not abs(now - decision.signed_at) <= MAX_AGE:
            raise StatementRefused(
                f"expected a decision signed about now, got one of {to_rfc3339(decision.signed_at)}",
                reason="expired",
                hint="is this machine's clock right? decide again",
            )
        return verified

    def _execute(
        self, record: OperationRecord, operation: Operation, work: Work, *, actor: VerifiedCertificate
    ) -> tuple[OperationRecord, Callable[[], None] | None]:
        if not work.state.is_active(record.proposer):
            raise Conflict(
                f"expected its proposer {record.proposer} to stand well, it is revoked or on hold",
                reason="proposer-revoked",
                hint="propose it yourself, if it is still right, and let a colleague approve",
            )
        executor = self._executor(operation.kind)
        executor.check(operation, work)
        executed = executor.execute(operation, work, actor=actor)
        result = strictjson.encode(executed.result)
        record = replace(record, state=OperationState.EXECUTED, decided_at=work.now, result=result)
        work.tx.operations.put(record)
        self._note(record, work, OperationWord.EXECUTED, result=Digest.sha256_of(result))
        return record, executed.then

    def _keep(
        self,
        record: OperationRecord,
        verified: VerifiedDecision,
        signed: bytes,
        work: Work,
        *,
        is_approval: bool,
    ) -> None:
        decision = Decision(
            operator=verified.decision.operator,
            serial=verified.certificate.serial,
            is_approval=is_approval,
            reason=verified.decision.reason,
            at=work.now,
        )
        work.tx.operations.sign(record.operation_id, SignedDecision(decision=decision, signed=signed))

    def _count(self, record: OperationRecord, work: Work) -> int:
        return count_approvals(
            (kept.decision for kept in work.tx.operations.decisions(record.operation_id)),
            asked=record.proposer,
            is_good=lambda who, serial: stands_well(who, serial, work),
        )

    def _expire(self, work: Work) -> None:
        """Write down what time has ended; until then it counts as expired all the same."""
        for record in work.tx.operations.overdue(work.now):
            record = replace(record, state=OperationState.EXPIRED, decided_at=work.now)
            work.tx.operations.put(record)
            self._note(record, work, OperationWord.EXPIRED)

    def _note(
        self,
        record: OperationRecord,
        work: Work,
        step: OperationWord,
        verified: VerifiedDecision | None = None,
        *,
        count: int = 0,
        result: Digest | None = None,
    ) -> None:
        entry = operation_entry(
            work.book, record, step, at=work.now, verified=verified, count=count, result=result
        )
        work.log(entry)


def _known(record: OperationRecord | None) -> OperationRecord:
    if record is None:
        raise NotFound("no such operation was proposed here", hint="list them: fltrust operations list")
    return record


def _run(then: Callable[[], None] | None) -> None:
    """What is left to do after the commit; the operation is done, whatever becomes of it."""
    if then is None:
        return
    try:
        then()
    except Exception:
        _log.exception("an operation is durable, and what follows it failed; a restart does it again")
