"""Trust events by epoch: `fltrust.revocation.log.EventLog` on one connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from fltrust.errors import Conflict
from fltrust.identity import CaKeyId, Epoch, KeyId, RunId, Serial, SpiffeId, TrustDomain
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.storage import tables
from fltrust.storage.records import parse_id, text_of


class Events:
    """`EventLog` over the ``events`` table; the newest epoch stands in the ``head`` row."""

    def __init__(self, connection: Connection, *, head: Epoch) -> None:
        self._connection = connection
        self._head = head

    @property
    def head(self) -> Epoch:
        return self._head

    def mark(self) -> Epoch:
        """The head as this transaction knows it; `reset` goes back there after an undo."""
        return self._head

    def reset(self, head: Epoch) -> None:
        self._head = head

    def append(self, event: TrustEvent) -> None:
        self.append_all((event,))

    def append_all(self, events: Sequence[TrustEvent]) -> None:
        if not events:
            return
        head = self._head
        for event in events:
            if event.epoch != head.next():
                raise Conflict(
                    f"expected an event of epoch {head.next()}, got one of {event.epoch}",
                    reason="epoch-gap",
                )
            head = event.epoch
        self._connection.execute(insert(tables.events), [_row_of(event) for event in events])
        changed = self._connection.execute(
            update(tables.head).where(tables.head.c.epoch == int(self._head)).values(epoch=int(head))
        )
        if changed.rowcount != 1:  # cannot happen while the row is locked; no epoch is worth a guess
            raise Conflict(
                f"expected to be at epoch {self._head}, the database is elsewhere", reason="epoch-gap"
            )
        self._head = head

    def read(self, after: Epoch, *, limit: int | None = None) -> tuple[TrustEvent, ...]:
        rows = self._connection.execute(
            select(tables.events)
            .where(tables.events.c.epoch > int(after))
            .order_by(tables.events.c.epoch)
            .limit(limit)
        )
        return tuple(map(_event, rows))

    def about(self, who: SpiffeId) -> tuple[TrustEvent, ...]:
        rows = self._connection.execute(
            select(tables.events).where(tables.events.c.subject == str(who)).order_by(tables.events.c.epoch)
        )
        return tuple(map(_event, rows))


def _row_of(event: TrustEvent) -> dict[str, object]:
    return {
        "epoch": int(event.epoch),
        "kind": event.kind,
        "at": event.at,
        "actor": text_of(event.actor),
        "subject": text_of(event.subject),
        "identity_wide": event.identity_wide,
        "serials": json.dumps([serial.hex for serial in event.serials]),
        "keys": json.dumps(list(event.keys)),
        "node_key": event.node_key,
        "run_id": None if event.run_id is None else str(int(event.run_id)),
        "reason": event.reason,
        "compromised_since": event.compromised_since,
        "domain": event.domain,
        "sequence": event.sequence,
        "issuer": event.issuer,
    }


def _event(row: Row[Any]) -> TrustEvent:
    return TrustEvent(
        epoch=Epoch(row.epoch),
        kind=EventKind(row.kind),
        at=row.at,
        actor=parse_id(row.actor),
        subject=parse_id(row.subject),
        identity_wide=row.identity_wide,
        serials=tuple(map(Serial.parse, json.loads(row.serials))),
        keys=tuple(map(KeyId, json.loads(row.keys))),
        node_key=row.node_key,
        run_id=None if row.run_id is None else RunId(int(row.run_id)),
        reason=None if row.reason is None else RevocationReason(row.reason),
        compromised_since=row.compromised_since,
        domain=None if row.domain is None else TrustDomain(row.domain),
        sequence=row.sequence,
        issuer=None if row.issuer is None else CaKeyId(row.issuer),
    )
