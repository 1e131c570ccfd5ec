"""The schema's version: brought up to date on open, refused if newer than this program."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from fltrust.errors import Conflict
from fltrust.storage.tables import head, metadata


def migrate(connection: Connection) -> None:
    """Bring the schema up to date, in the caller's transaction: all of it or nothing.

    Refuses (`Conflict`, ``schema-newer``) a schema that a newer version wrote, and one that holds
    tables of ours without a version.
    """
    # Alembic takes a while to import; a database in memory never needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    found = MigrationContext.configure(connection).get_current_heads()
    if not set(found) <= known:
        raise Conflict(
            f"expected a schema that this version of fltrust knows, found {', '.join(found)}",
            reason="schema-newer",
            hint="upgrade fltrust, or restore the backup that was made before the upgrade",
        )
    if not found and inspect(connection).has_table(head.name):
        raise Conflict(
            "the database has a table 'head' but no schema version: it is not fltrust's",
            reason="schema-foreign",
            hint="use a database, or a PostgreSQL schema, of its own",
        )
    command.upgrade(config, "head")


def create(connection: Connection) -> None:
    """Make the newest schema at once: for a database in memory, which has no past."""
    metadata.create_all(connection)
    connection.execute(text("INSERT INTO head (id, epoch, log_size) VALUES (1, 0, 0)"))
