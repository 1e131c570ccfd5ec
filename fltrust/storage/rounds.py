"""Runs and their rounds: `fltrust.rounds.ports` on one connection."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from fltrust.errors import NotFound
from fltrust.identity import Digest, Epoch, KeyId, NodeId, RunId, SpiffeId
from fltrust.rounds.ports import RunRecord
from fltrust.rounds.types import Candidate, CohortMember, RoundKey, RoundRecord, RoundStatus
from fltrust.storage import tables
from fltrust.updates.statement import Phase


def _digits(value: int) -> str:
    return str(int(value))


class Rounds:
    """`RoundStore` over ``runs``, ``rounds``, ``cohorts`` and ``evidence``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, run_id: RunId) -> RunRecord | None:
        row = self._connection.execute(
            select(tables.runs).where(tables.runs.c.run_id == _digits(run_id))
        ).one_or_none()
        if row is None:
            return None
        return RunRecord(
            run_id=run_id,
            aggregator=SpiffeId.parse(row.aggregator),
            opened_epoch=Epoch(row.opened_epoch),
            closed_epoch=None if row.closed_epoch is None else Epoch(row.closed_epoch),
        )

    def add_run(self, record: RunRecord) -> None:
        self._connection.execute(
            insert(tables.runs).values(
                run_id=_digits(record.run_id),
                aggregator=str(record.aggregator),
                opened_epoch=int(record.opened_epoch),
            )
        )

    def close_run(self, run_id: RunId, *, epoch: Epoch) -> None:
        self._connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == _digits(run_id), tables.runs.c.closed_epoch.is_(None))
            .values(closed_epoch=int(epoch))
        )

    def abandon(self, key: RoundKey) -> None:
        self._connection.execute(
            update(tables.rounds)
            .where(_is(tables.rounds, key.run_id, key.step), tables.rounds.c.status == RoundStatus.OPEN)
            .values(status=RoundStatus.ABANDONED)
        )

    def get(self, run_id: RunId, step: int) -> RoundRecord | None:
        row = self._connection.execute(
            select(tables.rounds).where(_is(tables.rounds, run_id, step))
        ).one_or_none()
        if row is None:
            return None
        cohort = self._connection.execute(
            select(tables.cohorts)
            .where(_is(tables.cohorts, run_id, step))
            .order_by(tables.cohorts.c.position)
        )
        evidence = self._connection.execute(
            select(tables.evidence)
            .where(_is(tables.evidence, run_id, step))
            .order_by(tables.evidence.c.position)
        )
        return _round(
            row,
            cohort=tuple(map(_member, cohort)),
            evidence=tuple(Candidate(item.instruction, item.update, item.second) for item in evidence),
        )

    def all(self, run_id: RunId | None) -> tuple[RoundRecord, ...]:
        query, members = select(tables.rounds), select(tables.cohorts).order_by(tables.cohorts.c.position)
        if run_id is not None:
            query = query.where(tables.rounds.c.run_id == _digits(run_id))
            members = members.where(tables.cohorts.c.run_id == _digits(run_id))
        cohorts: defaultdict[tuple[str, int], list[CohortMember]] = defaultdict(list)
        for row in self._connection.execute(members):
            cohorts[row.run_id, row.step].append(_member(row))
        order = (tables.rounds.c.opened_at, tables.rounds.c.run_id, tables.rounds.c.step)
        return tuple(
            _round(row, cohort=tuple(cohorts[row.run_id, row.step]), evidence=())
            for row in self._connection.execute(query.order_by(*order))
        )

    def open(self, record: RoundRecord) -> None:
        key = record.key
        self._connection.execute(
            insert(tables.rounds).values(
                run_id=_digits(key.run_id),
                step=key.step,
                round=key.round,
                phase=key.phase,
                status=record.status,
                aggregator=str(record.aggregator),
                opened_at=record.opened_at,
                opened_epoch=int(record.opened_epoch),
            )
        )
        members = [
            {
                "run_id": _digits(key.run_id),
                "step": key.step,
                "position": position,
                "participant": str(member.participant),
                "node_id": _digits(member.node_id),
                "node_key": str(member.node_key),
                "instruction": member.instruction.value,
            }
            for position, member in enumerate(record.cohort)
        ]
        if members:
            self._connection.execute(insert(tables.cohorts), members)

    def seal(
        self,
        record: RoundRecord,
        *,
        sealed_at: datetime,
        index: int,
        receipt: bytes,
        request: Digest,
        admitted: tuple[tuple[SpiffeId, Candidate], ...],
    ) -> None:
        run_id, step = _digits(record.key.run_id), record.key.step
        changed = self._connection.execute(
            update(tables.rounds)
            .where(_is(tables.rounds, record.key.run_id, step), tables.rounds.c.status == RoundStatus.OPEN)
            .values(
                status=RoundStatus.SEALED,
                sealed_at=sealed_at,
                log_index=index,
                receipt=receipt,
                request_hash=request.value,
            )
        )
        if changed.rowcount != 1:
            raise NotFound(f"expected an open round at step {step} of run {run_id}, found none")
        rows = [
            {
                "run_id": run_id,
                "step": step,
                "position": position,
                "participant": str(who),
                "instruction": candidate.instruction,
                "update": candidate.update,
                "second": candidate.second,
            }
            for position, (who, candidate) in enumerate(admitted)
        ]
        if rows:
            self._connection.execute(insert(tables.evidence), rows)

    def seal_request(self, run_id: RunId, step: int) -> Digest | None:
        value = self._connection.execute(
            select(tables.rounds.c.request_hash).where(_is(tables.rounds, run_id, step))
        ).scalar_one_or_none()
        return None if value is None else Digest("sha256", value)

    def unlogged(self) -> tuple[RoundRecord, ...]:
        table = tables.rounds
        rows = self._connection.execute(
            select(table)
            .where(table.c.status == RoundStatus.SEALED, table.c.log_index.is_(None))
            .order_by(table.c.sealed_at, table.c.run_id, table.c.step)
        )
        return tuple(_round(row, cohort=(), evidence=()) for row in rows)

    def places(self, run_id: RunId) -> tuple[int, ...]:
        table = tables.rounds
        found = self._connection.execute(
            select(table.c.log_index)
            .where(table.c.run_id == _digits(run_id), table.c.log_index.is_not(None))
            .order_by(table.c.log_index)
        )
        return tuple(found.scalars())

    def place(self, key: RoundKey, *, index: int) -> None:
        table = tables.rounds
        self._connection.execute(
            update(table)
            .where(_is(table, key.run_id, key.step), table.c.log_index.is_(None))
            .values(log_index=index)
        )

    def cohort_of(self, run_id: RunId) -> tuple[SpiffeId, ...]:
        found = self._connection.execute(
            select(tables.cohorts.c.participant)
            .where(tables.cohorts.c.run_id == _digits(run_id))
            .distinct()
            .order_by(tables.cohorts.c.participant)
        )
        return tuple(SpiffeId.parse(text) for text in found.scalars())


def _is(table: Any, run_id: RunId, step: int) -> Any:
    return (table.c.run_id == _digits(run_id)) & (table.c.step == step)


def _member(row: Row[Any]) -> CohortMember:
    return CohortMember(
        participant=SpiffeId.parse(row.participant),
        node_id=NodeId(int(row.node_id)),
        node_key=KeyId(row.node_key),
        instruction=Digest("sha256", row.instruction),
    )


def _round(
    row: Row[Any], *, cohort: tuple[CohortMember, ...], evidence: tuple[Candidate, ...]
) -> RoundRecord:
    return RoundRecord(
        key=RoundKey(RunId(int(row.run_id)), row.step, row.round, Phase(row.phase)),
        status=RoundStatus(row.status),
        aggregator=SpiffeId.parse(row.aggregator),
        opened_at=row.opened_at,
        opened_epoch=Epoch(row.opened_epoch),
        cohort=cohort,
        receipt=row.receipt,
        evidence=evidence,
    )
