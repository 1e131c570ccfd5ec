"""One coordinator per database: a lock that ends with its process, and a token that outlives a lost one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine

from fltrust.errors import Conflict, StorageUnavailable
from fltrust.storage.errors import translated

_ADVISORY_LOCK = 0x666C74727573743A  # "fltrust:"


class Hold(Protocol):
    """Something held until it is released or its process ends."""

    def release(self) -> None: ...


class FileHold:
    """An flock on ``<database>.lock``; the kernel drops it when the process ends, however it ends."""

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageUnavailable(f"could not open {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise _held(str(database), f"process {holder}" if holder else "another process") from None
        with contextlib.suppress(OSError):  # the pid is a courtesy; a full disk must not matter here
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._handle)


class SessionHold:
    """A session advisory lock of PostgreSQL on a connection of its own; it ends with the connection."""

    def __init__(self, engine: Engine) -> None:
        with translated("lock the database"):
            self._connection: Connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            taken = self._connection.exec_driver_sql(
                f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})"
            ).scalar_one()
        if not taken:
            self._connection.close()
            raise _held(str(engine.url.database), "another process")

    def release(self) -> None:
        # The connection goes, not back to the pool: the lock must not survive in there.
        self._connection.invalidate()
        self._connection.close()


def _held(database: str, holder: str) -> Conflict:
    return Conflict(
        f"the database {database} is in use by another coordinator ({holder})",
        reason="database-in-use",
        hint="one coordinator per database: stop the other one first",
    )
