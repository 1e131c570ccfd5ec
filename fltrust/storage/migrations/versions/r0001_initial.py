"""Trust events, enrollment, certificates, rounds and their chain.

Times are text: RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, and the one row that all writers lock."""
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("spiffe_id", sa.String(length=256), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("not_before", sa.String(length=32), nullable=False),
        sa.Column("not_after", sa.String(length=32), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("serial"),
        sa.UniqueConstraint("key_id"),
    )
    op.create_index("certificates_by_identity", "certificates", ["spiffe_id", "not_after"], unique=False)
    op.create_table(
        "enrollments",
        sa.Column("spiffe_id", sa.String(length=256), nullable=False),
        sa.Column("enrolled_at", sa.String(length=32), nullable=False),
        sa.Column("enrolled_by", sa.String(length=256), nullable=True),
        sa.Column("evidence", sa.String(length=32), nullable=False),
        sa.Column("node_key", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("spiffe_id"),
    )
    op.create_table(
        "events",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=True),
        sa.Column("subject", sa.String(length=256), nullable=True),
        sa.Column("identity_wide", sa.Boolean(), nullable=False),
        sa.Column("serials", sa.Text(), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("node_key", sa.LargeBinary(), nullable=True),
        sa.Column("run_id", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("compromised_since", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_index("events_by_subject", "events", ["subject", "epoch"], unique=False)
    op.create_table(
        "head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("domain", sa.String(length=128), nullable=True),
        sa.Column("holder", sa.String(length=32), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seal_index", sa.BigInteger(), nullable=False),
        sa.Column("seal_hash", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("id = 1", name="head_is_one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "receipts",
        sa.Column("seal_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("receipt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seal_index"),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("aggregator", sa.String(length=256), nullable=False),
        sa.Column("opened_epoch", sa.BigInteger(), nullable=False),
        sa.Column("closed_epoch", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.String(length=32), nullable=False),
        sa.Column("created_by", sa.String(length=256), nullable=True),
        sa.Column("replace", sa.Boolean(), nullable=False),
        sa.Column("used_at", sa.String(length=32), nullable=True),
        sa.Column("cancelled_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("token_id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_index("tokens_by_name", "tokens", ["role", "name"], unique=False)
    op.create_table(
        "node_keys",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("spiffe_id", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(
            ["spiffe_id"],
            ["enrollments.spiffe_id"],
        ),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_table(
        "rounds",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("aggregator", sa.String(length=256), nullable=False),
        sa.Column("opened_at", sa.String(length=32), nullable=False),
        sa.Column("opened_epoch", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.String(length=32), nullable=True),
        sa.Column("seal_index", sa.BigInteger(), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.run_id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "step", name="rounds_pkey"),
        sa.UniqueConstraint("seal_index"),
    )
    op.create_table(
        "cohorts",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("participant", sa.String(length=256), nullable=False),
        sa.Column("node_id", sa.String(length=20), nullable=False),
        sa.Column("node_key", sa.String(length=64), nullable=False),
        sa.Column("instruction", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "step"], ["rounds.run_id", "rounds.step"], name="cohorts_round_fkey"
        ),
        sa.PrimaryKeyConstraint("run_id", "step", "participant", name="cohorts_pkey"),
    )
    op.create_table(
        "evidence",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("participant", sa.String(length=256), nullable=False),
        sa.Column("instruction", sa.LargeBinary(), nullable=False),
        sa.Column("update", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "step"], ["rounds.run_id", "rounds.step"], name="evidence_round_fkey"
        ),
        sa.PrimaryKeyConstraint("run_id", "step", "participant", name="evidence_pkey"),
    )
    op.execute("INSERT INTO head (id, epoch, seal_index) VALUES (1, 0, 0)")
