"""What the log needs kept, and what it is read from.

Every method of a store runs inside the caller's transaction: nothing is durable before it commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fltrust.errors import Malformed, Oversized

MAX_ENTRY = 65_535
"""Bytes of one entry: an entry bundle frames each with 16 bits (C2SP tlog-tiles)."""
MAX_SUBJECT = 256


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One entry to append. `data` is the leaf's content, as it is hashed and served; `kind` is the word
    that the index and the audit know it by (`fltrust.tlog.entries`).

    `subjects` are what it is found by: SPIFFE IDs, and ``run:<id>``. They are never served.
    """

    kind: str
    at: datetime
    data: bytes
    subjects: tuple[str, ...] = ()


def check_entry(entry: NewEntry) -> None:
    """Return only if a store can keep the entry: `Oversized` past `MAX_ENTRY` bytes, `Malformed` for
    subjects that are empty or longer than `MAX_SUBJECT` characters."""
    if len(entry.data) > MAX_ENTRY:
        raise Oversized(
            f"expected a log entry of at most {MAX_ENTRY} bytes, got {len(entry.data)} ({entry.kind})"
        )
    if any(not 0 < len(subject) <= MAX_SUBJECT for subject in entry.subjects):
        raise Malformed(f"expected subjects of 1 to {MAX_SUBJECT} characters for a log entry")


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry in its place."""

    index: int
    kind: str
    at: datetime
    data: bytes
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The tree at one size; the root of the empty tree is SHA-256 of nothing (RFC 6962, 2.1)."""

    size: int
    root: bytes


class HashSource(Protocol):
    """Merkle hashes at the heights of tiles: what proofs are computed from."""

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        """Hashes `start` (inclusive) to `end` (exclusive) at tile level `level`: at level 0 the leaf
        hashes, at level L the Merkle Tree Hash of 256**L consecutive entries. All of them must exist."""
        ...


class LogStore(HashSource, Protocol):
    """The log as kept: append-only, without a gap."""

    @property
    def head(self) -> TreeHead:
        """In a writing transaction it stays the head until this transaction appends or commits."""
        ...

    def append(self, entries: Sequence[NewEntry]) -> tuple[LoggedEntry, ...]:
        """Append in order at the head; refuses what `check_entry` refuses, and then appends nothing."""
        ...

    def read(self, start: int, end: int) -> tuple[LoggedEntry, ...]:
        """Entries `start` (inclusive) to `end` (exclusive), as far as they exist, without their subjects."""
        ...

    def find(
        self,
        *,
        subject: str | None = None,
        kinds: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        after: int = -1,
        limit: int = 256,
    ) -> tuple[LoggedEntry, ...]:
        """Entries past index `after`, in order, that match all that is given; `since` is inclusive, `until`
        is not."""
        ...
