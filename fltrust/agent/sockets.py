"""Where a unix socket may lie, and what may lie there before it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from fltrust.errors import Conflict, StorageUnavailable

MAX_SOCKET_PATH = 100
"""Bytes: `sun_path` holds 108 on Linux and 104 elsewhere."""


def prepare_folder(folder: Path, *, shared: bool) -> None:
    """Make the socket's folder ours: 0700, or 0711 where other users are to reach the socket."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StorageUnavailable(
                f"expected {folder} to be a folder of uid {os.geteuid()}, found one of uid {found.st_uid}",
                hint="remove it, or choose another path for the socket",
            )
        folder.chmod(0o711 if shared else 0o700)
    except OSError as error:
        raise StorageUnavailable(f"could not prepare {folder}: {error.strerror or error}") from error


def remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone; refuse anything else that has the name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"expected nothing or a socket at {path}, found something else", hint="remove it")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError:
        raise _lives(path) from None  # e.g. its backlog is full: it lives
    else:
        raise _lives(path)
    finally:
        probe.close()


def _lives(path: Path) -> Conflict:
    return Conflict(
        f"expected no other agent on {path}, one is running", hint="stop it first; one identity has one agent"
    )
