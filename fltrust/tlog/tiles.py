"""Tiles (C2SP tlog-tiles): the log as files that can be fetched, cached and mirrored.

tile/<L>/<N>[.p/<W>]         hashes N*256 to N*256+W-1 at level L
tile/entries/<N>[.p/<W>]     the entries whose hashes tile/0/<N> holds
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fltrust.errors import Malformed, NotFound, Oversized
from fltrust.tlog.merkle import HASH_BYTES, MAX_SIZE, TILE_HEIGHT, TILE_WIDTH
from fltrust.tlog.ports import MAX_ENTRY, LogStore

CHECKPOINT_PATH = "checkpoint"
MAX_BUNDLE = TILE_WIDTH * (2 + MAX_ENTRY)
"""Bytes of a full entry bundle of the longest entries."""

_MAX_LEVEL = 7  # 256**8 is past the largest tree
_PATH = re.compile(
    r"tile/(?:(?P<level>[0-7])|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """Where a tile stands. `level` is None for a bundle of entries; a width of 256 is a full tile."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        height = TILE_HEIGHT * (self.level or 0)
        if not (
            0 <= (self.level or 0) <= _MAX_LEVEL
            and self.index >= 0
            and 1 <= self.width <= TILE_WIDTH
            and self.end << height <= MAX_SIZE
        ):
            raise Malformed(f"expected a tile within a tree of 2^63-1 entries, got {self!r}")

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read a path in the one form that `str()` gives; `Malformed` for any other."""
        match = _PATH.match(path) if len(path) <= 64 else None
        if match is not None:
            level, index = match["level"], int(match["index"].replace("x", "").replace("/", ""))
            width = TILE_WIDTH if match["width"] is None else int(match["width"])
            tile = cls(None if level is None else int(level), index, min(width, TILE_WIDTH))
            if str(tile) == path:
                return tile
        raise Malformed(f"expected a path such as 'tile/0/x001/234.p/5', got {path[:80]!r}")

    def __str__(self) -> str:
        digits = f"{self.index:03d}"
        digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
        parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{number}{partial}"

    @property
    def start(self) -> int:
        """Number of its first hash at its level (of its first entry, for a bundle)."""
        return self.index * TILE_WIDTH

    @property
    def end(self) -> int:
        return self.start + self.width

    @property
    def is_full(self) -> bool:
        return self.width == TILE_WIDTH

    @property
    def limit(self) -> int:
        """The most bytes that it may have."""
        return self.width * (2 + MAX_ENTRY if self.level is None else HASH_BYTES)

    @property
    def full(self) -> Tile:
        """The full tile at its place."""
        return Tile(self.level, self.index)


def tile_at(level: int | None, index: int, *, size: int) -> Tile:
    """Tile `index` of a level, as wide as it is in a tree of `size` entries; `NotFound` if empty."""
    there = size >> TILE_HEIGHT * (level or 0)
    width = min(TILE_WIDTH, there - index * TILE_WIDTH)
    if width < 1:
        raise NotFound(f"expected a tile of the tree of {size} entries, got number {index} at level {level}")
    return Tile(level, index, width)


def tiles_of(size: int, *, since: int = 0) -> list[Tile]:
    """Every tile of a tree of `size` entries that a tree of `since` entries does not have as it is.

    Hash tiles and bundles, level by level from the leaves up. A list: its length is that of the log / 128.
    """
    return list(each_tile(size, since=since))


def each_tile(size: int, *, since: int = 0) -> Iterator[Tile]:
    """As `tiles_of`, one by one: of a size that a log says and nobody has seen yet."""
    for level, indices in _ranges(size, since):
        for index in indices:
            yield tile_at(level, index, size=size)


def count_tiles(size: int, *, since: int = 0) -> int:
    """How many `each_tile` gives."""
    return sum(indices.stop - indices.start for _, indices in _ranges(size, since))


def _ranges(size: int, since: int) -> Iterator[tuple[int | None, range]]:
    for level in (None, *range(_MAX_LEVEL + 1)):
        height = TILE_HEIGHT * (level or 0)
        there, before = size >> height, since >> height
        if before < there:
            yield level, range(before // TILE_WIDTH, -(-there // TILE_WIDTH))


def read_tile(store: LogStore, tile: Tile, *, size: int) -> bytes:
    """The bytes of a tile or bundle, for whoever asks; `NotFound` if a tree of `size` has not so much.

    `size` is that of a published checkpoint: what is past it is not shown. A narrower tile than there
    is can still be had, since an earlier checkpoint may have had it.
    """
    if tile.end > size >> TILE_HEIGHT * (tile.level or 0):
        raise NotFound(f"expected a tile of the tree of {size} entries, got {tile}")
    if tile.level is None:
        return encode_bundle([entry.data for entry in store.read(tile.start, tile.end)])
    return b"".join(store.hashes(tile.level, tile.start, tile.end))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries one after another, each behind its length in two bytes, big-endian."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Oversized(f"expected a log entry of at most {MAX_ENTRY} bytes, got {len(entry)}")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_bundle(data: bytes, *, width: int) -> tuple[bytes, ...]:
    """Cut a bundle into its `width` entries; `Malformed` if they do not come out even."""
    if len(data) > width * (2 + MAX_ENTRY):
        raise Oversized(f"expected a bundle of {width} entries, got {len(data)} bytes")
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise Malformed(f"expected {width} whole entries in a bundle, number {len(entries)} is cut off")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise Malformed(f"expected {width} entries in a bundle of {len(data)} bytes, found {len(entries)}")
    return tuple(entries)
