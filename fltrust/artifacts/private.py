"""One signed file, copied into memory of this process alone and verified there.

Nobody else can write to that memory, so what was hashed is what is used. Where tensors or shards are
signed, all cores copy and hash; a file signed as a whole is hashed in one pass, while another thread
reads ahead of it.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from fltrust.artifacts.hashing import READ_BYTES, Meter, read_and_hash, read_fully, run_largest_first
from fltrust.artifacts.manifest import Difference, FileEntry, FileState, Manifest, TensorFile, tampered
from fltrust.artifacts.safetensors import LENGTH_BYTES, Header, header_bytes, parse_header
from fltrust.artifacts.walk import SINGLE_FILE
from fltrust.errors import InvalidInput, Malformed, NotFound, StorageUnavailable, Tampered

_ALIGNMENT = 64  # of the data of a safetensors file, for whoever computes on it
_HUGE_PAGES_FROM = 2**22
_BLOCK = 8 * READ_BYTES
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class VerifiedBytes:
    """A file's bytes, as signed. `header` is there if they were verified by tensors."""

    view: memoryview
    header: Header | None


def read_verified(
    path: Path, signed: Manifest, name: str = SINGLE_FILE, *, workers: int | None = None
) -> VerifiedBytes:
    """Read `path` once and give its bytes, if they are those of the file `name` of a verified manifest.

    1. The name is signed, and the file as long as signed.
    2. Its bytes are copied, and the copy is hashed: by header and tensors, by shards, or whole.
    3. The digests are the signed ones; a header verified by itself names the signed tensors.

    Raises `Tampered`, `NotFound`, or `StorageUnavailable` if it cannot be read. `path` may be a link:
    what counts is the bytes.
    """
    entry = next((entry for entry in signed.files if entry.name == name), None)  # 1
    if entry is None:
        raise tampered(path, (Difference(FileState.ADDED, name),))
    fd = _open(path)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"expected a file at {path}, found something else")
        if entry.size not in (None, found.st_size):
            raise _changed(path, name)
        copy = _Copy(path, name, fd, _allocate(fd, found.st_size))
        return copy.verify(entry, signed, workers=workers)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Copy:
    path: Path
    name: str
    fd: int
    view: memoryview

    def verify(self, entry: FileEntry, signed: Manifest, *, workers: int | None) -> VerifiedBytes:
        tensors, size, shard_bytes = signed.tensors.get(self.name), len(self.view), signed.shard_bytes
        if tensors is not None:
            return VerifiedBytes(self.view, self._verify_by_tensors(tensors, workers=workers))
        if shard_bytes is not None:
            spans = [(at, min(shard_bytes, size - at)) for at in range(0, size, shard_bytes)]
            self._verify_spans(spans, entry.digests, workers=workers)
        else:
            self._verify_whole(entry.sha256)
        return VerifiedBytes(self.view, None)

    def _verify_by_tensors(self, signed: TensorFile, *, workers: int | None) -> Header:
        size = len(self.view)
        try:
            head = self.view[: header_bytes(self.view[:LENGTH_BYTES], file_size=size)]
        except InvalidInput:
            raise _changed(self.path, self.name) from None
        self._verify_spans([(0, len(head))], (signed.header,), workers=1)
        header = parse_header(head, file_size=size)
        if not signed.describes(header):
            raise Malformed(f"expected the signed header of {self.path} to name the signed tensors")
        spans = [(span.offset, span.size) for span in header.tensors]
        digests = [entry.sha256 for entry in signed.tensors.tensors]
        self._verify_spans(spans, digests, workers=workers)
        return header

    def _verify_spans(
        self, spans: Sequence[tuple[int, int]], signed: Sequence[bytes], *, workers: int | None
    ) -> None:
        meter = Meter()

        def work(span: tuple[int, int], _: None) -> bytes | None:  # 2
            offset, size = span
            return read_and_hash(self.fd, offset, self.view[offset : offset + size], meter=meter)

        sizes = [size for _, size in spans]
        found = run_largest_first(work, spans, sizes, tools=nullcontext, meter=meter, workers=workers)
        if len(found) != len(signed) or not all(map(_is_same, found, signed)):  # 3
            raise _changed(self.path, self.name)

    def _verify_whole(self, signed: bytes) -> None:
        starts = range(0, len(self.view), _BLOCK)
        blocks = [self.view[at : at + _BLOCK] for at in starts]
        state = sha256()
        with ThreadPoolExecutor(1, "fltrust-read") as pool:  # 2
            reads = [pool.submit(read_fully, self.fd, *found) for found in zip(starts, blocks, strict=True)]
            try:
                for read, block in zip(reads, blocks, strict=True):
                    if not read.result():
                        raise _changed(self.path, self.name)
                    state.update(block)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if not _is_same(state.digest(), signed):  # 3
            raise _changed(self.path, self.name)


def _is_same(found: bytes | None, signed: bytes) -> bool:
    return found is not None and compare_digest(found, signed)


def _allocate(fd: int, size: int) -> memoryview:
    """Private memory of `size` bytes, placed so that the data of a safetensors file is aligned in it."""
    prefix = os.pread(fd, LENGTH_BYTES, 0)
    pad = -(LENGTH_BYTES + int.from_bytes(prefix, "little")) % _ALIGNMENT
    memory = mmap.mmap(-1, pad + size + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)[pad : pad + size]
    view[: len(prefix)] = prefix[: len(view)]
    return view


def _open(path: Path) -> int:
    try:
        return os.open(path, _OPEN)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"expected a file at {path}, found none") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"could not read {path}: {error.strerror or error}", hint="check permissions")


def _changed(path: Path, name: str) -> Tampered:
    return tampered(path, (Difference(FileState.CHANGED, path.name if name == SINGLE_FILE else name),))
