"""A round as the coordinator sees it: opened for a cohort, then sealed once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fltrust.identity import Digest, Epoch, KeyId, NodeId, RunId, SpiffeId
from fltrust.rounds.logged import LogEvidence
from fltrust.updates.statement import Phase


@dataclass(frozen=True, slots=True, order=True)
class RoundKey:
    """One exchange of a run. `step` counts the exchanges of a run from 1 and never repeats;
    `round` and `phase` are what the strategy calls it."""

    run_id: RunId
    step: int
    round: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class CohortMember:
    """One participant that was sent an instruction; `instruction` is the SHA-256 of its payload."""

    participant: SpiffeId
    node_id: NodeId
    node_key: KeyId
    instruction: Digest


@dataclass(frozen=True, slots=True)
class Candidate:
    """An update that the aggregator verified and offers for the seal.

    `instruction` and `update` are `SignedStatement` bytes; the coordinator verifies both again. `second` is a
    `SecondSignature` over the update's payload, where the aggregator demanded one and verified it: the
    coordinator keeps it, and knows no root to verify it under.
    """

    instruction: bytes
    update: bytes
    second: bytes | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """`refused` are cohort members that do not stand well at `epoch`: do not send to them."""

    epoch: Epoch
    refused: tuple[tuple[SpiffeId, str], ...]


class RoundStatus(StrEnum):
    OPEN = "open"
    SEALED = "sealed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as stored. `receipt` is the coordinator's `SignedStatement` bytes once sealed;
    `evidence` holds, for each admitted update, its instruction and update as `Candidate`."""

    key: RoundKey
    status: RoundStatus
    aggregator: SpiffeId
    opened_at: datetime
    opened_epoch: Epoch
    cohort: tuple[CohortMember, ...]
    receipt: bytes | None
    evidence: tuple[Candidate, ...]


class RoundAuthority(Protocol):
    """What an aggregator asks of the coordinator. Each call is durable when it returns."""

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        """Open a round (and with its first round the run). Raises `Conflict` on a step opened before."""
        ...

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        """Decide, in one transaction, which updates the round admits; return the signed receipt.

        The receipt (`SealedRoundStatement`) names the epoch, what was admitted, and
        what was refused and why (the aggregator's own refusals and the coordinator's).
        Sealing the same key again with the same candidates returns the same receipt;
        with others it raises `Conflict`.
        """
        ...

    def close_run(self, run_id: RunId) -> None:
        """No more rounds of this run; agents stop signing for it. Idempotent."""
        ...


class RoundArchive(Protocol):
    """The written record."""

    def list_rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]: ...

    def get_round(self, run_id: RunId, step: int) -> RoundRecord: ...

    def prove_rounds(self, run_id: RunId) -> LogEvidence:
        """Where the run's sealed rounds stand in the log, under a checkpoint of now; `NotFound` for a run
        without rounds."""
        ...
