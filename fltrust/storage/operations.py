"""Sensitive operations: `fltrust.enrollment.operation_ports.OperationStore` on one connection."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from fltrust.enrollment.operation_ports import OperationRecord, OperationState, SignedDecision
from fltrust.identity import SpiffeId
from fltrust.storage import request_tables as tables
from fltrust.storage.requests import decision_of, decision_values


class Operations:
    """`OperationStore` over ``operations`` and ``operation_decisions``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: OperationRecord) -> None:
        self._connection.execute(
            insert(tables.operations).values(
                operation_id=record.operation_id,
                kind=record.kind,
                payload=record.payload,
                proposer=str(record.proposer),
                needed=record.needed,
                proposed_at=record.proposed_at,
                expires_at=record.expires_at,
                **_changing(record),
            )
        )

    def put(self, record: OperationRecord) -> None:
        table = tables.operations
        self._connection.execute(
            update(table).where(table.c.operation_id == record.operation_id).values(**_changing(record))
        )

    def get(self, operation_id: str) -> OperationRecord | None:
        table = tables.operations
        row = self._connection.execute(
            select(table).where(table.c.operation_id == operation_id)
        ).one_or_none()
        return None if row is None else _record(row)

    def select(
        self, states: Collection[OperationState], *, after: str = "", limit: int = 256
    ) -> tuple[OperationRecord, ...]:
        table = tables.operations
        rows = self._connection.execute(
            select(table)
            .where(table.c.state.in_(sorted(states)), table.c.operation_id > after)
            .order_by(table.c.operation_id)
            .limit(limit)
        )
        return tuple(map(_record, rows))

    def overdue(self, now: datetime, *, limit: int = 64) -> tuple[OperationRecord, ...]:
        table = tables.operations
        rows = self._connection.execute(
            select(table)
            .where(table.c.state == OperationState.PROPOSED, table.c.expires_at <= now)
            .limit(limit)
        )
        return tuple(map(_record, rows))

    def count_proposed(self, proposer: SpiffeId, now: datetime) -> int:
        table = tables.operations
        return self._connection.execute(
            select(func.count()).where(
                table.c.state == OperationState.PROPOSED,
                table.c.proposer == str(proposer),
                table.c.expires_at > now,
            )
        ).scalar_one()

    def sign(self, operation_id: str, decision: SignedDecision) -> None:
        table = tables.operation_decisions
        number = select(func.count()).where(table.c.operation_id == operation_id)
        self._connection.execute(
            insert(table).values(
                operation_id=operation_id,
                position=self._connection.execute(number).scalar_one(),
                signed=decision.signed,
                **decision_values(decision.decision),
            )
        )

    def decisions(self, operation_id: str) -> tuple[SignedDecision, ...]:
        table = tables.operation_decisions
        rows = self._connection.execute(
            select(table).where(table.c.operation_id == operation_id).order_by(table.c.position)
        )
        return tuple(SignedDecision(decision=decision_of(row), signed=row.signed) for row in rows)


def _changing(record: OperationRecord) -> dict[str, object]:
    return {"state": record.state, "decided_at": record.decided_at, "result": record.result}


def _record(row: Row[Any]) -> OperationRecord:
    return OperationRecord(
        operation_id=row.operation_id,
        kind=row.kind,
        payload=row.payload,
        proposer=SpiffeId.parse(row.proposer),
        state=OperationState(row.state),
        needed=row.needed,
        proposed_at=row.proposed_at,
        expires_at=row.expires_at,
        decided_at=row.decided_at,
        result=row.result,
    )
