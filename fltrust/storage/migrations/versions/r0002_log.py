"""The transparency log, and what signing and lineage need kept.

Times are text: RFC 3339 in UTC with microseconds. Index columns are the positions of entries in the log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of the log and of lineage, and what the head row needs for them."""
    op.create_table(
        "aggregates",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("tensors", sa.String(length=192), nullable=False),
        sa.Column("model", sa.String(length=192), nullable=False),
        sa.Column("previous", sa.String(length=192), nullable=True),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.Column("bundle", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "step", name="aggregates_pkey"),
        sa.UniqueConstraint("log_index"),
    )
    op.create_index("aggregates_by_model", "aggregates", ["model"], unique=False)
    op.create_index("aggregates_by_previous", "aggregates", ["previous"], unique=False)
    op.create_index("aggregates_by_tensors", "aggregates", ["tensors"], unique=False)
    op.create_table(
        "aggregate_parents",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("parent_run_id", sa.String(length=20), nullable=False),
        sa.Column("parent_step", sa.BigInteger(), nullable=False),
        sa.Column("is_stated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(
            "run_id", "step", "parent_run_id", "parent_step", name="aggregate_parents_pkey"
        ),
    )
    op.create_index(
        "aggregate_parents_by_parent", "aggregate_parents", ["parent_run_id", "parent_step"], unique=False
    )
    op.create_table(
        "contributions",
        sa.Column("run_id", sa.String(length=20), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("participant", sa.String(length=256), nullable=False),
        sa.Column("signed_at", sa.String(length=32), nullable=False),
        sa.Column("update", sa.String(length=192), nullable=False),
        sa.Column("certificate", sa.String(length=192), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "step", "participant", name="contributions_pkey"),
    )
    op.create_index(
        "contributions_by_participant", "contributions", ["participant", "signed_at"], unique=False
    )
    op.create_table(
        "cosignatures",
        sa.Column("witness", sa.String(length=256), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("witness", "size", name="cosignatures_pkey"),
    )
    op.create_index("cosignatures_by_size", "cosignatures", ["size"], unique=False)
    op.create_table(
        "countersigned",
        sa.Column("request", sa.String(length=192), nullable=False),
        sa.Column("bundle", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request"),
    )
    op.create_table(
        "log_entries",
        sa.Column(
            "idx", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx"),
    )
    op.create_index("log_entries_by_kind", "log_entries", ["kind", "idx"], unique=False)
    op.create_index("log_entries_by_time", "log_entries", ["at"], unique=False)
    op.create_table(
        "log_hashes",
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx", name="log_hashes_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_subjects",
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "idx", name="log_subjects_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_index("log_subjects_by_entry", "log_subjects", ["idx"], unique=False)
    op.create_table(
        "models",
        sa.Column("log_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.String(length=192), nullable=False),
        sa.Column("run_id", sa.String(length=20), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("signer", sa.String(length=256), nullable=False),
        sa.Column("bundle", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("log_index"),
    )
    op.create_index("models_by_aggregate", "models", ["run_id", "step"], unique=False)
    op.create_index("models_by_subject", "models", ["subject"], unique=False)
    op.create_table(
        "taints",
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=48), nullable=False),
        sa.Column("cause", sa.String(length=256), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.String(length=32), nullable=False),
        sa.Column("is_direct", sa.Boolean(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("what", "key", "cause", "epoch", name="taints_pkey"),
    )
    op.create_table(
        "trust_material",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=192), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.String(length=32), nullable=False),
        sa.Column("not_after", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("kind", "fingerprint", name="trust_material_pkey"),
    )
    op.create_table(
        "model_tensors",
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tensors", sa.String(length=192), nullable=False),
        sa.ForeignKeyConstraint(
            ["log_index"],
            ["models.log_index"],
        ),
        sa.PrimaryKeyConstraint("log_index", "position", name="model_tensors_pkey"),
    )
    op.create_index("model_tensors_by_digest", "model_tensors", ["tensors"], unique=False)
    _replace_the_chain()


def _replace_the_chain() -> None:
    """Receipts were a chain of their own. They stay with their rounds; what counted them counts the log.

    Rounds sealed before have no place in the log until the coordinator imports its history.
    """
    op.add_column("rounds", sa.Column("receipt", sa.LargeBinary(), nullable=True))
    op.execute(
        "UPDATE rounds SET receipt = (SELECT receipts.receipt FROM receipts "
        "WHERE receipts.seal_index = rounds.seal_index), seal_index = NULL"
    )
    op.drop_table("receipts")
    op.execute("UPDATE head SET seal_index = 0, seal_hash = NULL")
    op.execute("ALTER TABLE rounds RENAME COLUMN seal_index TO log_index")
    op.execute("ALTER TABLE head RENAME COLUMN seal_index TO log_size")
    op.execute("ALTER TABLE head RENAME COLUMN seal_hash TO log_peaks")
