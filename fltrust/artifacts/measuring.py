"""Hash a model on all cores: to sign it, or to hold it against what was signed.

The digest of one file is one sequential pass. Signing makes it, since every OMS verifier needs it, and
beside it those of a safetensors file's tensors, on the other cores. Verifying needs only one of the
two, since header and tensors cover every byte: large safetensors files are verified by tensors, small
ones by both, all others as a whole (or by their shards, if they were signed so).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from fltrust.artifacts.hashing import READ_BYTES, Meter, Progress, hash_file_piece, run_largest_first
from fltrust.artifacts.manifest import (
    Difference,
    FileEntry,
    FileState,
    Manifest,
    TensorFile,
    compare_names,
    tampered,
)
from fltrust.artifacts.safetensors import LENGTH_BYTES, SUFFIX, Header, header_bytes, parse_header
from fltrust.artifacts.tensors import TensorEntry, TensorManifest
from fltrust.artifacts.walk import SINGLE_FILE, ListedFile, Listing, Opener, changed, seal_of
from fltrust.errors import ArtifactRefused, InvalidInput, Malformed, Tampered

BY_TENSORS_FROM_BYTES = 2**23
"""Safetensors files from here on are verified by their tensors alone."""
SHARD_BYTES = 2**26
"""What ``shards`` are cut into unless told otherwise."""


def build_manifest(
    path: Path,
    *,
    ignore: Collection[str] = (),
    with_tensors: bool = True,
    shard_bytes: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Hash a file or a directory; a file named ``*.safetensors`` by its tensors as well.

    `ignore` names files and directories (with all in them) to leave out, relative to `path`.
    `shard_bytes` digests files in shards of that size, in parallel, not whole (OMS ``shards``).
    Raises `ArtifactRefused` for what cannot be bound (see `fltrust.artifacts.walk`) or changed while
    it was read, `Malformed` or `Oversized` for a safetensors file that is not one, `NotFound`.
    """
    with Listing(path, ignore=ignore) as listing:
        _check_shardable(listing, shard_bytes)
        headers = _read_headers(listing) if with_tensors else {}
        pieces: list[_Piece] = []
        for file in listing.files:
            pieces += _whole(file, shard_bytes)
            if file.name in headers:
                pieces += _tensors(file, headers[file.name].header)
        digests = iter(_hash(listing, pieces, workers=workers, progress=progress))
        files, tensors = [], {}
        for file in listing.files:
            own = tuple(next(digests) for _ in _whole(file, shard_bytes))
            files.append(FileEntry(file.name, own, file.size))
            if file.name in headers:
                tensors[file.name] = _tensor_file(headers[file.name], digests)
        return Manifest(tuple(files), tuple(listing.empty_directories), tensors, shard_bytes)


def verify_files(
    path: Path,
    signed: Manifest,
    *,
    ignore: Collection[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Raise `Tampered` unless `path` holds exactly the signed files with the signed bytes.

    1. Names: what cannot be bound was not signed; no file is missing, none is added, and no empty
       directory where they are signed.
    2. Sizes, where they are signed.
    3. Safetensors files, where tensors are signed: the header's digest, then the header itself, which
       names the signed tensors.
    4. The digests: of those tensors; of small and of all other files, whole or by shards.
    5. Nothing changed meanwhile.

    The first step that finds differences names all that it found; later ones are not taken.
    `ignore` is the caller's own list: what a signer left out counts as added.
    """
    try:
        listing = Listing(path, ignore=ignore)  # 1
    except ArtifactRefused as error:
        if error.reason in ("unreadable", "changed-while-hashing"):
            raise
        raise Tampered(error.message, reason=error.reason, hint=error.hint) from None
    with listing:
        _verify(listing, signed, workers=workers, progress=progress)


def _verify(listing: Listing, signed: Manifest, *, workers: int | None, progress: Progress | None) -> None:
    wanted = {entry.name: entry for entry in signed.files}
    there = {file.name: file for file in listing.files}
    _raise_if(listing.path, compare_names(there, wanted, listing.empty_directories, signed.empty_directories))
    sizes = [name for name, file in there.items() if wanted[name].size not in (None, file.size)]
    _raise_if(listing.path, _changed(sizes))  # 2
    headers = _verified_headers(listing, signed)  # 3
    pieces: list[_Piece] = []
    expected: list[bytes] = []
    for file in listing.files:  # 4
        if file.name in headers:
            pieces += _tensors(file, headers[file.name])
            expected += [entry.sha256 for entry in signed.tensors[file.name].tensors.tensors]
        if file.name not in headers or file.size < BY_TENSORS_FROM_BYTES:
            pieces += _whole(file, signed.shard_bytes)
            expected += wanted[file.name].digests
    found = _hash(listing, pieces, workers=workers, progress=progress)  # 5
    wrong = {
        piece.file.name
        for piece, digest, signed_digest in zip(pieces, found, expected, strict=True)
        if not compare_digest(digest, signed_digest)
    }
    _raise_if(listing.path, _changed([file.name for file in listing.files if file.name in wrong]))


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one SHA-256 is taken over."""

    file: ListedFile
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _ReadHeader:
    digest: bytes
    header: Header


@dataclass(frozen=True, slots=True)
class _Tools:
    """What one thread works with."""

    opener: Opener
    buffer: memoryview


def _whole(file: ListedFile, shard_bytes: int | None) -> list[_Piece]:
    if shard_bytes is None:
        return [_Piece(file, 0, file.size)]
    return [_Piece(file, at, min(shard_bytes, file.size - at)) for at in range(0, file.size, shard_bytes)]


def _tensors(file: ListedFile, header: Header) -> list[_Piece]:
    return [_Piece(file, span.offset, span.size) for span in header.tensors]


def _tensor_file(read: _ReadHeader, digests: Iterator[bytes]) -> TensorFile:
    entries = (TensorEntry(t.name, t.dtype, t.shape, next(digests)) for t in read.header.tensors)
    return TensorFile(read.digest, TensorManifest(tuple(entries)))


def _hash(
    listing: Listing, pieces: list[_Piece], *, workers: int | None, progress: Progress | None
) -> list[bytes]:
    """The SHA-256 of each piece; every file was, after its bytes were read, as it was listed."""
    sizes = [piece.size for piece in pieces]
    meter = Meter(progress, sum(sizes))

    @contextmanager
    def tools() -> Iterator[_Tools]:
        opener = listing.opener()
        try:
            yield _Tools(opener, memoryview(bytearray(READ_BYTES)))
        finally:
            opener.close()

    def work(piece: _Piece, own: _Tools) -> bytes:
        fd = own.opener.open(piece.file.name)
        try:
            digest = hash_file_piece(fd, piece.offset, piece.size, buffer=own.buffer, meter=meter)
            if digest is None or seal_of(os.fstat(fd)) != piece.file.seal:
                raise changed(listing.path, piece.file.name)
        finally:
            os.close(fd)
        return digest

    digests = run_largest_first(work, pieces, sizes, tools=tools, meter=meter, workers=workers)
    listing.check_unchanged()
    return digests


def _read_head(listing: Listing, file: ListedFile, opener: Opener) -> bytes:
    """Everything before the data of a safetensors file."""
    fd = opener.open(file.name)
    try:
        with os.fdopen(fd, "rb", closefd=False) as reader:
            prefix = reader.read(LENGTH_BYTES)
            head = prefix + reader.read(header_bytes(prefix, file_size=file.size) - LENGTH_BYTES)
        if seal_of(os.fstat(fd)) != file.seal:
            raise changed(listing.path, file.name)
    finally:
        os.close(fd)
    return head


def _read_headers(listing: Listing) -> dict[str, _ReadHeader]:
    found = {}
    with closing(listing.opener()) as opener:
        for file in listing.files:
            name = listing.path.name if file.name == SINGLE_FILE else file.name
            if name.endswith(SUFFIX):
                with _named(name):
                    head = _read_head(listing, file, opener)
                    header = parse_header(head, file_size=file.size)
                found[file.name] = _ReadHeader(sha256(head).digest(), header)
    return found


def _verified_headers(listing: Listing, signed: Manifest) -> dict[str, Header]:
    """The headers of the files whose tensors are signed, each with the signed digest."""
    found, wrong = {}, []
    with closing(listing.opener()) as opener:
        for file in listing.files:
            expected = signed.tensors.get(file.name)
            if expected is None:
                continue
            try:
                head = _read_head(listing, file, opener)
            except InvalidInput:  # the length field is not the signed one
                head = b""
            if not compare_digest(sha256(head).digest(), expected.header):
                wrong.append(file.name)
                continue
            with _named(file.name):
                header = parse_header(head, file_size=file.size)
            if not expected.describes(header):
                raise Malformed(f"expected the signed header of {file.name!r} to name the signed tensors")
            found[file.name] = header
    _raise_if(listing.path, _changed(wrong))
    return found


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Says of which file an error speaks."""
    try:
        yield
    except InvalidInput as error:
        hint = "a file of another format, such as a Git LFS pointer, needs another name"
        raise type(error)(f"{name}: {error.message}", reason=error.reason, hint=hint) from None


def _check_shardable(listing: Listing, shard_bytes: int | None) -> None:
    if shard_bytes is None:
        return
    if shard_bytes < READ_BYTES:
        raise Malformed(f"expected shards of at least {READ_BYTES} bytes, got {shard_bytes}")
    for file in listing.files:
        if ":" in file.name:
            raise ArtifactRefused(
                f"expected names without ':' for shards, got {file.name!r}", reason="name", hint="rename it"
            )


def _changed(names: list[str]) -> tuple[Difference, ...]:
    return tuple(Difference(FileState.CHANGED, name) for name in names)


def _raise_if(path: Path, differences: tuple[Difference, ...]) -> None:
    if differences:
        raise tampered(path, differences)
