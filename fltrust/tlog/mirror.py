"""A mirror: the whole log as files. Downloading one, and verifying one from its tiles alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from fltrust.errors import EvidenceInvalid, InvalidInput, NotFound, StorageUnavailable, Tampered
from fltrust.files import write_durably
from fltrust.identity import Epoch
from fltrust.tlog.checkpoint import CheckpointPolicy, VerifiedCheckpoint
from fltrust.tlog.entries import kind_of
from fltrust.tlog.fetching import FolderLog
from fltrust.tlog.merkle import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Edge,
    Prover,
    leaf_hash,
    verify_consistency,
)
from fltrust.tlog.reader import Fetch, TileReader, fetch_tile
from fltrust.tlog.sequence import EntrySequence
from fltrust.tlog.tiles import (
    CHECKPOINT_PATH,
    Tile,
    count_tiles,
    decode_bundle,
    each_tile,
    encode_bundle,
    tile_at,
)

_PUBLIC = 0o644

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """A mirror that holds: its checkpoint, and how many entries of each kind it has."""

    checkpoint: VerifiedCheckpoint
    kinds: Mapping[str, int]
    last_epoch: Epoch | None
    """The epoch of the last trust event in it."""


def verify_mirror(
    fetch: Fetch, policy: CheckpointPolicy, *, progress: Progress = lambda _done, _all: None
) -> MirrorReport:
    """Check a whole log from its tiles alone; memory stays bounded whatever its size.

    1. The checkpoint is signed as `policy` demands.
    2. Every entry hashes to its hash in the tile at level 0.
    3. Every tile at every level holds what follows from the level below, and nothing else.
    4. The root that follows from all entries is the signed one.
    5. Every entry parses as a known kind, the first opens the log, and no trust epoch is left out.

    Raises `Tampered` (2–4), `EvidenceInvalid` (5), what `CheckpointPolicy.verify` raises (1), and
    `NotFound` where a tile is not there.
    """
    checkpoint = policy.verify(fetch(CHECKPOINT_PATH))  # 1.
    size = checkpoint.head.size
    edge, levels = Edge(), _Levels(fetch, size)
    sequence, kinds = EntrySequence(checkpoint.origin), Counter[str]()
    for index in range(-(-size // TILE_WIDTH)):
        bundle = tile_at(None, index, size=size)
        entries = _read_bundle(fetch, bundle)
        edge, hashes = edge.append([leaf_hash(entry) for entry in entries])
        for new in hashes:  # 2. at level 0, 3. above
            levels.add(new.level, new.hash)
        for entry in entries:
            kinds[str(kind_of(sequence.read(entry)))] += 1  # 5.
        progress(bundle.end, size)
    levels.finish()
    if not compare_digest(edge.head.root, checkpoint.head.root):  # 4.
        raise Tampered(f"the entries of the mirror do not hash to the signed root of the tree of {size}")
    return MirrorReport(checkpoint, dict(sorted(kinds.items())), sequence.epoch)


def download(
    fetch: Fetch, folder: Path, policy: CheckpointPolicy, *, progress: Progress = lambda _done, _all: None
) -> VerifiedCheckpoint:
    """Bring the mirror in `folder` to the newest checkpoint of the log, all of it checked before it is kept.

    1. The new checkpoint is signed as `policy` demands.
    2. It extends the mirror's own: a smaller tree (``rewind``) or another one (``fork``) is `Tampered`,
       and the mirror stays as it was.
    3. Tiles and entries that the mirror lacks are fetched, and hash to the new root.
    4. The checkpoint is written last: a download cut short leaves the mirror at its old one, and goes on
       from there the next time.
    """
    note = fetch(CHECKPOINT_PATH)
    new = policy.verify(note)  # 1.
    folder.mkdir(parents=True, exist_ok=True)
    old = _checkpoint_in(folder, policy)
    reader = TileReader(fetch, new.head)
    if old is not None:
        check_extends(old, new, reader)  # 2.
    since = 0 if old is None else old.head.size
    todo = count_tiles(new.head.size, since=since)
    for done, tile in enumerate(each_tile(new.head.size, since=since), 1):  # 3.
        _keep(folder, tile, reader)
        progress(done, todo)
    write_durably(folder / CHECKPOINT_PATH, note, mode=_PUBLIC)  # 4.
    _drop_partial(folder, since, new.head.size)
    return new


def check_extends(old: VerifiedCheckpoint, new: VerifiedCheckpoint, reader: TileReader) -> None:
    """Check that the tree behind `reader`, whose head is `new`'s, has all of `old`'s entries in place.

    Raises `Tampered`: ``rewind`` for a smaller tree, ``fork`` for another.
    """
    if new.head.size < old.head.size:
        raise Tampered(
            f"the log {old.origin} was seen with {old.head.size} entries, and now shows {new.head.size}",
            reason="rewind",
            hint="keep both checkpoints: together they show what the log signed",
        )
    try:
        proof = Prover(reader, new.head.size).consistency(old.head.size)
        verify_consistency(proof, old=old.head, new=new.head)
    except EvidenceInvalid as error:
        raise Tampered(
            f"the log {old.origin} shows another past than at {old.head.size} entries: {error.message}",
            reason="fork",
            hint="keep both checkpoints: together they prove that the log signed two histories",
        ) from None


class _Levels:
    """The tile under construction at every level, compared with the mirror's as it becomes whole."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._open: dict[int, bytearray] = {}
        self._done: Counter[int] = Counter()

    def add(self, level: int, digest: bytes) -> None:
        tile = self._open.setdefault(level, bytearray())
        tile += digest
        if len(tile) == TILE_WIDTH * HASH_BYTES:
            self._compare(level, bytes(tile))

    def finish(self) -> None:
        for level, tile in list(self._open.items()):
            if tile:
                self._compare(level, bytes(tile))

    def _compare(self, level: int, expected: bytes) -> None:
        tile = tile_at(level, self._done[level], size=self._size)
        data, there = fetch_tile(self._fetch, tile)
        if len(data) != there.width * HASH_BYTES or not compare_digest(data[: len(expected)], expected):
            raise Tampered(f"{tile} is not what the entries below it hash to")
        self._done[level] += 1
        self._open[level] = bytearray()


def _read_bundle(fetch: Fetch, tile: Tile) -> tuple[bytes, ...]:
    data, there = fetch_tile(fetch, tile)
    try:
        return decode_bundle(data, width=there.width)[: tile.width]
    except InvalidInput as error:
        raise Tampered(f"{there}: {error.message}") from None


def _checkpoint_in(folder: Path, policy: CheckpointPolicy) -> VerifiedCheckpoint | None:
    """The mirror's own checkpoint, held to the log's key (its witnesses may have been others then)."""
    try:
        note = FolderLog(folder)(CHECKPOINT_PATH)
    except NotFound:
        return None
    return CheckpointPolicy(policy.log).verify(note)


def _keep(folder: Path, tile: Tile, reader: TileReader) -> None:
    path = folder / str(tile)
    if tile.level is None:
        data = encode_bundle(reader.bundle(tile.index))
    else:
        data = reader.tile(tile.level, tile.index)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"could not create {path.parent}: {error.strerror or error}") from error
    write_durably(path, data, mode=_PUBLIC)


def _drop_partial(folder: Path, old: int, new: int) -> None:
    """Remove the partial tiles of the tree of `old` entries that stand wider in the one of `new`."""
    for level in (None, *range(8)):
        there = old >> TILE_HEIGHT * (level or 0)
        if there % TILE_WIDTH == 0:
            continue
        before = tile_at(level, there // TILE_WIDTH, size=old)
        if tile_at(level, before.index, size=new) != before:
            path = folder / str(before)
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
