"""The tables of ACME."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, PrimaryKeyConstraint, String, Table, Text

from fltrust.storage.tables import Timestamp, metadata

_ID = String(32)

acme_accounts = Table(
    "acme_accounts",
    metadata,
    Column("account_id", _ID, primary_key=True),
    Column("server", String(63), nullable=False),
    Column("names", Text, nullable=False),
    Column("credential", String(64), nullable=False, unique=True),
    Column("thumbprint", String(64), nullable=False, unique=True),
    Column("jwk", LargeBinary, nullable=False),
    Column("contacts", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

acme_orders = Table(
    "acme_orders",
    metadata,
    Column("order_id", _ID, primary_key=True),
    Column("account_id", _ID, ForeignKey(acme_accounts.c.account_id), nullable=False),
    Column("names", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("replaces", String(128)),
    Column("csr", LargeBinary),
    Column("request_id", _ID),
    Column("serial", String(40)),
    Column("chain", LargeBinary),
    Column("problem", LargeBinary),
    Index("acme_orders_by_account", "account_id", "created_at"),
    Index("acme_orders_by_replaced", "replaces"),
)

acme_authorizations = Table(
    "acme_authorizations",
    metadata,
    Column("authorization_id", _ID, primary_key=True),
    Column("order_id", _ID, ForeignKey(acme_orders.c.order_id), nullable=False),
    Column("account_id", _ID, nullable=False),
    Column("name", String(253), nullable=False),
    Column("status", String(16), nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Index("acme_authorizations_by_order", "order_id"),
)

acme_challenges = Table(
    "acme_challenges",
    metadata,
    Column("authorization_id", _ID, ForeignKey(acme_authorizations.c.authorization_id), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("token", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("validated_at", Timestamp),
    Column("problem", LargeBinary),
    PrimaryKeyConstraint("authorization_id", "kind", name="acme_challenges_pkey"),
)
