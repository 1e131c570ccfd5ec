"""The tables of the registration authority: requests, operations, and what operators decided."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from fltrust.storage.tables import Timestamp, metadata

_ID = String(32)
_SPIFFE_ID = String(256)

requests = Table(
    "requests",
    metadata,
    Column("request_id", _ID, primary_key=True),
    Column("state", String(32), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("evidence", String(32), nullable=False),
    Column("evidence_digest", LargeBinary(32), nullable=False),
    Column("csr", LargeBinary, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("node_key", LargeBinary),
    Column("role", String(16)),
    Column("name", String(63)),
    Column("dns_names", Text, nullable=False),
    Column("replace", Boolean, nullable=False),
    Column("granted_by", _SPIFFE_ID),
    Column("claims", Text, nullable=False),
    Column("account", String(32)),
    Column("source", String(64), nullable=False),
    Column("needed", Integer, nullable=False),
    Column("submitted_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("decided_at", Timestamp),
    Column("reason", Text),
    Column("serial", String(40)),
    Column("log_size", BigInteger),
    Column("issuers", LargeBinary),
    Index("requests_by_state", "state", "request_id"),
    Index("requests_by_key", "key_id"),
    Index("requests_by_name", "role", "name"),
)

request_decisions = Table(
    "request_decisions",
    metadata,
    Column("request_id", _ID, ForeignKey("requests.request_id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("operator", _SPIFFE_ID, nullable=False),
    Column("serial", String(40), nullable=False),
    Column("is_approval", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("request_id", "position", name="request_decisions_pkey"),
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", _ID, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("proposer", _SPIFFE_ID, nullable=False),
    Column("state", String(32), nullable=False),
    Column("needed", Integer, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("decided_at", Timestamp),
    Column("result", LargeBinary),
    Index("operations_by_state", "state", "operation_id"),
)

operation_decisions = Table(
    "operation_decisions",
    metadata,
    Column("operation_id", _ID, ForeignKey("operations.operation_id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("operator", _SPIFFE_ID, nullable=False),
    Column("serial", String(40), nullable=False),
    Column("is_approval", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("operation_id", "position", name="operation_decisions_pkey"),
)

sightings = Table(
    "sightings",
    metadata,
    Column("spiffe_id", _SPIFFE_ID, primary_key=True),
    Column("seen_at", Timestamp, nullable=False),
)
