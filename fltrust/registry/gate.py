"""Hand over a model only once it verifies: for CI, and for the step before a server that loads it.

    fltrust fetch-verified /mnt/source /mnt/models --trust trust.json --policy policy.toml

The source is read once, into a private copy; the copy is verified; the copy is what is handed over.
So nobody who can still write to the source can change what was verified.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fltrust.artifacts.policy import Mode, Policy
from fltrust.artifacts.recipe import VerifiedModel
from fltrust.artifacts.walk import LINEAGE_NAME, SIGNATURE_NAME, SINGLE_FILE, Listing
from fltrust.errors import Conflict, Oversized, StorageUnavailable
from fltrust.files import sync_folder

Copy = Callable[[Path], Path]
"""Puts a model with its sidecars into an empty private folder; returns the model's path there."""
Verify = Callable[[Path], VerifiedModel]
_CHUNK = 4 * 2**20
_STAGE = ".fltrust-fetch-"


def fetch_verified(copy: Copy, target: Path, *, check: Verify) -> Path:
    """Copy a model with its signature and lineage to `target`, verified; return its path.

    1. `target` does not exist, or is an empty directory (a mount); else `Conflict`.
    2. `copy` puts the model into a private folder beside the target (`from_files`, or `oci.unpack`).
    3. `check` verifies the copy, and raises what is wrong with it: then nothing is left behind.
    4. The copy is made durable and moved into place: by one rename, or file by file into an empty directory.
    """
    is_mount = target.is_dir()
    if (is_mount and any(target.iterdir())) or (target.exists() and not is_mount):  # 1
        raise Conflict(
            f"expected nothing at {target}, found something there", hint="give a new path, or clear it first"
        )
    home = target if is_mount else target.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=home, prefix=_STAGE))
    except OSError as error:
        raise StorageUnavailable(f"could not write beside {target}: {error.strerror or error}") from error
    try:
        model = copy(stage)  # 2
        check(model)  # 3
        return _hand_over(model, stage, target, is_mount=is_mount)  # 4
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def enforced(policy: Policy) -> Policy:
    """The same demands, where a refusal stops: a copy is handed over or it is not."""
    return replace(policy, mode=Mode.ENFORCE)


def from_files(source: Path, *, limit: int | None = None) -> Copy:
    """Copies the model at `source`, through no link, each file read once; at most `limit` bytes."""
    return lambda stage: _copy(source, stage / (source.name or "model"), _Budget(limit))


def _copy(source: Path, target: Path, left: _Budget) -> Path:
    """The model and its sidecars, which stand inside a directory, or beside a file."""
    with Listing(source) as listing:
        opener = listing.opener()
        try:
            if listing.is_directory:
                target.mkdir()
                for name in listing.empty_directories:
                    (target / name).mkdir(parents=True)
            for file in listing.files:
                place = target if file.name == SINGLE_FILE else target / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(opener.open(file.name), place, left)
        finally:
            opener.close()
        inside = listing.is_directory
    for name in (SIGNATURE_NAME, LINEAGE_NAME):
        sidecar = source / name if inside else source.with_name(source.name + name.removeprefix("model"))
        place = target / name if inside else target.with_name(target.name + name.removeprefix("model"))
        try:
            fd = os.open(sidecar, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # verifying says what is missing
        _write(fd, place, left)
    return target


class _Budget:
    def __init__(self, limit: int | None) -> None:
        self.limit, self.used = limit, 0

    def take(self, size: int) -> None:
        self.used += size
        if self.limit is not None and self.used > self.limit:
            raise Oversized(f"expected a model of at most {self.limit} bytes, found more")


def _write(fd: int, place: Path, left: _Budget) -> None:
    with os.fdopen(fd, "rb", buffering=0) as source, place.open("xb", buffering=0) as target:
        while chunk := source.read(_CHUNK):
            left.take(len(chunk))
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())


def _hand_over(model: Path, stage: Path, target: Path, *, is_mount: bool) -> Path:
    home, place = (target, target / model.name) if is_mount else (target.parent, target)
    if model.is_dir() and is_mount:
        for child in model.iterdir():
            os.replace(child, target / child.name)
        place = target
    else:
        for sidecar in stage.iterdir():  # the model itself comes last: who sees it sees all of it
            if sidecar != model:
                os.replace(sidecar, home / (place.name + sidecar.name.removeprefix(model.name)))
        os.replace(model, place)
    sync_folder(home)
    return place
