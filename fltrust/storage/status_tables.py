"""Tables of revocation status: one row for each certificate that ever stood badly, one for each CA's CRLs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table

from fltrust.storage.tables import Timestamp, metadata

_CA_KEY = String(40)

statuses = Table(
    "statuses",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("issuer", _CA_KEY, nullable=False),
    Column("not_after", Timestamp, nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("invalid_since", Timestamp),
    Column("epoch", BigInteger, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("held_by", Integer, nullable=False),
    Index("statuses_by_end", "issuer", "not_after"),
    Index("statuses_by_change", "issuer", "epoch"),
)

revoked_issuers = Table(
    "revoked_issuers",
    metadata,
    Column("issuer", _CA_KEY, primary_key=True),
    Column("since", Timestamp, nullable=False),
)

status_feed = Table(
    "status_feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
)

crl_progress = Table(
    "crl_progress",
    metadata,
    Column("issuer", _CA_KEY, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("scheduled_at", Timestamp),
)
