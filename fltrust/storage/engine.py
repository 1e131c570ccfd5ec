"""One engine per database: the settings that make a commit durable and a writer exclusive."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool, StaticPool

from fltrust.errors import Malformed, StorageUnavailable
from fltrust.files import make_private_folder

_log = logging.getLogger(__name__)

WRITES = "fltrust_writes"
"""Execution option of a connection whose transaction writes."""

BUSY_TIMEOUT_SECONDS = 5.0


def parse_url(text: str) -> URL:
    """Read a database URL; only ``sqlite:///<path>``, ``sqlite://`` and ``postgresql+psycopg://`` are ours.

    A plain path is taken as an SQLite file. The message never repeats the URL: it may hold a password.
    """
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except ArgumentError:
        raise Malformed("expected a database URL such as 'sqlite:////var/lib/fltrust/state.db'") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise Malformed(
            f"expected a database of SQLite or PostgreSQL, got {url.drivername[:40]!r}",
            hint="sqlite:////path/to/state.db or postgresql+psycopg://user@host/name",
        )
    return url


def is_memory(url: URL) -> bool:
    """Whether the database lives in this process and ends with it."""
    return url.drivername == "sqlite" and url.database in (None, "", ":memory:")


def make_engine(url: URL) -> Engine:
    """Make the engine of a database. Nothing is opened yet but the SQLite file, created 0600."""
    if url.drivername == "sqlite":
        return _sqlite(url)
    return _postgresql(url)


def _sqlite(url: URL) -> Engine:
    if is_memory(url):
        engine = create_engine(url, poolclass=StaticPool, connect_args=_sqlite_arguments())
    else:
        prepare_file(Path(str(url.database)))
        engine = create_engine(
            url, poolclass=QueuePool, pool_size=8, max_overflow=24, connect_args=_sqlite_arguments()
        )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a commit is on the disk before it is acknowledged
            "foreign_keys=ON",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock first: no reader has to become a writer, which SQLite can refuse.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _sqlite_arguments() -> dict[str, object]:
    # isolation_level None: the driver begins nothing by itself, the listener above does.
    return {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_TIMEOUT_SECONDS}


def prepare_file(path: Path) -> None:
    """Create an SQLite file as ours alone: 0600 in a folder of 0700. Its WAL takes the same mode."""
    make_private_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            mode = os.fstat(handle).st_mode & 0o777
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageUnavailable(
            f"could not open the database {path}: {error.strerror or error}",
            hint="check the path and its permissions",
        ) from error
    if mode & 0o077:
        raise StorageUnavailable(
            f"expected {path} to be open to its owner only, found mode {mode:04o}", hint=f"chmod 600 {path}"
        )


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=8,
        max_overflow=24,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "fltrust"},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'")
            cursor.execute("SET statement_timeout = '60s'")
            cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
            cursor.execute("SHOW synchronous_commit")
            if cursor.fetchone()[0] == "off":  # any other setting is at least as durable as 'local'
                cursor.execute("SET synchronous_commit = on")
        connection.commit()

    return engine


def warn_if_not_durable(connection: Connection) -> None:
    """Say so, loudly, where a PostgreSQL server may lose what it acknowledged."""
    if connection.dialect.name != "postgresql":
        return
    if connection.exec_driver_sql("SHOW fsync").scalar_one() == "off":
        _log.warning("PostgreSQL runs with fsync=off: a power loss can undo acknowledged revocations")
