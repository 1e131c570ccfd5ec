"""Requests to enroll: `fltrust.enrollment.requests.RequestStore` on one connection."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from fltrust.enrollment.approvals import Decision
from fltrust.enrollment.requests import OPEN, Request, RequestState
from fltrust.enrollment.types import Approval, EnrollmentProtocol
from fltrust.identity import KeyId, Name, Role, Serial, SpiffeId
from fltrust.storage import request_tables as tables
from fltrust.storage.records import parse_id, text_of

_OPEN = sorted(OPEN)
_CERTIFIED = sorted({RequestState.ISSUED, RequestState.DELIVERED})


class Requests:
    """`RequestStore` over ``requests`` and ``request_decisions``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, request: Request) -> None:
        self._connection.execute(
            insert(tables.requests).values(
                request_id=request.request_id,
                protocol=request.protocol,
                evidence=request.evidence,
                evidence_digest=request.evidence_digest,
                csr=request.csr_der,
                key_id=request.key_id,
                node_key=request.node_key,
                source=request.source,
                submitted_at=request.submitted_at,
                **_changing(request),
            )
        )

    def put(self, request: Request) -> None:
        table = tables.requests
        self._connection.execute(
            update(table).where(table.c.request_id == request.request_id).values(**_changing(request))
        )

    def get(self, request_id: str) -> Request | None:
        return self._first(select(tables.requests).where(tables.requests.c.request_id == request_id))

    def find(self, key: KeyId, evidence_digest: bytes) -> Request | None:
        table = tables.requests
        return self._first(
            select(table)
            .where(table.c.key_id == key, table.c.evidence_digest == evidence_digest)
            .order_by(table.c.submitted_at.desc(), table.c.request_id)
            .limit(1)
        )

    def known_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        column = tables.requests.c.key_id
        return set(map(KeyId, self._connection.execute(select(column).where(column.in_(keys))).scalars()))

    def select(
        self, states: Collection[RequestState], *, after: str = "", limit: int = 256
    ) -> tuple[Request, ...]:
        table = tables.requests
        return self._all(
            select(table)
            .where(table.c.state.in_(sorted(states)), table.c.request_id > after)
            .order_by(table.c.request_id)
            .limit(limit)
        )

    def open_of(self, role: Role, name: Name) -> tuple[Request, ...]:
        table = tables.requests
        return self._all(
            select(table).where(table.c.role == role, table.c.name == name, table.c.state.in_(_OPEN))
        )

    def overdue(self, now: datetime, *, limit: int = 64) -> tuple[Request, ...]:
        table = tables.requests
        return self._all(
            select(table).where(table.c.state.in_(_OPEN), table.c.expires_at <= now).limit(limit)
        )

    def unpublished(self, size: int, *, limit: int = 256) -> tuple[Request, ...]:
        table = tables.requests
        return self._all(
            select(table).where(table.c.state.in_(_CERTIFIED), table.c.log_size <= size).limit(limit)
        )

    def count_open(self, now: datetime, *, evidence: str, source: str | None = None) -> int:
        table = tables.requests
        query = select(func.count()).where(
            table.c.state.in_(_OPEN), table.c.evidence == evidence, table.c.expires_at > now
        )
        if source is not None:
            query = query.where(table.c.source == source)
        return self._connection.execute(query).scalar_one()

    def decide(self, request_id: str, decision: Decision) -> None:
        table = tables.request_decisions
        number = select(func.count()).where(table.c.request_id == request_id)
        self._connection.execute(
            insert(table).values(
                request_id=request_id,
                position=self._connection.execute(number).scalar_one(),
                **decision_values(decision),
            )
        )

    def decisions(self, request_id: str) -> tuple[Decision, ...]:
        table = tables.request_decisions
        rows = self._connection.execute(
            select(table).where(table.c.request_id == request_id).order_by(table.c.position)
        )
        return tuple(map(decision_of, rows))

    def _all(self, query: Select[Any]) -> tuple[Request, ...]:
        return tuple(map(_request, self._connection.execute(query)))

    def _first(self, query: Select[Any]) -> Request | None:
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _request(row)


def decision_values(decision: Decision) -> dict[str, object]:
    return {
        "operator": str(decision.operator),
        "serial": decision.serial.hex,
        "is_approval": decision.is_approval,
        "reason": decision.reason,
        "at": decision.at,
    }


def decision_of(row: Row[Any]) -> Decision:
    return Decision(
        operator=SpiffeId.parse(row.operator),
        serial=Serial.parse(row.serial),
        is_approval=row.is_approval,
        reason=row.reason,
        at=row.at,
    )


def _joined(chain: tuple[bytes, ...]) -> bytes | None:
    return b"".join(len(der).to_bytes(4, "big") + der for der in chain) or None


def _split(data: bytes | None) -> tuple[bytes, ...]:
    found, at = [], 0
    while data is not None and at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    return tuple(found)


def _changing(request: Request) -> dict[str, object]:
    approval = request.approval
    return {
        "state": request.state,
        "role": None if approval is None else approval.role,
        "name": None if approval is None else approval.name,
        "dns_names": json.dumps([] if approval is None else list(approval.dns_names)),
        "replace": approval is not None and approval.replace,
        "granted_by": None if approval is None else text_of(approval.granted_by),
        "claims": json.dumps(dict(request.claims), sort_keys=True),
        "account": None if approval is None else approval.account,
        "needed": request.needed,
        "expires_at": request.expires_at,
        "decided_at": request.decided_at,
        "reason": request.reason,
        "serial": None if request.serial is None else request.serial.hex,
        "log_size": request.log_size,
        "issuers": _joined(request.issuers),
    }


def _request(row: Row[Any]) -> Request:
    approval, claims = None, json.loads(row.claims)
    if row.role is not None:
        approval = Approval(
            role=Role(row.role),
            name=Name(row.name),
            replace=row.replace,
            granted_by=parse_id(row.granted_by),
            dns_names=tuple(json.loads(row.dns_names)),
            claims=claims,
            account=row.account,
        )
    return Request(
        request_id=row.request_id,
        state=RequestState(row.state),
        protocol=EnrollmentProtocol(row.protocol),
        evidence=row.evidence,
        evidence_digest=row.evidence_digest,
        csr_der=row.csr,
        key_id=KeyId(row.key_id),
        node_key=row.node_key,
        approval=approval,
        source=row.source,
        needed=row.needed,
        submitted_at=row.submitted_at,
        expires_at=row.expires_at,
        decided_at=row.decided_at,
        reason=row.reason,
        serial=None if row.serial is None else Serial.parse(row.serial),
        log_size=row.log_size,
        issuers=_split(row.issuers),
        claims=claims,
    )
