"""When identities were last seen, and in which round: `fltrust.enrollment.inventory` on one connection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, select, update

from fltrust.enrollment.inventory import RoundMark
from fltrust.identity import RunId, SpiffeId
from fltrust.storage import tables
from fltrust.storage.request_tables import sightings


class Sightings:
    """`SightingStore` over ``sightings`` and ``contributions``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, seen: Mapping[SpiffeId, datetime]) -> None:
        known = set(self._connection.execute(select(sightings.c.spiffe_id)).scalars())
        rows = [{"who": str(who), "seen": at} for who, at in seen.items()]
        if old := [row for row in rows if row["who"] in known]:
            self._connection.execute(
                update(sightings)
                .where(sightings.c.spiffe_id == bindparam("who"))
                .values(seen_at=bindparam("seen")),
                old,
            )
        if new := [row for row in rows if row["who"] not in known]:
            self._connection.execute(
                insert(sightings).values(spiffe_id=bindparam("who"), seen_at=bindparam("seen")), new
            )

    def all(self) -> dict[SpiffeId, datetime]:
        return {
            SpiffeId.parse(row.spiffe_id): row.seen_at for row in self._connection.execute(select(sightings))
        }

    def last_rounds(self) -> dict[SpiffeId, RoundMark]:
        table = tables.contributions
        newest = (
            select(table.c.participant, func.max(table.c.log_index).label("log_index"))
            .group_by(table.c.participant)
            .subquery()
        )
        rows = self._connection.execute(
            select(table).join(
                newest,
                (table.c.participant == newest.c.participant) & (table.c.log_index == newest.c.log_index),
            )
        )
        return {
            SpiffeId.parse(row.participant): RoundMark(
                run_id=RunId(int(row.run_id)), step=row.step, at=row.signed_at
            )
            for row in rows
        }
