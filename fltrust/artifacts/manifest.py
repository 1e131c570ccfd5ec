"""What a model is made of: every file with its digest, every empty directory, every tensor.

`build_manifest` makes the manifest that is signed; `verify_files` holds files against a signed one.
Both walk the model as `fltrust.artifacts.walk` says. A model of one file has a single entry named
``.``, as OMS writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from fltrust.artifacts.hashing import Progress
from fltrust.artifacts.tensors import TensorManifest
from fltrust.identity import Digest

SIGNATURE_NAME = "model.sig"
LINEAGE_NAME = "model.lineage.jsonl"
SIDECARS = (LINEAGE_NAME, SIGNATURE_NAME)
"""At the top of a directory, these files are never part of the model."""
SINGLE_FILE = "."
"""The name of the one entry when the model is a file."""

MAX_FILES = 250_000
MAX_NAME_BYTES = 4_096
FILES_TYPE = "urn:fltrust:files:v1"


class FileState(StrEnum):
    """How files differ from the signed ones; the ``reason`` of `Tampered`."""

    MISSING = "file-missing"
    ADDED = "file-added"
    CHANGED = "file-changed"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file. `size` is None where a foreign signature does not state it."""

    name: str
    sha256: bytes
    size: int | None = None


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file by its parts: the SHA-256 of everything before the data, and the tensors.
    Together they cover every byte."""

    header: bytes
    tensors: TensorManifest


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files in the order of their names' parts, each name once. Raises `Malformed` or `Oversized`."""

    files: tuple[FileEntry, ...]
    empty_directories: tuple[str, ...] = ()
    tensors: Mapping[str, TensorFile] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return not (len(self.files) == 1 and self.files[0].name == SINGLE_FILE)

    @property
    def total_bytes(self) -> int:
        return sum(entry.size or 0 for entry in self.files)

    @property
    def digest(self) -> Digest:
        """Binds names, sizes and digests of all files, and the empty directories:
        SHA-256 of {"emptyDirectories":[name, …],"files":[[name, size, sha256], …],"type":"urn:fltrust:files:v1"}
        in canonical JSON."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Difference:
    """`name` is the signed or found path; a directory's ends in ``/``."""

    state: FileState
    name: str


@dataclass(frozen=True, slots=True)
class SidecarPaths:
    """Where the signature and the lineage of a model lie."""

    signature: Path
    lineage: Path


def sidecar_paths(path: Path) -> SidecarPaths:
    """Inside a directory; beside a file, with the file's name before theirs."""
    if path.is_dir():
        return SidecarPaths(path / SIGNATURE_NAME, path / LINEAGE_NAME)
    return SidecarPaths(Path(f"{path}.sig"), Path(f"{path}.lineage.jsonl"))


def build_manifest(
    path: Path,
    *,
    ignore: Iterable[str] = (),
    with_tensors: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Hash a file or a directory on all cores; a file named ``*.safetensors`` by its tensors as well.

    `ignore` names files and directories (with all in them) to leave out, relative to `path`.
    Raises `ArtifactRefused` for what cannot be bound (see `fltrust.artifacts.walk`) or changed while
    it was read, `Malformed` or `Oversized` for a safetensors file that is not, `NotFound`.
    """
    raise NotImplementedError


def verify_files(
    path: Path,
    signed: Manifest,
    *,
    ignore: Iterable[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Raise `Tampered` unless `path` holds exactly the signed files with the signed bytes.

    `ignore` is the caller's own list; what a signer ignored is never taken into account.
    """
    raise NotImplementedError


def compare(found: Manifest, signed: Manifest) -> tuple[Difference, ...]:
    """Every difference, in the order missing, added, changed, each by name."""
    raise NotImplementedError
