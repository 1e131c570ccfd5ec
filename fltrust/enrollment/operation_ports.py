"""What the coordinator keeps of sensitive operations: the exact words, who signed them, what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fltrust.enrollment.approvals import Decision
from fltrust.identity import SpiffeId


class OperationState(StrEnum):
    PROPOSED = "proposed"
    EXECUTED = "executed"
    DENIED = "denied"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDecision:
    """A decision, and the bytes in which its operator signed it (`fltrust.enrollment.operation`)."""

    decision: Decision
    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """One operation. `payload` is what every operator signs, byte for byte."""

    operation_id: str
    kind: str
    payload: bytes
    proposer: SpiffeId
    state: OperationState
    needed: int
    proposed_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    result: bytes | None = None
    """What its execution answered: canonical JSON."""

    def state_at(self, now: datetime) -> OperationState:
        """The state, which time alone may have ended."""
        is_late = self.state is OperationState.PROPOSED and now >= self.expires_at
        return OperationState.EXPIRED if is_late else self.state


class OperationStore(Protocol):
    """Operations and their signatures, inside the caller's transaction."""

    def add(self, record: OperationRecord) -> None: ...

    def put(self, record: OperationRecord) -> None:
        """Write what of an operation can change: state, time of the decision, result."""
        ...

    def get(self, operation_id: str) -> OperationRecord | None: ...

    def select(
        self, states: Collection[OperationState], *, after: str = "", limit: int = 256
    ) -> tuple[OperationRecord, ...]:
        """Operations in these states, in the order of their ids, after an id."""
        ...

    def overdue(self, now: datetime, *, limit: int = 64) -> tuple[OperationRecord, ...]:
        """Operations that are proposed in the table and have expired by `now`."""
        ...

    def count_proposed(self, proposer: SpiffeId, now: datetime) -> int: ...

    def sign(self, operation_id: str, decision: SignedDecision) -> None:
        """Keep one more signed decision."""
        ...

    def decisions(self, operation_id: str) -> tuple[SignedDecision, ...]:
        """What operators signed, in that order; the first is the proposal."""
        ...
