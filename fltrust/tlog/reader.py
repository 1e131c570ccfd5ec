"""Reading a log that somebody else serves: nothing is used before it hashes to a signed root."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hmac import compare_digest

from fltrust.errors import EvidenceInvalid, InvalidInput, Malformed, NotFound, Tampered
from fltrust.tlog.merkle import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Edge, fold, leaf_hash, split_hashes
from fltrust.tlog.ports import TreeHead
from fltrust.tlog.tiles import Tile, decode_bundle, tile_at

Fetch = Callable[[str], bytes]
"""Gives what stands at a path below the log's prefix (``checkpoint``, ``tile/0/000``…).

`NotFound` if there is nothing; another `FltrustError` if it cannot tell.
"""

_KEPT_TILES = 512  # of 8 KiB


def fetch_tile(fetch: Fetch, tile: Tile) -> tuple[bytes, Tile]:
    """What is served as `tile`, or as the full tile where a partial one is gone; and which of them it is.

    Unchecked: neither its length nor its content.
    """
    try:
        return fetch(str(tile)), tile
    except NotFound:
        if tile.is_full:
            raise
    return fetch(str(tile.full)), tile.full


class TileReader:
    """A `HashSource` over fetched tiles of the tree with a known head, and its entries.

    Every tile is checked before it is used:

    1. The partial tiles at the right edge, all of them together, hash to the root.
    2. Any other tile is full, and hashes to its hash in the tile above it, which was checked first.
    3. Every entry of a bundle hashes to its hash in the tile at level 0.

    A partial tile that is gone is read from the full tile in its place (C2SP tlog-tiles). Raises `Tampered`
    for what does not hash to where it must, `NotFound` for what is not served. Not for many threads at once.
    """

    def __init__(self, fetch: Fetch, head: TreeHead) -> None:
        self._fetch = fetch
        self._head = head
        self._full: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._edge: dict[int, bytes] | None = None

    @property
    def head(self) -> TreeHead:
        return self._head

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        found: list[bytes] = []
        for index in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            first = index * TILE_WIDTH
            found += split_hashes(self.tile(level, index))[max(0, start - first) : end - first]
        if len(found) != end - start:
            raise NotFound(
                f"expected hashes {start} to {end} at level {level} of the log, found {len(found)}"
            )
        return found

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of one tile, checked."""
        if self._edge is None:
            self._edge = self._read_edge()  # 1.
        tile = tile_at(level, index, size=self._head.size)
        if not tile.is_full:
            return self._edge[level]
        data = self._full.get((level, index))
        if data is None:
            above = self.tile(level + 1, index // TILE_WIDTH)  # 2.
            place = index % TILE_WIDTH * HASH_BYTES
            data = self._get(tile)
            if not compare_digest(fold(split_hashes(data)), above[place : place + HASH_BYTES]):
                raise Tampered(f"{tile} does not hash to its place in the tree of {self._head.size} entries")
            self._full[level, index] = data
        self._full.move_to_end((level, index))
        if len(self._full) > _KEPT_TILES:
            self._full.popitem(last=False)
        return data

    def bundle(self, index: int) -> tuple[bytes, ...]:
        """The entries of one bundle, checked; the last may have less than 256."""
        bundle = tile_at(None, index, size=self._head.size)
        hashes = split_hashes(self.tile(0, index))
        entries = self._get_entries(bundle)
        for number, (entry, expected) in enumerate(zip(entries, hashes, strict=True), bundle.start):
            if not compare_digest(leaf_hash(entry), expected):
                raise Tampered(f"entry {number} in {bundle} does not hash to its leaf in the tree")  # 3.
        return entries

    def entries(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Entries `start` to `end` with their numbers, checked, one bundle in memory at a time."""
        if not 0 <= start <= end <= self._head.size:
            raise Malformed(f"expected entries of a tree of {self._head.size}, got {start} to {end}")
        for index in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            first = index * TILE_WIDTH
            for number, entry in enumerate(self.bundle(index), first):
                if start <= number < end:
                    yield number, entry

    def _read_edge(self) -> dict[int, bytes]:
        size, found = self._head.size, {}
        for level in range(-(-size.bit_length() // TILE_HEIGHT)):
            there = size >> TILE_HEIGHT * level
            if there % TILE_WIDTH:
                found[level] = self._get(tile_at(level, there // TILE_WIDTH, size=size))
        if not compare_digest(Edge.of(_Unchecked(found), size).head.root, self._head.root):
            raise Tampered(
                f"the tiles at the edge of the tree of {size} entries do not hash to its signed root"
            )
        return found

    def _get(self, tile: Tile) -> bytes:
        data, there = fetch_tile(self._fetch, tile)
        if len(data) != there.width * HASH_BYTES:
            raise Tampered(f"expected {there.width * HASH_BYTES} bytes in {there}, found {len(data)}")
        return data[: tile.width * HASH_BYTES]

    def _get_entries(self, tile: Tile) -> tuple[bytes, ...]:
        data, there = fetch_tile(self._fetch, tile)
        try:
            return decode_bundle(data, width=there.width)[: tile.width]
        except InvalidInput as error:
            raise Tampered(f"{there}: {error.message}") from None


class _Unchecked:
    """Partial tiles, to compute a root from: a wrong one gives a wrong root."""

    def __init__(self, tiles: dict[int, bytes]) -> None:
        self._tiles = tiles

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        first = start // TILE_WIDTH * TILE_WIDTH
        if level not in self._tiles:
            raise EvidenceInvalid(f"expected hashes at the edge only, got level {level}")
        return split_hashes(self._tiles[level])[start - first : end - first]
