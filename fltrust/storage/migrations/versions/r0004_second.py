"""A second signature (ML-DSA-65) beside an update, kept with the round's evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rounds sealed before have none."""
    op.add_column("evidence", sa.Column("second", sa.LargeBinary(), nullable=True))
