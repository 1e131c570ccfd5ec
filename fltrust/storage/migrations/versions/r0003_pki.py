"""The PKI: events about CAs, requests and what operators decide, revocation status, and protocols.

Times are text: RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, one part after the other."""
    _events()
    _spent_evidence()


def _events() -> None:
    op.add_column("events", sa.Column("domain", sa.String(length=128), nullable=True))
    op.add_column("events", sa.Column("sequence", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("issuer", sa.String(length=40), nullable=True))


def _spent_evidence() -> None:
    op.create_table(
        "spent_evidence",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spent_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("kind", "digest", name="spent_evidence_pkey"),
    )
