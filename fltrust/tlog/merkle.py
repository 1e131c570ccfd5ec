"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, growth, proofs and their verification.

A tree is kept as hashes at the heights of tiles (`HashSource`): level L holds one hash for every full
256**L entries. Everything else is computed from these; no cost grows faster than the logarithm of the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Self

from fltrust.errors import EvidenceInvalid, Malformed, NotFound
from fltrust.tlog.ports import HashSource, TreeHead

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_SIZE = 2**63 - 1
MAX_PROOF = 63
"""Hashes of one proof: a tree of `MAX_SIZE` entries is 63 levels high (C2SP tlog-witness says the same)."""

EMPTY_ROOT = sha256(b"").digest()
EMPTY_HEAD = TreeHead(0, EMPTY_ROOT)


def leaf_hash(data: bytes) -> bytes:
    """MTH({d}) = SHA-256(0x00 || d)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes`, each of an equally high and full subtree but for the last, at least one."""
    row = list(hashes)
    while len(row) > 1:
        odd = row[-1:] if len(row) % 2 else []
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)] + odd
    return row[0]


@dataclass(frozen=True, slots=True)
class NewHash:
    """A hash to keep: number `index` at tile level `level`."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: one full subtree for each set bit of its size, the largest first.

    It is all that appending needs, so a writer keeps it beside the head: at most 63 hashes. An append
    touches no other stored hash, and the root costs as many node hashes as there are peaks.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.peaks) != self.size.bit_count():
            raise Malformed(
                f"expected {self.size.bit_count()} peaks for a tree of {self.size}, got {len(self.peaks)}"
            )

    @classmethod
    def of(cls, source: HashSource, size: int) -> Self:
        """Read the edge of the tree of `size` entries from its stored hashes."""
        return cls(size, tuple(_Tiles(source, size).peaks(0, size)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `bytes()` gives: the size in 8 bytes, then the peaks."""
        size, rest = int.from_bytes(data[:8], "big"), data[8:]
        if len(data) < 8 or len(rest) != size.bit_count() * HASH_BYTES:
            raise Malformed(f"expected the right edge of a tree, got {len(data)} bytes that are none")
        return cls(size, split_hashes(rest))

    def __bytes__(self) -> bytes:
        return self.size.to_bytes(8, "big") + b"".join(self.peaks)

    @property
    def head(self) -> TreeHead:
        return TreeHead(self.size, _join(self.peaks))

    def append(self, leaves: Sequence[bytes]) -> tuple[Edge, tuple[NewHash, ...]]:
        """Add leaf hashes on the right; the new edge, and every hash to keep, in the order it came to be.

        The hashes are the leaves themselves at level 0, and one at level L for each 256**L entries that
        became full. Any batching gives the same edge and the same hashes.
        """
        peaks, new, size = list(self.peaks), [], self.size
        for leaf in leaves:
            new.append(NewHash(0, size, leaf))
            peaks.append(leaf)
            size += 1
            height = 0
            while not size >> height & 1:  # two full subtrees of this height stand side by side: join them
                right, left = peaks.pop(), peaks.pop()
                peaks.append(node_hash(left, right))
                height += 1
                if height % TILE_HEIGHT == 0:
                    new.append(NewHash(height // TILE_HEIGHT, (size >> height) - 1, peaks[-1]))
        return Edge(size, tuple(peaks)), tuple(new)


class Prover:
    """Roots and proofs of the tree of `size` entries, each tile read from the source at most once.

    Make one for each question or batch of questions, not for ever: it keeps what it has read.
    """

    def __init__(self, source: HashSource, size: int) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise Malformed(f"expected a tree size from 0 to 2^63-1, got {size}")
        self._tiles = _Tiles(source, size)
        self._size = size

    @property
    def head(self) -> TreeHead:
        return TreeHead(self._size, self._subtree(0, self._size) if self._size else EMPTY_ROOT)

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """PATH(index, D[size]) (RFC 6962, 2.1.1), from the leaf's sibling upward."""
        if not 0 <= index < self._size:
            raise Malformed(f"expected an entry below {self._size}, got {index}")
        path: list[bytes] = []
        start, end = 0, self._size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency(self, old: int) -> tuple[bytes, ...]:
        """PROOF(old, D[size]) (RFC 6962, 2.1.2); empty where `old` is 0 or the size itself."""
        if not 0 <= old <= self._size:
            raise Malformed(f"expected an old size of at most {self._size}, got {old}")
        if old in (0, self._size):
            return ()
        path: list[bytes] = []
        start, end, is_whole = 0, self._size, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start, is_whole = middle, False
        if not is_whole:
            path.append(self._subtree(start, end))
        return tuple(reversed(path))

    def _subtree(self, start: int, end: int) -> bytes:
        return _join(list(self._tiles.peaks(start, end)))


def tree_head(source: HashSource, size: int) -> TreeHead:
    """The head of the tree of the first `size` entries."""
    return Prover(source, size).head


def inclusion_proof(source: HashSource, index: int, *, size: int) -> tuple[bytes, ...]:
    return Prover(source, size).inclusion(index)


def consistency_proof(source: HashSource, old: int, *, size: int) -> tuple[bytes, ...]:
    return Prover(source, size).consistency(old)


def verify_inclusion(proof: Sequence[bytes], *, leaf: bytes, index: int, head: TreeHead) -> None:
    """Check that the entry with leaf hash `leaf` is number `index` of the tree (RFC 9162, 2.1.3.2).

    Raises `EvidenceInvalid` otherwise. Pure: same inputs, same answer.
    """
    # 1. The index lies in the tree, and the proof is of hashes, no more than any tree needs.
    if not 0 <= index < head.size <= MAX_SIZE:
        raise EvidenceInvalid(f"expected an entry below {head.size}, got number {index}")
    _check_hashes(proof)
    # 2.–4. Walk up: `node` is the position at the current level, `last` that of the rightmost node.
    node, last, found = index, head.size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise EvidenceInvalid("expected a shorter inclusion proof: it goes on past the root")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    # 5. The walk ended at the root, and it is the one that was signed.
    if last != 0 or not compare_digest(found, head.root):
        raise EvidenceInvalid(
            f"the inclusion proof of entry {index} does not lead to the root of the tree of {head.size}"
        )


def verify_consistency(proof: Sequence[bytes], *, old: TreeHead, new: TreeHead) -> None:
    """Check that the tree `new` has all entries of the tree `old`, in place (RFC 9162, 2.1.4.2).

    Raises `EvidenceInvalid` otherwise: another root at the same size, a smaller tree, a proof that does
    not lead to both roots, hashes too many or too few. Between equal sizes, and from the empty tree,
    the proof is empty.
    """
    # 1. Sizes in order; the trivial cases have no proof at all.
    if not 0 <= old.size <= new.size <= MAX_SIZE:
        raise EvidenceInvalid(f"expected a tree of at least {old.size} entries, got one of {new.size}")
    _check_hashes(proof)
    if old.size == 0 and not compare_digest(old.root, EMPTY_ROOT):
        raise EvidenceInvalid("expected SHA-256 of nothing as the root of an empty tree, got another")
    if old.size in (0, new.size):
        if proof:
            raise EvidenceInvalid("expected an empty consistency proof, got one with hashes")
        if old.size == new.size and not compare_digest(old.root, new.root):
            raise EvidenceInvalid(f"two trees of {old.size} entries have different roots")
        return
    # 2. A full subtree as the old tree is its own first hash, and is not sent.
    path = [old.root, *proof] if old.size.bit_count() == 1 else list(proof)
    if not path:
        raise EvidenceInvalid("expected a consistency proof, got an empty one")
    # 3.–4. Start at the old tree's last full subtree.
    node, last = old.size - 1, new.size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # 5.–6. Compute both roots from the same hashes.
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise EvidenceInvalid("expected a shorter consistency proof: it goes on past the root")
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    # 7. Both are what was signed.
    if last != 0 or not (compare_digest(first, old.root) and compare_digest(second, new.root)):
        raise EvidenceInvalid(
            f"the tree of {new.size} entries is not an extension of the known tree of {old.size}",
        )


def split_hashes(data: bytes) -> tuple[bytes, ...]:
    """Cut concatenated hashes apart; `Malformed` if they do not come out even."""
    if len(data) % HASH_BYTES:
        raise Malformed(f"expected whole hashes of {HASH_BYTES} bytes, got {len(data)} bytes")
    return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


def _check_hashes(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF or any(len(item) != HASH_BYTES for item in proof):
        raise EvidenceInvalid(f"expected a proof of at most {MAX_PROOF} hashes of {HASH_BYTES} bytes")


def _split(size: int) -> int:
    """The largest power of two below `size` (k of RFC 6962, 2.1)."""
    return 1 << (size - 1).bit_length() - 1


def _join(peaks: Sequence[bytes]) -> bytes:
    """The root over full subtrees, the largest first; of none, the root of the empty tree."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


class _Tiles:
    """Full subtrees of one tree, from tiles that are read once each."""

    def __init__(self, source: HashSource, size: int) -> None:
        self._source = source
        self._size = size
        self._read: dict[tuple[int, int], Sequence[bytes]] = {}

    def peaks(self, start: int, end: int) -> Iterator[bytes]:
        """Cover entries `start` to `end` with full subtrees; `start` must be aligned to the first of them."""
        while start < end:
            height = (end - start).bit_length() - 1
            yield self._full(height, start >> height)
            start += 1 << height

    def _full(self, height: int, index: int) -> bytes:
        """The hash of the full subtree number `index` of 2**height entries."""
        level, above = divmod(height, TILE_HEIGHT)
        first, last = index << above, (index + 1) << above  # never crosses a tile: 2**above divides 256
        number = first // TILE_WIDTH
        tile = self._read.get((level, number))
        if tile is None:
            there = self._size >> level * TILE_HEIGHT
            start, end = number * TILE_WIDTH, min((number + 1) * TILE_WIDTH, there)
            tile = self._source.hashes(level, start, end)
            if len(tile) != end - start:
                raise NotFound(f"expected hashes {start} to {end} at level {level}, found {len(tile)}")
            self._read[level, number] = tile
        return fold(tile[first - number * TILE_WIDTH : last - number * TILE_WIDTH])
