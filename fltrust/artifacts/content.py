"""What kind of files a model is made of: names, sizes, and whether loading them can run code."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from fltrust.artifacts.manifest import FileEntry, Manifest
from fltrust.artifacts.policy import Policy
from fltrust.artifacts.walk import SINGLE_FILE
from fltrust.errors import PolicyNotMet

_PICKLES = frozenset(
    (".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".pt2", ".mar", ".nemo")
)
"""Endings of files that are, or contain, Python pickles."""

_PROTOCOLS = tuple(bytes((0x80, version)) for version in range(2, 6))
_ZIP = b"PK\x03\x04"
_PICKLED_NAMES = (".pkl", ".pickle", ".joblib")


def require_content(model: Path, signed: Manifest, policy: Policy, warnings: list[str]) -> None:
    """Raise `PolicyNotMet` for a format, a pickle (by its ending) or a size that the policy does not allow.

    Step 13 of the recipe: of the model itself nothing is read.
    """
    names = [_name(model, entry) for entry in signed.files]
    if policy.formats:
        other = next((name for name in names if _ending(name) not in policy.formats), None)
        if other is not None:
            raise PolicyNotMet(
                f"expected files of {', '.join(sorted(policy.formats))} alone, got {other[:200]}",
                reason="format-not-allowed",
            )
    pickle = next((name for name in names if _ending(name) in _PICKLES), None)
    if pickle is not None and not policy.allow_pickles:
        raise _pickle_refused(pickle)
    if pickle is not None:
        warnings.append("loading this model can run code: it contains pickles; load with weights_only")
    if policy.max_size is not None:
        size = sum(_size(model, entry) for entry in signed.files)
        if size > policy.max_size:
            raise PolicyNotMet(
                f"expected a model of at most {policy.max_size} bytes, it has {size}", reason="too-large"
            )


def require_no_pickles(model: Path, signed: Manifest) -> None:
    """Raise `PolicyNotMet` for a file that begins as a pickle of protocol 2 or later does, or is a zip
    archive with one in it or that cannot be read, whatever its name says. Step 15: for files whose bytes
    were verified."""
    for entry in signed.files:
        if _begins_as_pickle(_place(model, entry)):
            raise _pickle_refused(_name(model, entry))


def _pickle_refused(name: str) -> PolicyNotMet:
    return PolicyNotMet(
        f"expected no file that can run code when it is loaded, got {name[:200]}",
        reason="pickle",
        hint="ask for safetensors",
    )


def _name(model: Path, entry: FileEntry) -> str:
    return model.name if entry.name == SINGLE_FILE else entry.name


def _place(model: Path, entry: FileEntry) -> Path:
    return model if entry.name == SINGLE_FILE else model / entry.name


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _size(model: Path, entry: FileEntry) -> int:
    if entry.size is not None:
        return entry.size
    try:
        return _place(model, entry).stat().st_size
    except OSError:
        return 0  # the bytes are compared after this, and the file found missing


def _begins_as_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head.startswith(_PROTOCOLS):
            return True
        if head == _ZIP:
            with zipfile.ZipFile(path) as archive:
                return any(name.lower().endswith(_PICKLED_NAMES) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return True  # what cannot be looked into here may be read by a loader that is more forgiving
    return False
