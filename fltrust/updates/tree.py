"""Digests of byte strings in fixed chunks, so that one large tensor is hashed on all cores.

For a byte string of n bytes, cut into chunks of 4 MiB (2^22 bytes; the last may be shorter;
no chunk at all when n = 0):

    leaf_i = SHA-256(0x00 ‖ chunk_i)
    digest = SHA-256(0x01 ‖ n as 8 bytes, big-endian ‖ leaf_0 ‖ leaf_1 ‖ …)

The length fixes the number of leaves, and the prefixes keep a leaf from passing as a
node, so two different byte strings never share a digest unless SHA-256 collides. The
chunk size is part of the definition: it never depends on the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from fltrust.updates.content import flat_view

CHUNK_BYTES = 4 * 2**20
PARALLEL_FROM_BYTES = 2 * CHUNK_BYTES
"""Below this, starting threads costs more than it gives."""

_LEAF, _NODE = b"\x00", b"\x01"
_MOST_WORKERS = 16  # memory bandwidth ends the gain before that


class DigestMemo:
    """Remembers the digests of immutable byte strings, for a model that goes out to many nodes.

    Holds on to the bytes it has seen (an object's address is only unique while it
    lives), so keep one per round and let it go. Views are never remembered: what is
    behind them can change. Safe to share between threads.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def get(self, data: bytes | memoryview) -> bytes | None:
        found = self._known.get(id(data))
        return found[1] if found is not None and found[0] is data else None

    def put(self, data: bytes | memoryview, digest: bytes) -> None:
        if type(data) is bytes:
            self._known[id(data)] = (data, digest)


def tree_digests(
    blobs: Sequence[bytes | memoryview], *, workers: int | None = None, memo: DigestMemo | None = None
) -> list[bytes]:
    """The digest of each byte string, in order, on `workers` threads (all usable cores by default).

    Nothing is copied. One worker, or less than `PARALLEL_FROM_BYTES` altogether, starts no thread.
    """
    done = [None if memo is None else memo.get(blob) for blob in blobs]
    open_views = [flat_view(blob) for blob, known in zip(blobs, done, strict=True) if known is None]
    chunks = [view[at : at + CHUNK_BYTES] for view in open_views for at in range(0, len(view), CHUNK_BYTES)]
    leaves = iter(_leaves(chunks, workers=_usable_cores() if workers is None else workers))
    views = iter(open_views)
    for place, blob in enumerate(blobs):
        if done[place] is None:
            size = len(next(views))
            count = -(-size // CHUNK_BYTES)
            digest = _root(size, [next(leaves) for _ in range(count)])
            done[place] = digest
            if memo is not None:
                memo.put(blob, digest)
    return [digest for digest in done if digest is not None]


def _leaf(chunk: memoryview) -> bytes:
    state = sha256(_LEAF)
    state.update(chunk)  # releases the interpreter lock for chunks of 2 KiB and more
    return state.digest()


def _root(size: int, leaves: Iterable[bytes]) -> bytes:
    return sha256(_NODE + size.to_bytes(8, "big") + b"".join(leaves)).digest()


def _leaves(chunks: Sequence[memoryview], *, workers: int) -> list[bytes]:
    total = sum(map(len, chunks))
    if workers <= 1 or total < PARALLEL_FROM_BYTES:
        return [_leaf(chunk) for chunk in chunks]
    batches = _batches(chunks)
    largest_first = sorted(range(len(batches)), key=lambda i: -sum(map(len, batches[i])))  # an even finish
    with ThreadPoolExecutor(min(workers, len(batches)), "fltrust-digest") as pool:
        futures = {i: pool.submit(_leaf_batch, batches[i]) for i in largest_first}
        return [leaf for i in range(len(batches)) for leaf in futures[i].result()]


def _leaf_batch(chunks: Sequence[memoryview]) -> list[bytes]:
    return [_leaf(chunk) for chunk in chunks]


def _batches(chunks: Sequence[memoryview]) -> list[list[memoryview]]:
    """Neighbouring chunks of about `CHUNK_BYTES` together: thousands of small tensors, few tasks."""
    batches: list[list[memoryview]] = []
    size = CHUNK_BYTES
    for chunk in chunks:
        if size + len(chunk) > CHUNK_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(chunk)
        size += len(chunk)
    return batches


def _usable_cores() -> int:
    """The cores this process may run on, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_WORKERS)
