"""The tables, as SQLAlchemy Core sees them. Migrations make them; a test holds the two together.

Times are RFC 3339 in UTC with microseconds, so that text order is time order. Unsigned 64-bit ids are
decimal text, since no database here has a column for them. Nothing is ever deleted.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
)

from fltrust.clock import from_rfc3339, to_rfc3339

metadata = MetaData()


class Timestamp(TypeDecorator[datetime]):
    """An aware time, kept as text. SQLAlchemy names the arguments of both methods."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else to_rfc3339(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_rfc3339(value)


_SPIFFE_ID = String(256)
_KEY_ID = String(64)
_SERIAL = String(40)
_RUN_ID = String(20)
_DIGEST = String(192)
_INDEX = BigInteger().with_variant(Integer, "sqlite")  # there it is the row's own id

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("domain", String(128)),
    Column("holder", String(32)),
    Column("epoch", BigInteger, nullable=False),
    Column("log_size", BigInteger, nullable=False),
    Column("log_peaks", LargeBinary),
    CheckConstraint("id = 1", name="head_is_one_row"),
)

events = Table(
    "events",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("actor", _SPIFFE_ID),
    Column("subject", _SPIFFE_ID),
    Column("identity_wide", Boolean, nullable=False),
    Column("serials", Text, nullable=False),
    Column("keys", Text, nullable=False),
    Column("node_key", LargeBinary),
    Column("run_id", _RUN_ID),
    Column("reason", String(32)),
    Column("compromised_since", Timestamp),
    Column("domain", String(128)),
    Column("sequence", BigInteger),
    Column("issuer", String(40)),
    Index("events_by_subject", "subject", "epoch"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("name", String(63), nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("created_by", _SPIFFE_ID),
    Column("replace", Boolean, nullable=False),
    Column("dns_names", Text),
    Column("used_at", Timestamp),
    Column("cancelled_at", Timestamp),
    Index("tokens_by_name", "role", "name"),
)

spent_evidence = Table(
    "spent_evidence",
    metadata,
    Column("kind", String(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("spent_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("kind", "digest", name="spent_evidence_pkey"),
)

enrollments = Table(
    "enrollments",
    metadata,
    Column("spiffe_id", _SPIFFE_ID, primary_key=True),
    Column("enrolled_at", Timestamp, nullable=False),
    Column("enrolled_by", _SPIFFE_ID),
    Column("evidence", String(32), nullable=False),
    Column("node_key", LargeBinary),
    Column("dns_names", Text),
    Column("claims", Text),
)

node_keys = Table(
    "node_keys",
    metadata,
    Column("key_id", _KEY_ID, primary_key=True),
    Column("spiffe_id", _SPIFFE_ID, ForeignKey("enrollments.spiffe_id"), nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", _SERIAL, primary_key=True),
    Column("spiffe_id", _SPIFFE_ID, nullable=False),
    Column("key_id", _KEY_ID, nullable=False),
    Column("not_before", Timestamp, nullable=False),
    Column("not_after", Timestamp, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("issuer", String(40)),
    Index("certificates_by_identity", "spiffe_id", "not_after"),
    Index("certificates_by_key", "key_id", "not_after"),
    Index("certificates_by_issuer", "issuer", "not_after"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _RUN_ID, primary_key=True),
    Column("aggregator", _SPIFFE_ID, nullable=False),
    Column("opened_epoch", BigInteger, nullable=False),
    Column("closed_epoch", BigInteger),
)

rounds = Table(
    "rounds",
    metadata,
    Column("run_id", _RUN_ID, ForeignKey("runs.run_id"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("aggregator", _SPIFFE_ID, nullable=False),
    Column("opened_at", Timestamp, nullable=False),
    Column("opened_epoch", BigInteger, nullable=False),
    Column("sealed_at", Timestamp),
    Column("log_index", BigInteger, unique=True),
    Column("request_hash", LargeBinary(32)),
    Column("receipt", LargeBinary),
    PrimaryKeyConstraint("run_id", "step", name="rounds_pkey"),
)

cohorts = Table(
    "cohorts",
    metadata,
    Column("run_id", _RUN_ID, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("participant", _SPIFFE_ID, nullable=False),
    Column("node_id", _RUN_ID, nullable=False),
    Column("node_key", _KEY_ID, nullable=False),
    Column("instruction", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("run_id", "step", "participant", name="cohorts_pkey"),
    ForeignKeyConstraint(["run_id", "step"], ["rounds.run_id", "rounds.step"], name="cohorts_round_fkey"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("run_id", _RUN_ID, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("participant", _SPIFFE_ID, nullable=False),
    Column("instruction", LargeBinary, nullable=False),
    Column("update", LargeBinary, nullable=False),
    Column("second", LargeBinary, nullable=True),
    PrimaryKeyConstraint("run_id", "step", "participant", name="evidence_pkey"),
    ForeignKeyConstraint(["run_id", "step"], ["rounds.run_id", "rounds.step"], name="evidence_round_fkey"),
)

log_entries = Table(
    "log_entries",
    metadata,
    Column("idx", _INDEX, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("log_entries_by_kind", "kind", "idx"),
    Index("log_entries_by_time", "at"),
)

# By height: at level L the Merkle Tree Hash of 256**L entries. A row is written once, when it is full.
log_hashes = Table(
    "log_hashes",
    metadata,
    Column("level", SmallInteger, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("level", "idx", name="log_hashes_pkey"),
    sqlite_with_rowid=False,
)

log_subjects = Table(
    "log_subjects",
    metadata,
    Column("subject", _SPIFFE_ID, nullable=False),
    Column("idx", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject", "idx", name="log_subjects_pkey"),
    Index("log_subjects_by_entry", "idx"),
    sqlite_with_rowid=False,
)

aggregates = Table(
    "aggregates",
    metadata,
    Column("run_id", _RUN_ID, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("tensors", _DIGEST, nullable=False),
    Column("model", _DIGEST, nullable=False),
    Column("previous", _DIGEST),
    Column("log_index", BigInteger, nullable=False, unique=True),
    Column("bundle", LargeBinary, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "step", name="aggregates_pkey"),
    Index("aggregates_by_tensors", "tensors"),
    Index("aggregates_by_model", "model"),
    Index("aggregates_by_previous", "previous"),
)

aggregate_parents = Table(
    "aggregate_parents",
    metadata,
    Column("run_id", _RUN_ID, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("parent_run_id", _RUN_ID, nullable=False),
    Column("parent_step", BigInteger, nullable=False),
    Column("is_stated", Boolean, nullable=False),
    PrimaryKeyConstraint("run_id", "step", "parent_run_id", "parent_step", name="aggregate_parents_pkey"),
    Index("aggregate_parents_by_parent", "parent_run_id", "parent_step"),
)

models = Table(
    "models",
    metadata,
    Column("log_index", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("subject", _DIGEST, nullable=False),
    Column("run_id", _RUN_ID),
    Column("step", BigInteger),
    Column("signer", _SPIFFE_ID, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Index("models_by_subject", "subject"),
    Index("models_by_aggregate", "run_id", "step"),
)

model_tensors = Table(
    "model_tensors",
    metadata,
    Column("log_index", BigInteger, ForeignKey("models.log_index"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("tensors", _DIGEST, nullable=False),
    PrimaryKeyConstraint("log_index", "position", name="model_tensors_pkey"),
    Index("model_tensors_by_digest", "tensors"),
)

contributions = Table(
    "contributions",
    metadata,
    Column("run_id", _RUN_ID, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("participant", _SPIFFE_ID, nullable=False),
    Column("signed_at", Timestamp, nullable=False),
    Column("update", _DIGEST, nullable=False),
    Column("certificate", _DIGEST, nullable=False),
    Column("log_index", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "step", "participant", name="contributions_pkey"),
    Index("contributions_by_participant", "participant", "signed_at"),
)

taints = Table(
    "taints",
    metadata,
    Column("what", String(16), nullable=False),
    Column("key", String(48), nullable=False),
    Column("cause", _SPIFFE_ID, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("is_direct", Boolean, nullable=False),
    Column("log_index", BigInteger, nullable=False),
    PrimaryKeyConstraint("what", "key", "cause", "epoch", name="taints_pkey"),
)

countersigned = Table(
    "countersigned",
    metadata,
    Column("request", _DIGEST, primary_key=True),
    Column("bundle", LargeBinary, nullable=False),
)

cosignatures = Table(
    "cosignatures",
    metadata,
    Column("witness", String(256), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
    PrimaryKeyConstraint("witness", "size", name="cosignatures_pkey"),
    Index("cosignatures_by_size", "size"),
)

trust_material = Table(
    "trust_material",
    metadata,
    Column("kind", String(32), nullable=False),
    Column("fingerprint", _DIGEST, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("not_before", Timestamp, nullable=False),
    Column("not_after", Timestamp),
    PrimaryKeyConstraint("kind", "fingerprint", name="trust_material_pkey"),
)
