"""What a database says when it cannot, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from fltrust.errors import Conflict, StorageUnavailable

# Words of SQLite and PostgreSQL → what an operator can do about it. The first match counts.
_HINTS = (
    (("disk is full", "no space left", "diskfull"), "the disk is full: free some space, then try again"),
    (
        ("readonly", "read-only", "readonlysqltransaction"),
        "the database is read-only: check permissions and mount options",
    ),
    (
        ("is locked", "lock timeout", "locknotavailable", "querycanceled"),
        "another process holds the database: find it, then try again",
    ),
    (("disk i/o error",), "the disk refused a write: check free space, quota and the disk's health"),
    (
        ("not a database", "malformed", "corrupt"),
        "the file is damaged or no database of fltrust's: restore a backup",
    ),
    (("unable to open",), "check the path and its permissions"),
    (("connection", "could not connect", "server closed", "terminat"), "is the database server up?"),
)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise `StorageUnavailable` for whatever the database reports, `Conflict` for a broken constraint.

    A message never quotes statements or parameters: they may carry evidence.
    """
    try:
        yield
    except IntegrityError as error:
        raise Conflict(
            f"could not {what}: it is there already, or what it refers to is not", reason="storage-constraint"
        ) from error
    except SQLAlchemyError as error:
        raise unavailable(what, error) from error


def unavailable(what: str, error: BaseException) -> StorageUnavailable:
    """Say that `what` could not be done, with the database's own words and a hint."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    words = f"{type(cause).__name__} {cause}".lower()
    hint = next((hint for marks, hint in _HINTS if any(mark in words for mark in marks)), None)
    kind = "database" if isinstance(error, OperationalError | DBAPIError) else type(error).__name__
    first_line = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
    return StorageUnavailable(f"could not {what}: the {kind} says: {first_line}", hint=hint)
