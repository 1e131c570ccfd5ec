"""A file is the old one or the new one, whole, and nobody else's to read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fltrust.errors import Malformed, Oversized, StorageUnavailable
from fltrust.files import make_private_folder, read_bounded, write_durably


def test_a_written_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_durably(tmp_path / "key", b"secret")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").read_bytes() == b"secret"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    write_durably(tmp_path / "state", b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from fltrust.files import write_durably\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_durably(Path(sys.argv[1]), b'x' * 100_000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "state")], capture_output=True, text=True, timeout=60
    )
    assert "StorageUnavailable" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state").read_bytes() == b"old"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="could not write"):
        write_durably(tmp_path / "absent" / "file", b"")


def test_a_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(StorageUnavailable, match="private"):
        make_private_folder(folder)


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(Oversized):
        read_bounded(tmp_path / "file", limit=4)
    with pytest.raises(Malformed, match="found none"):
        read_bounded(tmp_path / "absent", limit=4)
