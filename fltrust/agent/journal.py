"""A participant's durable memory of what it signed: one answer to one instruction, never back in rounds.

SQLite from the standard library, `synchronous=FULL`, so that an answer survives a crash or a
power cut from the moment its signature may leave.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fltrust.clock import to_rfc3339
from fltrust.errors import Refusal, StatementRefused, StorageUnavailable
from fltrust.identity import Digest, RunId
from fltrust.updates.statement import Phase

KEEP_CLOSED_RUNS = timedelta(days=30)

_VERSION = 1
_SCHEMA = """
CREATE TABLE answers (
    instruction TEXT PRIMARY KEY,
    instruction_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    reply TEXT NOT NULL,
    signed BLOB NOT NULL,
    signed_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX answers_of_run ON answers (run_id);
CREATE TABLE progress (
    run_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    round INTEGER NOT NULL,
    PRIMARY KEY (run_id, phase)
) WITHOUT ROWID;
CREATE TABLE closed_runs (run_id TEXT PRIMARY KEY, closed_at TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Question:
    """The instruction that is being answered; `digest` is the SHA-256 of its payload."""

    digest: Digest
    instruction_id: str
    run_id: RunId
    phase: Phase
    round: int


class Journal:
    """Remembers answers; safe to call from many threads, and from a second process.

    Raises `StorageUnavailable` for a disk that is full, read-only, damaged or locked for more than 5 s:
    what cannot be remembered is not signed.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the journal at `path`; None keeps it in memory, for tests and simulations."""
        self._lock = threading.Lock()
        self._path = path
        with _storage_errors(path):
            if path is not None:
                # SQLite gives its side files the mode of the main one.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                ":memory:" if path is None else path,
                timeout=5.0,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._create()

    def check(self, question: Question) -> None:
        """Raise (``replayed``) if this instruction was not answered and a later round of its phase was.

        A second instruction under the id of an answered one is refused as well.
        """
        with self._transaction(write=False):
            if self._answer_of(question) is None:
                self._check_progress(question)

    def remember(
        self, question: Question, *, reply: Digest, at: datetime, sign: Callable[[], bytes]
    ) -> bytes:
        """Return the one answer to this instruction, durable before this returns.

        1. Answered before with the same reply: the very bytes of that answer.
        2. Answered before with another reply: refused (``duplicate``).
        3. A later round of this run and phase was answered, or another instruction with
           this id: refused (``replayed``).
        4. Otherwise `sign` is called, and what it gives is stored together with the round. If the
           process dies before the commit, nothing was said and nothing is remembered.
        """
        with self._transaction(write=True):
            known = self._answer_of(question)
            if known is not None:
                earlier, signed = known
                if earlier == str(reply):
                    return signed  # 1
                raise StatementRefused(  # 2
                    f"expected the reply {earlier} that was signed for this instruction, got {reply}",
                    reason=Refusal.DUPLICATE,
                    hint="one instruction has one answer; did the app run twice with different results?",
                )
            self._check_progress(question)  # 3
            signed = sign()  # 4
            run = str(int(question.run_id))
            self._db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (str(question.digest), question.instruction_id, run, str(reply), signed, to_rfc3339(at)),
            )
            self._db.execute(
                "INSERT INTO progress VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET round = excluded.round",
                (run, str(question.phase), question.round),
            )
        return signed

    def has_given(self, instruction: Digest, signed: bytes) -> bool:
        """Whether `signed` is the answer that was given to the instruction of this digest, byte for byte."""
        with self._transaction(write=False):
            row = self._db.execute(
                "SELECT signed FROM answers WHERE instruction = ?", (str(instruction),)
            ).fetchone()
        return row is not None and hmac.compare_digest(bytes(row[0]), signed)

    def close_run(self, run_id: RunId, *, at: datetime) -> None:
        """Note that a run ended at `at`, if it was ever answered here. Idempotent."""
        run = str(int(run_id))
        with self._transaction(write=True):
            if self._db.execute("SELECT 1 FROM progress WHERE run_id = ?", (run,)).fetchone():
                self._db.execute("INSERT OR IGNORE INTO closed_runs VALUES (?, ?)", (run, to_rfc3339(at)))

    def prune(self, *, now: datetime, keep: timedelta = KEEP_CLOSED_RUNS) -> int:
        """Forget runs closed more than `keep` ago and return how many; open ones are never forgotten."""
        with self._transaction(write=True):
            rows = self._db.execute(
                "SELECT run_id FROM closed_runs WHERE closed_at < ?", (to_rfc3339(now - keep),)
            ).fetchall()
            for table in ("answers", "progress", "closed_runs"):
                self._db.executemany(f"DELETE FROM {table} WHERE run_id = ?", rows)  # noqa: S608 - a literal
        return len(rows)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _answer_of(self, question: Question) -> tuple[str, bytes] | None:
        row = self._db.execute(
            "SELECT reply, signed FROM answers WHERE instruction = ?", (str(question.digest),)
        ).fetchone()
        return None if row is None else (str(row[0]), bytes(row[1]))

    def _check_progress(self, question: Question) -> None:
        run = str(int(question.run_id))
        if self._db.execute(
            "SELECT 1 FROM answers WHERE instruction_id = ?", (question.instruction_id,)
        ).fetchone():
            raise StatementRefused(
                f"expected a fresh instruction, got another one under the id {question.instruction_id}",
                reason=Refusal.REPLAYED,
            )
        row = self._db.execute(
            "SELECT round FROM progress WHERE run_id = ? AND phase = ?", (run, str(question.phase))
        ).fetchone()
        if row is not None and question.round < row[0]:
            raise StatementRefused(
                f"expected round {row[0]} or later of {question.phase} in run {run}, "
                f"got round {question.round}",
                reason=Refusal.REPLAYED,
                hint="this participant has answered a later round: an old instruction was sent again",
            )

    def _create(self) -> None:
        with self._transaction(write=True):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise StorageUnavailable(
                    f"expected a journal of version {_VERSION} at {self._path}, found version {version}",
                    hint="was it written by a newer fltrust?",
                )

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[None]:
        """All or nothing, and durable on leaving; the write lock is taken before anything is read."""
        with self._lock, _storage_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:  # an interrupt as well: nothing half-done stays in the transaction
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _storage_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageUnavailable(
            f"could not use the journal {path or 'in memory'}: {error}",
            hint="without it nothing is signed: check free space and permissions; "
            "a damaged journal must be restored, not removed, while runs are open",
        ) from error
