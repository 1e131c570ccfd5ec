"""A log in memory that keeps everything in lists: what the tests serve, mirror and damage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fltrust.errors import NotFound
from fltrust.identity import Digest, Epoch, KeyId, RunId, Serial, TrustDomain
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import CheckpointPolicy, CosignerKey, VerifiedCheckpoint, sign_checkpoint
from fltrust.tlog.entries import (
    LogOpened,
    PublicName,
    PublicNames,
    SealedRound,
    TrustEventEntry,
    new_entry,
)
from fltrust.tlog.merkle import Edge, leaf_hash, tree_head
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import LoggedEntry, NewEntry, TreeHead
from fltrust.tlog.tiles import Tile, read_tile, tiles_of

DOMAIN = TrustDomain("hospitals.example")
ORIGIN = "hospitals.example/log"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class MemoryLog:
    """`LogStore` without a database."""

    def __init__(self) -> None:
        self.entries: list[LoggedEntry] = []
        self.levels: dict[int, list[bytes]] = {}
        self.edge = Edge()

    @property
    def head(self) -> TreeHead:
        return self.edge.head

    def append(self, entries: Sequence[NewEntry]) -> tuple[LoggedEntry, ...]:
        logged = tuple(
            LoggedEntry(i, e.kind, e.at, e.data, e.subjects) for i, e in enumerate(entries, len(self.entries))
        )
        self.edge, hashes = self.edge.append([leaf_hash(e.data) for e in entries])
        for new in hashes:
            row = self.levels.setdefault(new.level, [])
            assert len(row) == new.index
            row.append(new.hash)
        self.entries += logged
        return logged

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        return self.levels.get(level, [])[start:end]

    def read(self, start: int, end: int) -> tuple[LoggedEntry, ...]:
        return tuple(self.entries[start:end])

    def find(self, **_: object) -> tuple[LoggedEntry, ...]:
        raise NotImplementedError


class LogWorld:
    """A log with its key, opened, and filled with acts in a plausible order."""

    def __init__(self, *, origin: str = ORIGIN) -> None:
        self.key = NoteKey(origin, generate_note_key())
        self.witness = CosignerKey("witness.example/w1", generate_note_key())
        self.log = MemoryLog()
        self.epoch = 0
        self.log.append(
            [
                new_entry(
                    LogOpened(
                        at=AT,
                        domain=DOMAIN,
                        origin=origin,
                        log_key=str(self.key.verifier),
                        public_names=PublicNames.SPIFFE,
                    )
                )
            ]
        )

    @property
    def policy(self) -> CheckpointPolicy:
        return CheckpointPolicy((self.key.verifier,))

    def note(self, size: int | None = None) -> bytes:
        return sign_checkpoint(tree_head(self.log, self.log.head.size if size is None else size), self.key)

    def checkpoint(self, size: int | None = None) -> VerifiedCheckpoint:
        return self.policy.verify(self.note(size))

    def grow(self, count: int) -> None:
        """Append `count` acts: trust events and sealed rounds in turn."""
        new: list[NewEntry] = []
        for number in range(count):
            if number % 2:
                new.append(new_entry(sealed_round(len(self.log.entries) + number)))
            else:
                self.epoch += 1
                new.append(new_entry(enrolled(self.epoch)))
        self.log.append(new)

    def append(self, *entries: NewEntry) -> None:
        self.log.append(entries)

    def fetch(self, path: str) -> bytes:
        """The log as it is served."""
        if path == "checkpoint":
            return self.note()
        return read_tile(self.log, Tile.parse(path), size=self.log.head.size)

    def write_to(self, folder: Path) -> Path:
        """The log as files: a mirror that nobody verified."""
        size = self.log.head.size
        for tile in tiles_of(size):
            path = folder / str(tile)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_tile(self.log, tile, size=size))
        (folder / "checkpoint").write_bytes(self.note())
        return folder


def enrolled(epoch: int) -> TrustEventEntry:
    return TrustEventEntry.of(
        epoch=Epoch(epoch),
        event="enrolled",
        at=AT,
        actor="spiffe://hospitals.example/operator/root",
        subject=f"spiffe://hospitals.example/participant/site-{epoch}",
        serials=[Serial(epoch)],
        keys=[KeyId.of_spki(str(epoch).encode())],
    )


def sealed_round(step: int) -> SealedRound:
    return SealedRound(
        at=AT,
        run_id=RunId(2**63 + 1),
        step=step,
        round=step,
        phase="train",
        aggregator=PublicName("spiffe://hospitals.example/aggregator/main"),
        epoch=Epoch(3),
        admitted=3,
        refused=1,
        receipt=Digest.sha256_of(str(step).encode()),
    )


class Folder:
    """A `Fetch` over files, without any of the care that the real one takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no {path}") from None
