"""Foreign trust domains: `fltrust.enrollment.foreign.ForeignStore` on one connection."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from fltrust.enrollment.foreign import BundleProfile, ForeignDomain
from fltrust.identity import Name, TrustDomain
from fltrust.pki.bundle import bundle_from_json, bundle_to_json
from fltrust.storage.tables import Timestamp, metadata

foreign_domains = Table(
    "foreign_domains",
    metadata,
    Column("domain", String(128), primary_key=True),
    Column("address", String(260), nullable=False),
    Column("endpoint_url", Text, nullable=False),
    Column("profile", String(16), nullable=False),
    Column("endpoint_spiffe_id", Text),
    Column("bundle", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("lent", Text, nullable=False),
    Column("has_ended", Boolean, nullable=False),
    Column("heard_at", Timestamp),
)


class ForeignDomains:
    """`ForeignStore` over the ``foreign_domains`` table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, domain: TrustDomain) -> ForeignDomain | None:
        row = self._connection.execute(
            select(foreign_domains).where(foreign_domains.c.domain == domain)
        ).one_or_none()
        return None if row is None else _record(row)

    def all(self) -> tuple[ForeignDomain, ...]:
        rows = self._connection.execute(select(foreign_domains).order_by(foreign_domains.c.domain))
        return tuple(map(_record, rows))

    def put(self, record: ForeignDomain) -> None:
        self._connection.execute(delete(foreign_domains).where(foreign_domains.c.domain == record.domain))
        self._connection.execute(
            insert(foreign_domains).values(
                domain=str(record.domain),
                address=record.address,
                endpoint_url=record.endpoint_url,
                profile=record.profile.value,
                endpoint_spiffe_id=record.endpoint_spiffe_id,
                bundle=bundle_to_json(record.bundle),
                sequence=record.bundle.sequence,
                lent=json.dumps(sorted(record.lent)),
                has_ended=record.has_ended,
                heard_at=record.heard_at,
            )
        )

    def hear(self, domain: TrustDomain, at: datetime) -> None:
        self._connection.execute(
            update(foreign_domains).where(foreign_domains.c.domain == domain).values(heard_at=at)
        )


def _record(row: Row[Any]) -> ForeignDomain:
    return ForeignDomain(
        bundle=bundle_from_json(row.bundle),
        address=row.address,
        endpoint_url=row.endpoint_url,
        profile=BundleProfile(row.profile),
        endpoint_spiffe_id=row.endpoint_spiffe_id,
        lent=frozenset(map(Name, json.loads(row.lent))),
        has_ended=row.has_ended,
        heard_at=row.heard_at,
    )
