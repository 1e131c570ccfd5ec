"""What rounds need kept: runs, rounds, and the chain of receipts.

Every method runs inside the caller's transaction: nothing is durable before it commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fltrust.identity import Digest, Epoch, RunId, SpiffeId
from fltrust.rounds.types import Candidate, RoundKey, RoundRecord


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: the aggregator that opened its first round owns it."""

    run_id: RunId
    aggregator: SpiffeId
    opened_epoch: Epoch
    closed_epoch: Epoch | None


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the next receipt goes, and what it links to."""

    index: int
    previous: Digest | None


class RoundStore(Protocol):
    """Runs and their rounds, kept for good."""

    def run(self, run_id: RunId) -> RunRecord | None: ...

    def add_run(self, record: RunRecord) -> None: ...

    def close_run(self, run_id: RunId, *, epoch: Epoch) -> None:
        """Say that the run is closed, and since when."""
        ...

    def abandon(self, key: RoundKey) -> None:
        """Mark an open round abandoned."""
        ...

    def get(self, run_id: RunId, step: int) -> RoundRecord | None: ...

    def all(self, run_id: RunId | None) -> tuple[RoundRecord, ...]:
        """Rounds in the order they were opened, without evidence."""
        ...

    def open(self, record: RoundRecord) -> None: ...

    def seal(
        self,
        record: RoundRecord,
        *,
        sealed_at: datetime,
        index: int,
        request: Digest,
        admitted: tuple[tuple[SpiffeId, Candidate], ...],
    ) -> None:
        """Turn an open round into `record`, sealed, with the evidence of what it admitted."""
        ...

    def seal_request(self, run_id: RunId, step: int) -> Digest | None:
        """What the round was sealed for: see `fltrust.rounds.machine.request_digest`."""
        ...

    def cohort_of(self, run_id: RunId) -> tuple[SpiffeId, ...]:
        """Every participant in any cohort of the run, each once."""
        ...


class RoundLog(Protocol):
    """The chain of receipts. A transparency log can take its place behind this port."""

    @property
    def head(self) -> LogHead:
        """In a writing transaction it stays the head until the commit."""
        ...

    def append(self, receipt: bytes, *, index: int, payload: Digest) -> None:
        """Append the receipt (`SignedStatement` bytes) at the head's index; `payload` is the SHA-256
        of its payload, which the next receipt links to. Another index raises `Conflict`."""
        ...

    def read(self, start: int, *, limit: int) -> tuple[bytes, ...]:
        """Receipts from index `start` on, in order."""
        ...
