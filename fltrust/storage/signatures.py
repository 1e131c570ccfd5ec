"""Bundles given out, cosignatures and trust material: `fltrust.artifacts.keeping` on one connection."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from fltrust.artifacts.keeping import Cosignature, TrustMaterial
from fltrust.identity import Digest
from fltrust.storage import tables


class Countersigned:
    """`CountersignedStore` over the ``countersigned`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, request: Digest) -> bytes | None:
        table = tables.countersigned
        return self._connection.execute(
            select(table.c.bundle).where(table.c.request == str(request))
        ).scalar_one_or_none()

    def put(self, request: Digest, bundle: bytes) -> None:
        self._connection.execute(insert(tables.countersigned).values(request=str(request), bundle=bundle))


class Cosignatures:
    """`CosignatureStore` over the ``cosignatures`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, cosignature: Cosignature) -> None:
        if any(known.witness == cosignature.witness for known in self.at(cosignature.size)):
            return
        self._connection.execute(
            insert(tables.cosignatures).values(
                witness=cosignature.witness, size=cosignature.size, line=cosignature.line
            )
        )

    def at(self, size: int) -> tuple[Cosignature, ...]:
        table = tables.cosignatures
        return self._found(select(table).where(table.c.size == size).order_by(table.c.witness))

    def newest_of(self, witness: str) -> Cosignature | None:
        table = tables.cosignatures
        query = select(table).where(table.c.witness == witness).order_by(table.c.size.desc()).limit(1)
        found = self._found(query)
        return found[0] if found else None

    def sizes(self, *, after: int = 0) -> tuple[int, ...]:
        table = tables.cosignatures
        return tuple(
            self._connection.execute(
                select(table.c.size).where(table.c.size > after).distinct().order_by(table.c.size)
            ).scalars()
        )

    def _found(self, query: Select[Any]) -> tuple[Cosignature, ...]:
        return tuple(Cosignature(row.witness, row.size, row.line) for row in self._connection.execute(query))


class TrustMaterials:
    """`TrustMaterialStore` over the ``trust_material`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, material: TrustMaterial) -> None:
        table = tables.trust_material
        changed = self._connection.execute(
            update(table)
            .where(table.c.kind == material.kind, table.c.fingerprint == str(material.fingerprint))
            .values(not_after=material.not_after)
        )
        if changed.rowcount == 0:
            self._connection.execute(
                insert(table).values(
                    kind=material.kind,
                    fingerprint=str(material.fingerprint),
                    data=material.data,
                    not_before=material.not_before,
                    not_after=material.not_after,
                )
            )

    def all(self) -> tuple[TrustMaterial, ...]:
        table = tables.trust_material
        rows = self._connection.execute(
            select(table).order_by(table.c.kind, table.c.not_before, table.c.fingerprint)
        )
        return tuple(map(_material, rows))


def _material(row: Row[Any]) -> TrustMaterial:
    return TrustMaterial(row.kind, Digest.parse(row.fingerprint), row.data, row.not_before, row.not_after)
