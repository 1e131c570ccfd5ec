"""What a model is made of: every file with its digests, every empty directory, every tensor.

A model of one file has a single entry named ``.``, as OMS writes it. Making a manifest from files and
holding files against one is `fltrust.artifacts.measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from itertools import chain, pairwise
from pathlib import Path

from fltrust import strictjson
from fltrust.artifacts.safetensors import LENGTH_BYTES, Header
from fltrust.artifacts.tensors import MAX_TENSORS, TensorManifest
from fltrust.artifacts.walk import (
    LINEAGE_NAME,
    MAX_FILES,
    SIGNATURE_NAME,
    SINGLE_FILE,
    collision_key,
    is_safe_name,
    name_order,
)
from fltrust.errors import Malformed, Oversized, Tampered
from fltrust.identity import Digest

FILES_TYPE = "urn:fltrust:files:v1"
MAX_SHARDS = 1_000_000
MAX_SIZE = 2**53 - 1
"""Bytes of one file: what every JSON reader keeps exactly."""

_DIGEST_BYTES = 32
_NAMES_TOLD = 5


class FileState(StrEnum):
    """How files differ from the signed ones; the ``reason`` of `Tampered`."""

    MISSING = "file-missing"
    ADDED = "file-added"
    CHANGED = "file-changed"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: the SHA-256 of it, or of each of its shards. `size` is None where a foreign
    signature does not state it."""

    name: str
    digests: tuple[bytes, ...]
    size: int | None

    @property
    def sha256(self) -> bytes:
        """Of the whole file; only where the manifest has no shards."""
        (digest,) = self.digests
        return digest


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file by its parts: the SHA-256 of everything before the data, and the tensors.
    Together they cover every byte."""

    header: bytes
    tensors: TensorManifest

    def describes(self, header: Header) -> bool:
        """Whether the file's header names the same tensors in the same order."""
        return [(t.name, t.dtype, t.shape) for t in header.tensors] == [
            (t.name, t.dtype, t.shape) for t in self.tensors.tensors
        ]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files in the order of their names' parts, each name once. Raises `Malformed` or `Oversized`.

    `empty_directories` is None where a foreign signature does not state them. `shard_bytes`: files
    are digested in shards of that size (OMS ``shards``), not whole.
    """

    files: tuple[FileEntry, ...]
    empty_directories: tuple[str, ...] | None = ()
    tensors: Mapping[str, TensorFile] = field(default_factory=dict)
    shard_bytes: int | None = None

    def __post_init__(self) -> None:
        names, empty = [entry.name for entry in self.files], self.empty_directories or ()
        if len(names) > MAX_FILES or len(empty) > MAX_FILES:
            raise Oversized(f"expected at most {MAX_FILES} files or directories in a manifest")
        _check_order(names)
        _check_order(empty)
        if self.is_directory and not all(map(is_safe_name, chain(names, empty))):
            raise Malformed("expected safe relative names in a manifest, got another")
        self._check_digests()
        self._check_tensors()

    @property
    def is_directory(self) -> bool:
        return not (len(self.files) == 1 and self.files[0].name == SINGLE_FILE)

    @property
    def total_bytes(self) -> int:
        """Of all files whose size is stated."""
        return sum(entry.size or 0 for entry in self.files)

    @property
    def digest(self) -> Digest:
        """Binds names, sizes and digests of the files, and the empty directories: SHA-256 of
        {"emptyDirectories":[name, …],"files":[[name, size, [sha256, …]], …],"shardBytes":null,
        "type":"urn:fltrust:files:v1"} in the canonical JSON of `fltrust.strictjson`."""
        files = [[e.name, e.size, [digest.hex() for digest in e.digests]] for e in self.files]
        return Digest.sha256_of(
            strictjson.encode(
                {
                    "type": FILES_TYPE,
                    "emptyDirectories": list(self.empty_directories or ()),
                    "files": files,
                    "shardBytes": self.shard_bytes,
                }
            )
        )

    def check_names_stay_apart(self) -> None:
        """Raise `Malformed` if some file system takes two of the names for one."""
        seen: set[str] = set()
        for name in (*(entry.name for entry in self.files), *(self.empty_directories or ())):
            key = collision_key(name)
            if key in seen:
                raise Malformed(f"expected names that stay apart everywhere in a manifest, got {name!r}")
            seen.add(key)

    def _check_digests(self) -> None:
        shards = 0
        for entry in self.files:
            size = entry.size
            if size is not None and not 0 <= size <= MAX_SIZE:
                raise Malformed(f"expected a size from 0 to 2^53-1 for {entry.name!r}")
            if self.shard_bytes is None:
                wanted = 1
            elif size is None or self.shard_bytes < 1:
                raise Malformed(f"expected sizes with shards, got none for {entry.name!r}")
            else:
                wanted = -(-size // self.shard_bytes)
            if len(entry.digests) != wanted or any(len(digest) != _DIGEST_BYTES for digest in entry.digests):
                raise Malformed(f"expected {wanted} SHA-256 for {entry.name!r}, got {len(entry.digests)}")
            shards += wanted
        if shards > MAX_SHARDS:
            raise Oversized(f"expected at most {MAX_SHARDS} shards in a manifest, got {shards}")

    def _check_tensors(self) -> None:
        sizes = {entry.name: entry.size for entry in self.files}
        for name, found in self.tensors.items():
            size = sizes.get(name)
            if size is None or len(found.header) != _DIGEST_BYTES or size < LENGTH_BYTES:
                raise Malformed(f"expected tensors of a file with its size, got those of {name!r}")
        if sum(len(found.tensors.tensors) for found in self.tensors.values()) > MAX_TENSORS:
            raise Oversized(f"expected at most {MAX_TENSORS} tensors in a manifest")


@dataclass(frozen=True, slots=True)
class Difference:
    """`name` is the signed or found path; a directory's ends in ``/``."""

    state: FileState
    name: str


def compare(found: Manifest, signed: Manifest) -> tuple[Difference, ...]:
    """Every difference: missing, then added, then changed, each by name.

    A size that is not signed is not compared. Both manifests have the same shards.
    """
    there = {entry.name: entry for entry in found.files}
    wanted = {entry.name: entry for entry in signed.files}
    changed = [
        name
        for name, entry in wanted.items()
        if name in there
        and not (
            entry.size in (None, there[name].size)
            and found.shard_bytes == signed.shard_bytes
            and compare_digest(b"".join(entry.digests), b"".join(there[name].digests))
        )
    ]
    return (
        *compare_names(there, wanted, found.empty_directories, signed.empty_directories),
        *(Difference(FileState.CHANGED, name) for name in changed),
    )


def compare_names(
    found: Mapping[str, object],
    signed: Mapping[str, object],
    found_empty: Sequence[str] | None,
    signed_empty: Sequence[str] | None,
) -> tuple[Difference, ...]:
    """The differences that show without hashing. Empty directories count where they are signed."""
    there, wanted = set(found), set(signed)
    if signed_empty is not None:
        there.update(f"{name}/" for name in found_empty or ())
        wanted.update(f"{name}/" for name in signed_empty)
    return (
        *(Difference(FileState.MISSING, name) for name in sorted(wanted - there, key=name_order)),
        *(Difference(FileState.ADDED, name) for name in sorted(there - wanted, key=name_order)),
    )


def tampered(path: Path, differences: tuple[Difference, ...]) -> Tampered:
    """The refusal for differences; its ``reason`` is the first one's."""
    parts = []
    for state in FileState:
        names = [difference.name for difference in differences if difference.state is state]
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        if names:
            told = ", ".join("its bytes" if name == "." else name for name in names[:_NAMES_TOLD])
            parts.append(f"{state.removeprefix('file-')}: {told}{more}")
    return Tampered(
        f"expected {path} as it was signed, found differences: {'; '.join(parts)}",
        reason=differences[0].state,
        hint="get the model anew, or have it signed as it is now",
    )


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


def lineage_beside(signature: Path) -> Path:
    """Where the lineage lies when the signature was written elsewhere: ``m.sig`` → ``m.lineage.jsonl``."""
    return signature.with_name(f"{signature.name.removesuffix('.sig')}.lineage.jsonl")


def _check_order(names: Sequence[str]) -> None:
    orders = [name_order(name) for name in names]
    if not all(first < second for first, second in pairwise(orders)):
        raise Malformed("expected each name once in a manifest, in order")
