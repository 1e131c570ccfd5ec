"""The transparency log as kept: `fltrust.tlog.ports.LogStore` on one connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from fltrust.errors import Conflict, Malformed, NotFound, StorageUnavailable
from fltrust.storage import tables
from fltrust.tlog.merkle import Edge, leaf_hash, split_hashes
from fltrust.tlog.ports import LoggedEntry, NewEntry, TreeHead, check_entry

_IN_ONE_QUERY = 500

# Every act appends: building a statement takes as long as running it.
_ADD_ENTRIES, _ADD_HASHES = insert(tables.log_entries), insert(tables.log_hashes)
_ADD_SUBJECTS = insert(tables.log_subjects)
_MOVE_HEAD = update(tables.head).where(tables.head.c.log_size == bindparam("was"))


class Log:
    """`LogStore` over ``log_entries``, ``log_hashes`` and ``log_subjects``.

    The ``head`` row, which every writer locks, holds the tree's right edge: from it alone come the root
    and every hash that an append completes, so that neither depends on the size of the log.
    """

    def __init__(self, connection: Connection, *, size: int, peaks: bytes | None) -> None:
        self._connection = connection
        try:
            self._edge = Edge(size, split_hashes(peaks or b""))
        except Malformed as error:
            raise StorageUnavailable(
                f"the log's end does not fit its size: {error.message}",
                hint="the database was altered: restore a backup, and check it against a mirror",
            ) from error

    @property
    def head(self) -> TreeHead:
        return self._edge.head

    def append(self, entries: Sequence[NewEntry]) -> tuple[LoggedEntry, ...]:
        if not entries:
            return ()
        for entry in entries:
            check_entry(entry)
        size = self._edge.size
        logged = tuple(
            LoggedEntry(index, entry.kind, entry.at, entry.data, entry.subjects)
            for index, entry in enumerate(entries, size)
        )
        edge, hashes = self._edge.append([leaf_hash(entry.data) for entry in entries])
        execute = self._connection.execute
        execute(_ADD_ENTRIES, [_row(entry) for entry in logged])
        execute(
            _ADD_HASHES,
            [{"level": new.level, "idx": new.index, "hash": new.hash} for new in hashes],
        )
        found = [{"subject": s, "idx": e.index} for e in logged for s in dict.fromkeys(e.subjects)]
        if found:
            execute(_ADD_SUBJECTS, found)
        changed = execute(_MOVE_HEAD, {"was": size, "log_size": edge.size, "log_peaks": b"".join(edge.peaks)})
        if changed.rowcount != 1:  # cannot happen while the row is locked; no index is worth a guess
            raise Conflict(f"expected a log of {size} entries, the database is elsewhere", reason="log-gap")
        self._edge = edge
        return logged

    def mark(self) -> Edge:
        """Where the log ends now, as this transaction knows it; `reset` goes back there after an undo."""
        return self._edge

    def reset(self, edge: Edge) -> None:
        self._edge = edge

    def read(self, start: int, end: int) -> tuple[LoggedEntry, ...]:
        table = tables.log_entries
        rows = self._connection.execute(
            select(table).where(table.c.idx >= start, table.c.idx < end).order_by(table.c.idx)
        )
        return tuple(map(_entry, rows))

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
        entries, subjects = tables.log_entries, tables.log_subjects
        query, index = select(entries), entries.c.idx
        if subject is not None:
            query = query.join(subjects, subjects.c.idx == entries.c.idx)
            query, index = query.where(subjects.c.subject == subject), subjects.c.idx
        if kinds:
            query = query.where(entries.c.kind.in_(kinds))
        if since is not None:
            query = query.where(entries.c.at >= since)
        if until is not None:
            query = query.where(entries.c.at < until)
        rows = self._connection.execute(query.where(index > after).order_by(index).limit(limit)).all()
        found = self._subjects([row.idx for row in rows])
        return tuple(_entry(row, found[row.idx]) for row in rows)

    def _subjects(self, indexes: Sequence[int]) -> Mapping[int, Sequence[str]]:
        table = tables.log_subjects
        found: defaultdict[int, list[str]] = defaultdict(list)
        for start in range(0, len(indexes), _IN_ONE_QUERY):
            part = indexes[start : start + _IN_ONE_QUERY]
            query = select(table).where(table.c.idx.in_(part)).order_by(table.c.subject)
            for row in self._connection.execute(query):
                found[row.idx].append(row.subject)
        return found

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        table = tables.log_hashes
        found = (
            self._connection.execute(
                select(table.c.hash)
                .where(table.c.level == level, table.c.idx >= start, table.c.idx < end)
                .order_by(table.c.idx)
            )
            .scalars()
            .all()
        )
        if len(found) != max(0, end - start):
            raise NotFound(
                f"expected hashes {start} to {end} at level {level} of the log, found {len(found)}"
            )
        return found


def _row(entry: LoggedEntry) -> dict[str, object]:
    return {
        "idx": entry.index,
        "kind": entry.kind,
        "at": entry.at,
        "data": entry.data,
    }


def _entry(row: Row[Any], subjects: Sequence[str] = ()) -> LoggedEntry:
    return LoggedEntry(row.idx, row.kind, row.at, row.data, tuple(subjects))
