"""Aggregates, models, contributions and taints: `fltrust.artifacts.keeping` on one connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, insert, literal, select, tuple_

from fltrust.artifacts.keeping import (
    AggregateRecord,
    ContributionRecord,
    ModelRecord,
    Taint,
    TaintedKind,
)
from fltrust.artifacts.ports import StepOfRun
from fltrust.identity import Digest, Epoch, RunId, SpiffeId
from fltrust.storage import tables

_IN_ONE_QUERY = 400
_T = TypeVar("_T")


class Aggregates:
    """`AggregateStore` over the ``aggregates`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: AggregateRecord) -> None:
        self._connection.execute(
            insert(tables.aggregates).values(
                run_id=str(int(record.run_id)),
                step=record.step,
                round=record.round,
                tensors=str(record.tensors),
                model=str(record.model),
                previous=None if record.previous is None else str(record.previous),
                log_index=record.log_index,
                bundle=record.bundle,
                recorded_at=record.recorded_at,
            )
        )
        parents = dict.fromkeys(record.same_as, False)
        if record.parent is not None:
            parents[record.parent] = True
        rows = [
            {
                "run_id": str(int(record.run_id)),
                "step": record.step,
                "parent_run_id": str(int(parent.run_id)),
                "parent_step": parent.step,
                "is_stated": is_stated,
            }
            for parent, is_stated in parents.items()
        ]
        if rows:
            self._connection.execute(insert(tables.aggregate_parents), rows)

    def get(self, run_id: RunId, step: int) -> AggregateRecord | None:
        table = tables.aggregates
        found = self._where((table.c.run_id == str(int(run_id))) & (table.c.step == step), table.c.step)
        return found[0] if found else None

    def descendants(self, of: Iterable[StepOfRun]) -> tuple[AggregateRecord, ...]:
        """One recursive query for each `_IN_ONE_QUERY` places; UNION ends it in whatever graph."""
        table, parents = tables.aggregates, tables.aggregate_parents
        found: dict[StepOfRun, AggregateRecord] = {}
        for part in _parts(place for place in of if place not in found):
            known = select(table.c.run_id, table.c.step).where(_places(table, part)).cte(recursive=True)
            known = known.union(
                select(parents.c.run_id, parents.c.step).join(
                    known,
                    (parents.c.parent_run_id == known.c.run_id) & (parents.c.parent_step == known.c.step),
                )
            )
            light = _without_bundle(table).join(
                known, (table.c.run_id == known.c.run_id) & (table.c.step == known.c.step)
            )
            rows = self._connection.execute(light)
            found.update((record.place, record) for record in map(_aggregate, rows))
        return tuple(sorted(found.values(), key=lambda record: record.log_index))

    def ancestry(self, of: StepOfRun, *, limit: int) -> tuple[StepOfRun, ...]:
        parents = tables.aggregate_parents
        found = [of]
        while len(found) < limit:
            row = self._connection.execute(
                select(parents.c.parent_run_id, parents.c.parent_step).where(
                    _is(parents, found[-1]), parents.c.is_stated
                )
            ).one_or_none()
            if row is None:
                break
            found.append(StepOfRun(RunId(int(row.parent_run_id)), row.parent_step))
        return tuple(found)

    def of_run(self, run_id: RunId) -> tuple[AggregateRecord, ...]:
        table = tables.aggregates
        return self._where(table.c.run_id == str(int(run_id)), table.c.step)

    def by_tensors(self, *tensors: Digest) -> tuple[AggregateRecord, ...]:
        column = tables.aggregates.c.tensors
        found: list[AggregateRecord] = []
        for part in _parts(dict.fromkeys(map(str, tensors))):
            found += self._light(column.in_(part))
        return tuple(sorted(found, key=lambda record: record.log_index, reverse=True))

    def by_model(self, model: Digest) -> tuple[AggregateRecord, ...]:
        return tuple(reversed(self._light(tables.aggregates.c.model == str(model))))

    def made_from(self, model: Digest) -> tuple[AggregateRecord, ...]:
        table = tables.aggregates
        return self._where(table.c.previous == str(model), table.c.log_index)

    def _where(self, which: ColumnElement[bool], order: Any) -> tuple[AggregateRecord, ...]:
        rows = self._connection.execute(select(tables.aggregates).where(which).order_by(order))
        return tuple(map(_aggregate, rows))

    def _light(self, which: ColumnElement[bool]) -> tuple[AggregateRecord, ...]:
        """In the order recorded, without their bundles."""
        table = tables.aggregates
        rows = self._connection.execute(_without_bundle(table).where(which).order_by(table.c.log_index))
        return tuple(map(_aggregate, rows))


def _aggregate(row: Row[Any]) -> AggregateRecord:
    return AggregateRecord(
        run_id=RunId(int(row.run_id)),
        step=row.step,
        round=row.round,
        tensors=Digest.parse(row.tensors),
        model=Digest.parse(row.model),
        previous=None if row.previous is None else Digest.parse(row.previous),
        log_index=row.log_index,
        bundle=row.bundle,
        recorded_at=row.recorded_at,
    )


class Models:
    """`ModelStore` over ``models`` and ``model_tensors``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: ModelRecord) -> None:
        step = record.aggregate
        self._connection.execute(
            insert(tables.models).values(
                log_index=record.log_index,
                name=record.name,
                subject=str(record.subject),
                run_id=None if step is None else str(int(step.run_id)),
                step=None if step is None else step.step,
                signer=str(record.signer),
                bundle=record.bundle,
                recorded_at=record.recorded_at,
            )
        )
        rows = [
            {"log_index": record.log_index, "position": position, "tensors": str(digest)}
            for position, digest in enumerate(record.tensors)
        ]
        if rows:
            self._connection.execute(insert(tables.model_tensors), rows)

    def get(self, log_index: int) -> ModelRecord | None:
        found = self._where(tables.models.c.log_index == log_index)
        return found[0] if found else None

    def by_subject(self, subject: Digest) -> tuple[ModelRecord, ...]:
        return self._where(tables.models.c.subject == str(subject))

    def by_tensors(self, tensors: Digest) -> tuple[ModelRecord, ...]:
        holding = select(tables.model_tensors.c.log_index).where(
            tables.model_tensors.c.tensors == str(tensors)
        )
        return self._where(tables.models.c.log_index.in_(holding))

    def of_aggregate(self, run_id: RunId, step: int) -> tuple[ModelRecord, ...]:
        table = tables.models
        return self._where((table.c.run_id == str(int(run_id))) & (table.c.step == step))

    def made_of(self, places: Iterable[StepOfRun], tensors: Iterable[Digest]) -> tuple[ModelRecord, ...]:
        table, parts = tables.models, tables.model_tensors
        query = _without_bundle(table)
        conditions: list[ColumnElement[bool]] = [_places(table, part) for part in _parts(places)]
        for part in _parts(tensors):
            holding = select(parts.c.log_index).where(parts.c.tensors.in_([str(digest) for digest in part]))
            conditions.append(table.c.log_index.in_(holding))
        found: dict[int, ModelRecord] = {}
        for condition in conditions:
            rows = self._connection.execute(query.where(condition))
            found.update((row.log_index, _model(row, ())) for row in rows)
        return tuple(found[index] for index in sorted(found))

    def all(self) -> tuple[ModelRecord, ...]:
        return self._where(None)

    def _where(self, which: ColumnElement[bool] | None) -> tuple[ModelRecord, ...]:
        query, parts = select(tables.models), select(tables.model_tensors)
        if which is not None:
            query = query.where(which)
            parts = parts.where(
                tables.model_tensors.c.log_index.in_(select(tables.models.c.log_index).where(which))
            )
        tensors: defaultdict[int, list[Digest]] = defaultdict(list)
        for row in self._connection.execute(parts.order_by(tables.model_tensors.c.position)):
            tensors[row.log_index].append(Digest.parse(row.tensors))
        rows = self._connection.execute(query.order_by(tables.models.c.log_index))
        return tuple(_model(row, tuple(tensors[row.log_index])) for row in rows)


def _model(row: Row[Any], tensors: tuple[Digest, ...]) -> ModelRecord:
    return ModelRecord(
        name=row.name,
        subject=Digest.parse(row.subject),
        tensors=tensors,
        aggregate=None if row.run_id is None else StepOfRun(RunId(int(row.run_id)), row.step),
        signer=SpiffeId.parse(row.signer),
        log_index=row.log_index,
        bundle=row.bundle,
        recorded_at=row.recorded_at,
    )


def _without_bundle(table: Table) -> Select[Any]:
    columns: list[Any] = [column for column in table.c if column is not table.c.bundle]
    return select(*columns, literal(b"").label("bundle"))


def _is(table: Table, place: StepOfRun) -> ColumnElement[bool]:
    return (table.c.run_id == str(int(place.run_id))) & (table.c.step == place.step)


def _places(table: Table, places: Iterable[StepOfRun]) -> ColumnElement[bool]:
    return tuple_(table.c.run_id, table.c.step).in_([(str(int(p.run_id)), p.step) for p in places])


def _parts(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    """The items by as many as one query may name."""
    iterator = iter(items)
    while part := tuple(islice(iterator, _IN_ONE_QUERY)):
        yield part


class Contributions:
    """`ContributionStore` over the ``contributions`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_all(self, records: Iterable[ContributionRecord]) -> None:
        rows = [
            {
                "run_id": str(int(record.run_id)),
                "step": record.step,
                "position": position,
                "participant": str(record.participant),
                "signed_at": record.signed_at,
                "update": str(record.update),
                "certificate": str(record.certificate),
                "log_index": record.log_index,
            }
            for position, record in enumerate(records)
        ]
        if rows:
            self._connection.execute(insert(tables.contributions), rows)

    def of_round(self, run_id: RunId, step: int) -> tuple[ContributionRecord, ...]:
        table = tables.contributions
        rows = self._connection.execute(
            select(table)
            .where(table.c.run_id == str(int(run_id)), table.c.step == step)
            .order_by(table.c.position)
        )
        return tuple(map(_contribution, rows))

    def of(self, who: SpiffeId, *, since: datetime) -> tuple[ContributionRecord, ...]:
        table = tables.contributions
        rows = self._connection.execute(
            select(table)
            .where(table.c.participant == str(who), table.c.signed_at >= since)
            .order_by(table.c.log_index)
        )
        return tuple(map(_contribution, rows))


def _contribution(row: Row[Any]) -> ContributionRecord:
    return ContributionRecord(
        run_id=RunId(int(row.run_id)),
        step=row.step,
        participant=SpiffeId.parse(row.participant),
        signed_at=row.signed_at,
        update=Digest.parse(row.update),
        certificate=Digest.parse(row.certificate),
        log_index=row.log_index,
    )


class Taints:
    """`TaintStore` over the ``taints`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, taint: Taint) -> bool:
        known = any(t.cause == taint.cause and t.epoch == taint.epoch for t in self.of(taint.what, taint.key))
        if known:
            return False
        self._connection.execute(
            insert(tables.taints).values(
                what=taint.what,
                key=taint.key,
                cause=str(taint.cause),
                epoch=int(taint.epoch),
                since=taint.since,
                is_direct=taint.is_direct,
                log_index=taint.log_index,
            )
        )
        return True

    def of(self, what: TaintedKind, key: str) -> tuple[Taint, ...]:
        return self._where((tables.taints.c.what == what) & (tables.taints.c.key == key))

    def all(self) -> tuple[Taint, ...]:
        return self._where(None)

    def _where(self, which: ColumnElement[bool] | None) -> tuple[Taint, ...]:
        query = select(tables.taints) if which is None else select(tables.taints).where(which)
        order = (tables.taints.c.log_index, tables.taints.c.what, tables.taints.c.key)
        return tuple(map(_taint, self._connection.execute(query.order_by(*order))))


def _taint(row: Row[Any]) -> Taint:
    return Taint(
        what=TaintedKind(row.what),
        key=row.key,
        cause=SpiffeId.parse(row.cause),
        epoch=Epoch(row.epoch),
        since=row.since,
        is_direct=row.is_direct,
        log_index=row.log_index,
    )
