"""Revocation status: `fltrust.revocation.status.StatusStore` on one connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, insert, select, update

from fltrust.identity import CaKeyId, Epoch, KeyId, Serial, SpiffeId
from fltrust.pki.crl import CrlReason
from fltrust.revocation.status import CertificateStatus, CrlProgress, HeldBy, IssuedSerial, StatusState
from fltrust.storage import tables
from fltrust.storage.status_tables import crl_progress, revoked_issuers, status_feed, statuses

_AT_ONCE = 500
"""Values in one IN (…): both databases take more, neither gains from it."""
_ROW = 1

_CERTIFICATES = tables.certificates
_LOOK_UP = (
    select(_CERTIFICATES.c.issuer.label("by"), _CERTIFICATES.c.not_after.label("ends"), statuses)
    .select_from(_CERTIFICATES.outerjoin(statuses, statuses.c.serial == _CERTIFICATES.c.serial))
    .where(_CERTIFICATES.c.serial == bindparam("which"))
)


class Statuses:
    """See `StatusStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, serial: Serial) -> CertificateStatus | None:
        return self.find((serial,)).get(serial)

    def look_up(self, serial: Serial) -> tuple[IssuedSerial | None, CertificateStatus | None]:
        row = self._connection.execute(_LOOK_UP, {"which": serial.hex}).one_or_none()
        if row is None or row.by is None:
            return None, None
        issued = IssuedSerial(serial, CaKeyId(row.by), row.ends)
        return issued, None if row.serial is None else _status(row)

    def find(self, serials: Iterable[Serial]) -> dict[Serial, CertificateStatus]:
        found: dict[Serial, CertificateStatus] = {}
        for part in _parts(serial.hex for serial in serials):
            for row in self._connection.execute(select(statuses).where(statuses.c.serial.in_(part))):
                status = _status(row)
                found[status.serial] = status
        return found

    def put(self, changed: Iterable[CertificateStatus]) -> None:
        for part in _parts(changed):
            known = self.find(status.serial for status in part)
            new = [_values(status) for status in part if status.serial not in known]
            old = [{**_values(s), "which": s.serial.hex} for s in part if s.serial in known]
            if new:
                self._connection.execute(insert(statuses), new)
            if old:
                self._connection.execute(update(statuses).where(statuses.c.serial == bindparam("which")), old)

    def issued(
        self, *, serials: Iterable[Serial] = (), keys: Iterable[KeyId] = ()
    ) -> tuple[IssuedSerial, ...]:
        table, found = tables.certificates, {}
        for part in _parts(serial.hex for serial in serials):
            found.update({i.serial: i for i in self._issued(table.c.serial.in_(part))})
        for part in _parts(str(key) for key in keys):
            found.update({i.serial: i for i in self._issued(table.c.key_id.in_(part))})
        return tuple(found.values())

    def held_of(self, who: SpiffeId) -> tuple[IssuedSerial, ...]:
        table = tables.certificates
        rows = self._connection.execute(
            select(statuses.c.serial, statuses.c.issuer, statuses.c.not_after)
            .join(table, table.c.serial == statuses.c.serial)
            .where(table.c.spiffe_id == str(who), statuses.c.state == StatusState.HELD)
        )
        return tuple(
            IssuedSerial(Serial.parse(row.serial), CaKeyId(row.issuer), row.not_after) for row in rows
        )

    def unexpired_under(self, issuer: CaKeyId, *, at: datetime) -> tuple[IssuedSerial, ...]:
        table = tables.certificates
        return tuple(self._issued((table.c.issuer == issuer) & (table.c.not_after >= at)))

    def entries(self, issuer: CaKeyId, *, ends_from: datetime) -> list[bytes]:
        rows = self._connection.execute(
            select(statuses.c.entry).where(
                statuses.c.issuer == issuer,
                statuses.c.not_after >= ends_from,
                statuses.c.state.in_([StatusState.REVOKED, StatusState.HELD]),
            )
        )
        return [bytes(entry) for (entry,) in rows]

    def changed(self, issuer: CaKeyId, *, after: Epoch, ends_from: datetime) -> tuple[CertificateStatus, ...]:
        rows = self._connection.execute(
            select(statuses)
            .where(
                statuses.c.issuer == issuer,
                statuses.c.epoch > int(after),
                statuses.c.not_after >= ends_from,
            )
            .order_by(statuses.c.epoch, statuses.c.serial)
        )
        return tuple(map(_status, rows))

    def issuer_revoked_at(self, issuer: CaKeyId) -> datetime | None:
        since: datetime | None = self._connection.execute(
            select(revoked_issuers.c.since).where(revoked_issuers.c.issuer == issuer)
        ).scalar_one_or_none()
        return since

    def note_issuer_revoked(self, issuer: CaKeyId, at: datetime) -> None:
        if self.issuer_revoked_at(issuer) is None:
            self._connection.execute(insert(revoked_issuers).values(issuer=issuer, since=at))

    @property
    def fed(self) -> Epoch:
        return Epoch(self._connection.execute(select(status_feed.c.epoch)).scalar_one_or_none() or 0)

    def feed_to(self, epoch: Epoch) -> None:
        changed = self._connection.execute(update(status_feed).values(epoch=int(epoch)))
        if changed.rowcount == 0:
            self._connection.execute(insert(status_feed).values(id=_ROW, epoch=int(epoch)))

    def progress(self, issuer: CaKeyId) -> CrlProgress:
        row = self._connection.execute(
            select(crl_progress).where(crl_progress.c.issuer == issuer)
        ).one_or_none()
        if row is None:
            return CrlProgress()
        return CrlProgress(row.number, row.scheduled_at)

    def next_number(self, issuer: CaKeyId, *, at_least: int = 1) -> int:
        last = self.progress(issuer).number
        number = max(last + 1, at_least)
        if last == 0:
            self._connection.execute(insert(crl_progress).values(issuer=issuer, number=number))
        else:
            self._connection.execute(
                update(crl_progress).where(crl_progress.c.issuer == issuer).values(number=number)
            )
        return number

    def note_scheduled(self, issuer: CaKeyId, at: datetime) -> None:
        self._connection.execute(
            update(crl_progress).where(crl_progress.c.issuer == issuer).values(scheduled_at=at)
        )

    def _issued(self, which: ColumnElement[bool]) -> Iterator[IssuedSerial]:
        table = tables.certificates
        rows = self._connection.execute(
            select(table.c.serial, table.c.issuer, table.c.not_after).where(
                which, table.c.issuer.is_not(None)
            )
        )
        return (IssuedSerial(Serial.parse(row.serial), CaKeyId(row.issuer), row.not_after) for row in rows)


def _parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    values = iter(values)
    while part := list(islice(values, _AT_ONCE)):
        yield part


def _values(status: CertificateStatus) -> dict[str, object]:
    return {
        "serial": status.serial.hex,
        "issuer": status.issuer,
        "not_after": status.not_after,
        "state": status.state,
        "since": status.since,
        "reason": int(status.reason),
        "invalid_since": status.invalid_since,
        "epoch": int(status.epoch),
        "entry": status.entry,
        "held_by": int(status.held_by),
    }


def _status(row: Row[Any]) -> CertificateStatus:
    return CertificateStatus(
        serial=Serial.parse(row.serial),
        issuer=CaKeyId(row.issuer),
        not_after=row.not_after,
        state=StatusState(row.state),
        since=row.since,
        reason=CrlReason(row.reason),
        invalid_since=row.invalid_since,
        epoch=Epoch(row.epoch),
        entry=row.entry,
        held_by=HeldBy(row.held_by),
    )
