"""Run by Alembic with the connection that `fltrust.storage.schema` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from fltrust.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():  # does nothing inside the transaction that the caller began
    context.run_migrations()
