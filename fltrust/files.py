"""Files that survive: private modes, write → fsync → rename → fsync the folder."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fltrust.errors import Malformed, Oversized, StorageUnavailable


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` with `data` so that a crash leaves the old file or the new one, whole.

    Raises `StorageUnavailable` when the disk is full or read-only; nothing half-written stays.
    """
    write_parts_durably(path, (data,), mode=mode)


def write_parts_durably(path: Path, parts: Iterable[bytes | memoryview], *, mode: int = 0o600) -> None:
    """As `write_durably`, of parts that follow each other in the file: they need not be in memory at once."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StorageUnavailable(
            f"could not write {path}: {error.strerror or error}", hint="check free space and permissions"
        ) from error


def make_private_folder(path: Path) -> None:
    """Create `path` (0700), or check that the one there is ours and open to nobody else."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise StorageUnavailable(f"could not create {path}: {error.strerror or error}") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StorageUnavailable(
            f"expected {path} to be private to uid {os.geteuid()}, "
            f"found uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
            hint=f"chown it and run: chmod 700 {path}",
        )


def read_bounded(path: Path, *, limit: int) -> bytes:
    """Read a whole file of at most `limit` bytes; a larger one raises `Oversized`, unread."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise Malformed(f"expected a file at {path}, found none") from error
    except OSError as error:
        raise StorageUnavailable(f"could not read {path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise Oversized(f"expected at most {limit} bytes in {path}, found more")
    return data


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """Be the only one, of all processes that ask this way, to work in `folder`; waits for the others."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            raise
    except OSError as error:
        raise StorageUnavailable(f"could not lock {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        os.close(handle)


def remove_durably(path: Path) -> None:
    """Remove a file so that it stays away after a crash; one that is gone already is none."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageUnavailable(f"could not remove {path}: {error.strerror or error}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or removed there."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
