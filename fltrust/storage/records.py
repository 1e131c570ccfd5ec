"""Tokens, enrollments and certificates: `fltrust.enrollment.ports` on one connection."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, insert, select, update

from fltrust.enrollment.ports import CertificateRecord, EnrolledRecord
from fltrust.enrollment.types import TokenRecord, TokenStatus
from fltrust.identity import CaKeyId, KeyId, Name, Role, Serial, SpiffeId
from fltrust.storage import tables


def parse_id(text: str | None) -> SpiffeId | None:
    return None if text is None else SpiffeId.parse(text)


def text_of(who: SpiffeId | None) -> str | None:
    return None if who is None else str(who)


class Tokens:
    """`TokenStore` over the ``tokens`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: TokenRecord, *, secret_hash: bytes) -> None:
        self._connection.execute(
            insert(tables.tokens).values(
                token_id=record.token_id,
                secret_hash=secret_hash,
                role=record.role,
                name=record.name,
                created_at=record.created_at,
                expires_at=record.expires_at,
                created_by=text_of(record.created_by),
                replace=record.replace,
                dns_names=_names_text(record.dns_names),
            )
        )

    def find(self, secret_hash: bytes, *, now: datetime) -> TokenRecord | None:
        return self._one(select(tables.tokens).where(tables.tokens.c.secret_hash == secret_hash), now)

    def get(self, token_id: str, *, now: datetime) -> TokenRecord | None:
        return self._one(select(tables.tokens).where(tables.tokens.c.token_id == token_id), now)

    def all(self, *, now: datetime) -> tuple[TokenRecord, ...]:
        rows = self._connection.execute(
            select(tables.tokens).order_by(tables.tokens.c.created_at, tables.tokens.c.token_id)
        )
        return tuple(_token(row, now) for row in rows)

    def spend(self, token_id: str, *, now: datetime) -> bool:
        return self._mark(tables.tokens.c.token_id == token_id, now, used_at=now) == 1

    def cancel(self, token_id: str, *, now: datetime) -> bool:
        return self._mark(tables.tokens.c.token_id == token_id, now, cancelled_at=now) == 1

    def cancel_all_for(self, role: Role, name: Name, *, now: datetime) -> None:
        table = tables.tokens
        self._mark((table.c.role == role) & (table.c.name == name), now, cancelled_at=now)

    def cancel_all_by(self, operator: SpiffeId, *, now: datetime) -> None:
        self._mark(tables.tokens.c.created_by == str(operator), now, cancelled_at=now)

    def spend_once(self, kind: str, digest: bytes, *, now: datetime) -> bool:
        # Writers come one after the other, so nobody writes between the question and the answer.
        table = tables.spent_evidence
        which = (table.c.kind == kind) & (table.c.digest == digest)
        if self._connection.execute(select(table.c.spent_at).where(which)).one_or_none() is not None:
            return False
        self._connection.execute(insert(table).values(kind=kind, digest=digest, spent_at=now))
        return True

    def _mark(self, which: ColumnElement[bool], now: datetime, **values: datetime) -> int:
        # The condition and the change are one statement: of two that race, one finds a pending row.
        table = tables.tokens
        changed = self._connection.execute(
            update(table)
            .where(
                which,
                table.c.used_at.is_(None),
                table.c.cancelled_at.is_(None),
                table.c.expires_at > now,
            )
            .values(**values)
        )
        return changed.rowcount

    def _one(self, query: Select[Any], now: datetime) -> TokenRecord | None:
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _token(row, now)


def _token(row: Row[Any], now: datetime) -> TokenRecord:
    if row.used_at is not None:
        status = TokenStatus.USED
    elif row.cancelled_at is not None:
        status = TokenStatus.CANCELLED
    elif row.expires_at <= now:
        status = TokenStatus.EXPIRED
    else:
        status = TokenStatus.PENDING
    return TokenRecord(
        token_id=row.token_id,
        role=Role(row.role),
        name=Name(row.name),
        created_at=row.created_at,
        expires_at=row.expires_at,
        created_by=parse_id(row.created_by),
        replace=row.replace,
        status=status,
        dns_names=_names(row.dns_names),
    )


class Enrollments:
    """`EnrollmentStore` over ``enrollments`` and ``node_keys``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, who: SpiffeId) -> EnrolledRecord | None:
        row = self._connection.execute(
            select(tables.enrollments).where(tables.enrollments.c.spiffe_id == str(who))
        ).one_or_none()
        return None if row is None else _enrolled(row)

    def all(self) -> tuple[EnrolledRecord, ...]:
        rows = self._connection.execute(
            select(tables.enrollments).order_by(
                tables.enrollments.c.enrolled_at, tables.enrollments.c.spiffe_id
            )
        )
        return tuple(_enrolled(row) for row in rows)

    def put(self, record: EnrolledRecord) -> None:
        table, who = tables.enrollments, str(record.spiffe_id)
        values = {
            "enrolled_at": record.enrolled_at,
            "enrolled_by": text_of(record.enrolled_by),
            "evidence": record.evidence,
            "node_key": record.node_key,
            "dns_names": _names_text(record.dns_names),
            "claims": json.dumps(dict(record.claims), sort_keys=True) if record.claims else None,
        }
        changed = self._connection.execute(update(table).where(table.c.spiffe_id == who).values(**values))
        if changed.rowcount == 0:
            self._connection.execute(insert(table).values(spiffe_id=who, **values))
        if record.node_key is not None:
            key = KeyId.of_spki(record.node_key)
            if self.node_key_owner(key) != record.spiffe_id:  # another owner breaks the primary key
                self._connection.execute(insert(tables.node_keys).values(key_id=key, spiffe_id=who))

    def add_all(self, records: Sequence[EnrolledRecord]) -> None:
        rows = [
            {
                "spiffe_id": str(record.spiffe_id),
                "enrolled_at": record.enrolled_at,
                "enrolled_by": text_of(record.enrolled_by),
                "evidence": record.evidence,
                "node_key": record.node_key,
                "dns_names": _names_text(record.dns_names),
                "claims": json.dumps(dict(record.claims), sort_keys=True) if record.claims else None,
            }
            for record in records
        ]
        keys = [
            {"key_id": KeyId.of_spki(record.node_key), "spiffe_id": str(record.spiffe_id)}
            for record in records
            if record.node_key is not None
        ]
        if rows:
            self._connection.execute(insert(tables.enrollments), rows)
        if keys:
            self._connection.execute(insert(tables.node_keys), keys)

    def known_node_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        column = tables.node_keys.c.key_id
        return set(map(KeyId, self._connection.execute(select(column).where(column.in_(keys))).scalars()))

    def node_key_owner(self, key: KeyId) -> SpiffeId | None:
        return parse_id(
            self._connection.execute(
                select(tables.node_keys.c.spiffe_id).where(tables.node_keys.c.key_id == key)
            ).scalar_one_or_none()
        )


def _enrolled(row: Row[Any]) -> EnrolledRecord:
    return EnrolledRecord(
        spiffe_id=SpiffeId.parse(row.spiffe_id),
        enrolled_at=row.enrolled_at,
        enrolled_by=parse_id(row.enrolled_by),
        evidence=row.evidence,
        node_key=row.node_key,
        dns_names=_names(row.dns_names),
        claims=json.loads(row.claims) if row.claims else {},
    )


def _names_text(names: Iterable[str]) -> str | None:
    found = list(names)
    return json.dumps(found) if found else None


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


# Asked with every certificate that is issued: building a statement takes as long as running it.
_C = tables.certificates.c
_BY_SERIAL = select(tables.certificates).where(_C.serial == bindparam("wanted"))
_BY_KEY = (
    select(tables.certificates)
    .where(_C.key_id == bindparam("wanted"))
    .order_by(_C.not_after.desc(), _C.not_before.desc(), _C.serial)
)
_COUNT_UNEXPIRED = select(func.count()).where(
    _C.spiffe_id == bindparam("wanted"), _C.not_after >= bindparam("now", type_=tables.Timestamp())
)


class Certificates:
    """`CertificateStore` over the ``certificates`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: CertificateRecord) -> None:
        self.add_all((record,))

    def add_all(self, records: Sequence[CertificateRecord]) -> None:
        rows = [
            {
                "serial": record.serial.hex,
                "spiffe_id": str(record.spiffe_id),
                "key_id": record.key_id,
                "not_before": record.not_before,
                "not_after": record.not_after,
                "der": record.der,
                "issuer": record.issuer,
            }
            for record in records
        ]
        if rows:
            self._connection.execute(insert(tables.certificates), rows)

    def known_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        column = tables.certificates.c.key_id
        return set(map(KeyId, self._connection.execute(select(column).where(column.in_(keys))).scalars()))

    def by_serial(self, serial: Serial) -> CertificateRecord | None:
        row = self._connection.execute(_BY_SERIAL, {"wanted": serial.hex}).one_or_none()
        return None if row is None else _certificate(row)

    def by_key(self, key: KeyId) -> CertificateRecord | None:
        return next(iter(self.all_by_key(key)), None)

    def all_by_key(self, key: KeyId) -> tuple[CertificateRecord, ...]:
        return tuple(map(_certificate, self._connection.execute(_BY_KEY, {"wanted": key})))

    def of(self, who: SpiffeId) -> tuple[CertificateRecord, ...]:
        table = tables.certificates
        rows = self._connection.execute(
            select(table).where(table.c.spiffe_id == str(who)).order_by(table.c.not_after, table.c.serial)
        )
        return tuple(map(_certificate, rows))

    def count_issued_by(self, issuer: CaKeyId) -> int:
        table = tables.certificates
        return self._connection.execute(
            select(func.count()).where(table.c.issuer == str(issuer))
        ).scalar_one()

    def unexpired_of(self, who: SpiffeId, *, now: datetime) -> tuple[CertificateRecord, ...]:
        table = tables.certificates
        rows = self._connection.execute(
            select(table)
            .where(table.c.spiffe_id == str(who), table.c.not_after >= now)
            .order_by(table.c.not_after, table.c.serial)
        )
        return tuple(_certificate(row) for row in rows)

    def count_unexpired_of(self, who: SpiffeId, *, now: datetime) -> int:
        return self._connection.execute(_COUNT_UNEXPIRED, {"wanted": str(who), "now": now}).scalar_one()

    def count_live(self, *, now: datetime) -> dict[SpiffeId, int]:
        table = tables.certificates
        rows = self._connection.execute(
            select(table.c.spiffe_id, func.count().label("live"))
            .where(table.c.not_after >= now)
            .group_by(table.c.spiffe_id)
        )
        return {SpiffeId.parse(row.spiffe_id): row.live for row in rows}

    def newest_of(self, who: SpiffeId) -> CertificateRecord | None:
        table = tables.certificates
        return self._one(
            select(table)
            .where(table.c.spiffe_id == str(who))
            .order_by(table.c.not_after.desc(), table.c.not_before.desc(), table.c.serial)
            .limit(1)
        )

    def all(self) -> tuple[CertificateRecord, ...]:
        table = tables.certificates
        rows = self._connection.execute(select(table).order_by(table.c.not_before, table.c.serial))
        return tuple(map(_certificate, rows))

    def newest(self) -> dict[SpiffeId, CertificateRecord]:
        table, earlier = tables.certificates, tables.certificates.alias()
        last = (
            select(earlier.c.serial)
            .where(earlier.c.spiffe_id == tables.enrollments.c.spiffe_id)
            .order_by(earlier.c.not_after.desc(), earlier.c.not_before.desc(), earlier.c.serial)
            .limit(1)
            .correlate(tables.enrollments)
            .scalar_subquery()
        )
        rows = self._connection.execute(
            select(table).select_from(tables.enrollments).join(table, table.c.serial == last)
        )
        return {record.spiffe_id: record for record in map(_certificate, rows)}

    def _one(self, query: Select[Any]) -> CertificateRecord | None:
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _certificate(row)


def _certificate(row: Row[Any]) -> CertificateRecord:
    return CertificateRecord(
        serial=Serial.parse(row.serial),
        spiffe_id=SpiffeId.parse(row.spiffe_id),
        key_id=KeyId(row.key_id),
        not_before=row.not_before,
        not_after=row.not_after,
        der=row.der,
        issuer=CaKeyId(row.issuer),
    )
