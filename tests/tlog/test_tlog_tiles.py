"""Tiles: where they stand, what is in them, and reading them from somebody who may lie."""

from __future__ import annotations

import pytest
from log_world import LogWorld

from fltrust.errors import InvalidInput, Malformed, NotFound, Oversized, Tampered
from fltrust.tlog.merkle import consistency_proof, inclusion_proof, tree_head
from fltrust.tlog.ports import MAX_ENTRY, TreeHead
from fltrust.tlog.reader import TileReader
from fltrust.tlog.tiles import (
    MAX_BUNDLE,
    Tile,
    decode_bundle,
    encode_bundle,
    read_tile,
    tile_at,
    tiles_of,
)


@pytest.fixture(scope="module")
def world() -> LogWorld:
    world = LogWorld()
    world.grow(70_000 - 1)
    return world


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/x001/x234/067", Tile(0, 1234067)),
        ("tile/1/001.p/17", Tile(1, 1, 17)),
        ("tile/entries/x123/456.p/255", Tile(None, 123456, 255)),
        ("tile/7/000.p/1", Tile(7, 0, 1)),
    ],
)
def test_a_path_and_a_tile_are_the_same_thing(path: str, tile: Tile) -> None:
    assert (Tile.parse(path), str(tile)) == (tile, path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "checkpoint",
        "/tile/0/000",
        "tile/00/000",
        "tile/8/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/1234",
        "tile/0/001/234",
        "tile/0/x000/001",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/0/000.p",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/data/000",
        "tile/0/../../etc/passwd",
        "tile/0/%30%30%30",
        "tile/0/٠٠٠",
        "tile/7/999",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 100 + "999",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Tile.parse(path)


def test_a_tree_of_seventy_thousand_has_the_tiles_that_the_specification_counts() -> None:
    tiles = tiles_of(70_000)
    by_level = {level: [t for t in tiles if t.level == level] for level in (None, 0, 1, 2, 3)}
    assert len([t for t in by_level[0] if t.is_full]) == 273
    assert [str(t) for t in by_level[0] if not t.is_full] == ["tile/0/273.p/112"]
    assert [str(t) for t in by_level[1]] == ["tile/1/000", "tile/1/001.p/17"]
    assert [str(t) for t in by_level[2]] == ["tile/2/000.p/1"]
    assert by_level[3] == []
    assert [t.index for t in by_level[None]] == [t.index for t in by_level[0]]
    assert [str(t) for t in tiles_of(256) if t.level is not None] == ["tile/0/000", "tile/1/000.p/1"]
    assert tiles_of(0) == []


def test_what_is_new_between_two_sizes_is_what_the_first_does_not_have() -> None:
    for old, new in ((0, 5), (5, 6), (255, 256), (256, 257), (600, 70_000), (70_000, 70_000)):
        assert set(tiles_of(new, since=old)) == set(tiles_of(new)) - set(tiles_of(old))


def test_nothing_past_the_published_size_is_shown(world: LogWorld) -> None:
    assert len(read_tile(world.log, Tile(0, 1, 44), size=300)) == 44 * 32
    assert len(read_tile(world.log, Tile(0, 1, 7), size=300)) == 7 * 32  # of an earlier checkpoint
    assert len(decode_bundle(read_tile(world.log, Tile(None, 1, 44), size=300), width=44)) == 44
    for tile in (Tile(0, 1, 45), Tile(0, 1), Tile(None, 1, 45), Tile(1, 0, 2), Tile(2, 0, 1)):
        with pytest.raises(NotFound):
            read_tile(world.log, tile, size=300)
    with pytest.raises(NotFound):
        tile_at(0, 2, size=300)


def test_a_bundle_comes_apart_as_it_was_put_together() -> None:
    entries = (b"", b"x", bytes(MAX_ENTRY))
    assert decode_bundle(encode_bundle(entries), width=3) == entries
    assert len(encode_bundle([bytes(MAX_ENTRY)] * 256)) == MAX_BUNDLE
    with pytest.raises(Oversized):
        encode_bundle([bytes(MAX_ENTRY + 1)])


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"", 1),
        (b"\x00", 1),
        (b"\x00\x02x", 1),
        (b"\x00\x01xx", 1),
        (b"\x00\x01x", 2),
        (b"\x00\x00\x00\x00", 1),
    ],
)
def test_a_bundle_that_does_not_come_out_even_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(Malformed):
        decode_bundle(data, width=width)


def test_a_bundle_is_bounded_before_it_is_cut() -> None:
    with pytest.raises(Oversized):
        decode_bundle(bytes(2 + MAX_ENTRY + 1), width=1)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000])
def test_proofs_from_tiles_are_the_ones_from_the_store(world: LogWorld, size: int) -> None:
    reader = TileReader(world.fetch, tree_head(world.log, size))
    for index in {0, size // 2, size - 1}:
        assert inclusion_proof(reader, index, size=size) == inclusion_proof(world.log, index, size=size)
        assert consistency_proof(reader, index, size=size) == consistency_proof(world.log, index, size=size)
    last = max(0, size - 3)
    assert list(reader.entries(last, size)) == [(i, world.log.entries[i].data) for i in range(last, size)]


def test_nothing_is_read_before_the_edge_hashes_to_the_root(world: LogWorld) -> None:
    asked: list[str] = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        return world.fetch(path)

    reader = TileReader(fetch, TreeHead(70_000, bytes(32)))
    with pytest.raises(Tampered, match="edge"):
        reader.bundle(5)
    assert asked == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]


@pytest.mark.parametrize(
    "path",
    ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/1/000", "tile/0/005", "tile/entries/005"],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_a_damaged_tile_on_the_way_to_an_entry_is_caught(world: LogWorld, path: str, damage: str) -> None:
    def fetch(asked: str) -> bytes:
        data = world.fetch(asked)
        if asked != path:
            return data
        flipped = data[:20] + bytes([data[20] ^ 1]) + data[21:]
        return {"flip": flipped, "cut": data[:-1], "grow": data + b"x"}[damage]

    with pytest.raises(Tampered):
        TileReader(fetch, world.log.head).bundle(5)


def test_a_partial_tile_that_is_gone_is_read_from_the_full_one() -> None:
    world = LogWorld()
    world.grow(299)
    old = world.log.head
    world.grow(300)

    def fetch(path: str) -> bytes:
        tile = Tile.parse(path)
        if tile.level in (0, None) and not tile.is_full:
            raise NotFound("pruned")
        return world.fetch(path)

    reader = TileReader(fetch, old)
    assert [data for _, data in reader.entries(0, 300)] == [e.data for e in world.log.entries[:300]]
    with pytest.raises(NotFound):
        TileReader(fetch, world.log.head).bundle(0)  # 600 entries: its own last tile is not full


def test_entries_outside_of_the_tree_are_refused(world: LogWorld) -> None:
    reader = TileReader(world.fetch, tree_head(world.log, 300))
    for start, end in ((-1, 5), (5, 301), (6, 5)):
        with pytest.raises(InvalidInput):
            list(reader.entries(start, end))
    assert list(reader.entries(300, 300)) == []


def test_the_tiles_that_are_kept_are_few(world: LogWorld) -> None:
    reader = TileReader(world.fetch, world.log.head)
    assert sum(1 for _ in reader.entries(0, 70_000)) == 70_000
    assert len(reader._full) <= 512
