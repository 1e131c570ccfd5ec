"""The log read back for an auditor: by participant, run and time, each entry with its proof."""

from __future__ import annotations

from collections.abc import Iterator

from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.logbook import run_subject
from fltrust.errors import Malformed
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.merkle import Prover
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import LoggedEntry, TreeHead
from fltrust.wire.artifacts import AuditQuery
from fltrust.wire.audit import MAX_SUBJECTS, AuditLine

_PAGE = 64


class AuditDesk:
    """Answers audits from the log as it stands when the audit begins."""

    def __init__(self, *, ledger: Ledger, log_key: NoteKey) -> None:
        self._ledger = ledger
        self._log_key = log_key

    def lines(self, query: AuditQuery) -> Iterator[bytes]:
        """Yield what the query asks for as `fltrust.wire.audit.AuditLine`s, in the log's order.

        All are proven in the tree of one checkpoint, signed when the first is asked for. `since` is
        inclusive, `until` is not. `Malformed`, at once, for times without a zone.
        """
        if any(at is not None and at.tzinfo is None for at in (query.since, query.until)):
            raise Malformed("expected aware times to audit between")
        return self._lines(query)

    def _lines(self, query: AuditQuery) -> Iterator[bytes]:
        with self._ledger.reading() as tx:
            head = tx.tlog.head
        checkpoint = sign_checkpoint(head, self._log_key)
        after = -1
        while True:
            page, after = self._page(query, after, head)
            for entry, proof in page:
                line = AuditLine(
                    index=entry.index,
                    at=entry.at,
                    kind=entry.kind,
                    subjects=_subjects(entry, query),
                    entry=entry.data,
                    proof=proof,
                    checkpoint=checkpoint,
                )
                yield line.encode()
            if after < 0:
                return

    def _page(
        self, query: AuditQuery, after: int, head: TreeHead
    ) -> tuple[list[tuple[LoggedEntry, tuple[bytes, ...]]], int]:
        """The next entries with their proofs, and after which index to go on: -1 at the end."""
        by_run = None if query.run_id is None else run_subject(query.run_id)
        by_name = None if query.participant is None else str(query.participant)
        with self._ledger.reading() as tx:
            found = tx.tlog.find(
                subject=by_run or by_name, since=query.since, until=query.until, after=after, limit=_PAGE
            )
            prover = Prover(tx.tlog, head.size)
            page = [
                (entry, prover.inclusion(entry.index))
                for entry in found
                if entry.index < head.size and (by_name is None or by_name in entry.subjects)
            ]
        is_last = len(found) < _PAGE or found[-1].index >= head.size
        return page, -1 if is_last else found[-1].index


def _subjects(entry: LoggedEntry, query: AuditQuery) -> tuple[str, ...]:
    """Some of the names that the entry is found by: a sealed round has thousands. Whoever was asked for,
    first."""
    wanted = [] if query.participant is None else [str(query.participant)]
    return tuple(dict.fromkeys((*wanted, *entry.subjects)))[:MAX_SUBJECTS]
