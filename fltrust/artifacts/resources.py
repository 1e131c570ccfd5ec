"""OMS's ``resources`` and ``serialization``, to and from files with their digests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from fltrust.artifacts.manifest import MAX_SHARDS, MAX_SIZE, FileEntry
from fltrust.artifacts.walk import MAX_FILES, MAX_NAME_BYTES
from fltrust.errors import Malformed, Oversized, Refusal, StatementRefused
from fltrust.identity import Digest

_SHARD = re.compile(r"([^:]+):(0|[1-9][0-9]{0,15}):([1-9][0-9]{0,15})")
_FILES, _SHARDS, _SHA256 = "files", "shards", "sha256"


@dataclass(frozen=True, slots=True)
class Serialization:
    """How a model was cut into resources: by file, or in shards of `shard_bytes`."""

    shard_bytes: int | None
    ignore_paths: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {"method": _FILES, "hash_type": _SHA256, "allow_symlinks": False}
        if self.ignore_paths:
            found["ignore_paths"] = list(self.ignore_paths)
        if self.shard_bytes is not None:
            found |= {"method": _SHARDS, "shard_size": self.shard_bytes}
        return found

    @classmethod
    def from_json(cls, value: object) -> Serialization:
        """Raises `StatementRefused` for a method or digest that is not known here."""
        if not isinstance(value, dict):
            raise Malformed("expected the serialization of a model as an object")
        method, kind = value.get("method"), value.get("hash_type")
        if method not in (_FILES, _SHARDS) or kind != _SHA256:
            raise StatementRefused(
                f"expected files or shards with sha256 as a model's serialization, got {str(method)[:20]!r} "
                f"with {str(kind)[:20]!r}",
                reason=Refusal.UNKNOWN_TYPE,
                hint="have it signed with sha256; blake2b and blake3 are not read here",
            )
        paths = value.get("ignore_paths", [])
        if (
            not isinstance(paths, list)
            or len(paths) > MAX_FILES
            or not all(isinstance(p, str) for p in paths)
        ):
            raise Malformed("expected ignore_paths of a serialization as a list of names")
        return cls(_shard_size(value.get("shard_size")) if method == _SHARDS else None, tuple(paths))


def _shard_size(value: object) -> int:
    """Some signers write it as 256000000.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value <= MAX_SIZE:
        raise Malformed("expected the size of shards as a positive integer")
    return value


def write_resources(files: Iterable[FileEntry], shard_bytes: int | None) -> list[dict[str, object]]:
    """One resource for each digest."""
    if shard_bytes is None:
        return [{"name": entry.name, "algorithm": _SHA256, "digest": entry.sha256.hex()} for entry in files]
    return [
        {
            "name": f"{entry.name}:{at * shard_bytes}:{min((at + 1) * shard_bytes, entry.size or 0)}",
            "algorithm": _algorithm(shard_bytes),
            "digest": digest.hex(),
        }
        for entry in files
        for at, digest in enumerate(entry.digests)
    ]


def read_resources(value: object, shard_bytes: int | None) -> tuple[list[FileEntry], bytes]:
    """The files in the order of their resources, and the digest over all digests.

    Whole files come without a size. Shards of one file follow each other from its start to its end.
    """
    limit = MAX_FILES if shard_bytes is None else MAX_SHARDS
    if not isinstance(value, list):
        raise Malformed("expected the resources of a model as a list")
    if len(value) > limit:
        raise Oversized(f"expected at most {limit} resources, got {len(value)}")
    algorithm = _SHA256 if shard_bytes is None else _algorithm(shard_bytes)
    named = [_resource(item, algorithm) for item in value]
    root = sha256(b"".join(digest for _, digest in named)).digest()
    if shard_bytes is None:
        return [FileEntry(name, (digest,), None) for name, digest in named], root
    return _joined(named, shard_bytes), root


def annotation_of(resources: object, name: str) -> object | None:
    """What a resource's ``annotations`` (in-toto ResourceDescriptor) hold under `name`; the first that do."""
    for item in resources if isinstance(resources, list) else ():
        notes = item.get("annotations") if isinstance(item, dict) else None
        if isinstance(notes, dict) and name in notes:
            found: object = notes[name]
            return found
    return None


def _resource(item: object, algorithm: str) -> tuple[str, bytes]:
    if not isinstance(item, dict):
        raise Malformed("expected each resource of a model as an object")
    name, kind, digest = item.get("name"), item.get("algorithm"), item.get("digest")
    if not isinstance(name, str) or not isinstance(digest, str) or len(digest) != 64 or kind != algorithm:
        raise Malformed(f"expected each resource of a model with a name and {algorithm}, got another")
    if len(name) > MAX_NAME_BYTES + 40:
        raise Oversized(f"expected names of at most {MAX_NAME_BYTES} bytes in a model's resources")
    return name, Digest.parse(f"sha256:{digest}").value


def _joined(named: list[tuple[str, bytes]], shard_bytes: int) -> list[FileEntry]:
    found: list[FileEntry] = []
    digests: list[bytes] = []
    for place, (resource, digest) in enumerate(named):
        name, begin, end = _shard(resource)
        following = _shard(named[place + 1][0]) if place + 1 < len(named) else None
        is_last = following is None or following[0] != name
        if begin != len(digests) * shard_bytes or not 0 < end - begin <= shard_bytes:
            raise Malformed(f"expected shards of {name[:80]!r} to follow each other, got {begin} to {end}")
        if not is_last and end - begin != shard_bytes:
            raise Malformed(f"expected full shards of {name[:80]!r} before its last, got {begin} to {end}")
        digests.append(digest)
        if is_last:
            found.append(FileEntry(name, tuple(digests), end))
            digests = []
    return found


def _shard(resource: str) -> tuple[str, int, int]:
    match = _SHARD.fullmatch(resource)
    if match is None:
        raise Malformed(f"expected '<name>:<begin>:<end>' as a shard's name, got {resource[:80]!r}")
    return match[1], int(match[2]), int(match[3])


def _algorithm(shard_bytes: int) -> str:
    return f"sha256-sharded-{shard_bytes}"
