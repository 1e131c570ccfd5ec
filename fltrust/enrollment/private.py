"""Reading what is ours alone: files that nobody else owns or may touch."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fltrust.errors import Malformed, Oversized, Refused, StorageUnavailable

PASSPHRASE_FILE_VARIABLE = "FLTRUST_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
_MAX_PASSPHRASE_FILE = 1024


def passphrase_from_environment() -> bytes | None:
    """The passphrase for the key at rest, from the file that ``FLTRUST_PASSPHRASE_FILE`` names.

    None where the variable is not set.
    """
    name = os.environ.get(PASSPHRASE_FILE_VARIABLE)
    return read_passphrase(Path(name)) if name else None


def read_passphrase(path: Path) -> bytes:
    """Read a passphrase from a private file; line ends at its end are cut."""
    passphrase = read_private(path, limit=_MAX_PASSPHRASE_FILE).rstrip(b"\r\n")
    if not passphrase:
        raise Malformed(f"expected a passphrase in {path}, found an empty file")
    return passphrase


def read_private(path: Path, *, limit: int) -> bytes:
    """Read at most `limit` bytes from a file of ours that nobody else can touch.

    Refuses (``state-exposed``) a file of another owner or with any permission for group or others.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO: no wait
    except FileNotFoundError:
        raise Malformed(f"expected a file at {path}, found none") from None
    except OSError as error:
        raise StorageUnavailable(f"could not read {path}: {error.strerror or error}") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())  # of the file that is read, not of the name
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"expected a regular file at {path}, found something else")
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(
                f"expected {path} to be open to uid {os.geteuid()} only, "
                f"found uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
                reason="state-exposed",
                hint=f"if nobody else read it, chown it and run: chmod 600 {path}",
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Oversized(f"expected at most {limit} bytes in {path}, found more")
    return data
