"""What rounds need kept: runs and their rounds.

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
        receipt: bytes,
        request: Digest,
        admitted: tuple[tuple[SpiffeId, Candidate], ...],
    ) -> None:
        """Seal the open round `record`: its receipt, where that stands in the log, and the evidence of
        what it admitted."""
        ...

    def unlogged(self) -> tuple[RoundRecord, ...]:
        """Rounds that were sealed before there was a log, in the order of their seals, without evidence."""
        ...

    def places(self, run_id: RunId) -> tuple[int, ...]:
        """Where the sealed rounds of a run stand in the log, ascending."""
        ...

    def place(self, key: RoundKey, *, index: int) -> None:
        """Say where a round that had no place in the log stands now."""
        ...

    def seal_request(self, run_id: RunId, step: int) -> Digest | None:
        """What the round was sealed for: see `fltrust.rounds.machine.request_digest`."""
        ...

    def cohort_of(self, run_id: RunId) -> tuple[SpiffeId, ...]:
        """Every participant in any cohort of the run, each once."""
        ...
