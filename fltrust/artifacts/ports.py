"""What signing and lineage ask of the coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fltrust.identity import Digest, Epoch, RunId, SpiffeId


class EntryKind(StrEnum):
    """How a signature stands in the log: which Rekor entry type the bundle carries."""

    HASHEDREKORD = "hashedrekord-0.0.2"
    DSSE = "dsse-0.0.1"
    """With a signed entry timestamp, for verifiers that know Rekor v1 alone."""


class SigningDesk(Protocol):
    """The coordinator as a small private Sigstore. Each call is durable when it returns."""

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        """Issue a code-signing certificate to the caller's own name for the request's key; the chain in
        DER, leaf first, without the root. It lives for minutes."""
        ...

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        """Timestamp and log the caller's signature over an in-toto statement; the Sigstore bundle (JSON).

        `envelope` is DSSE JSON with one signature by the key of `certificate`, which `certify_signer`
        gave to this caller and which is still valid. What the statement says is recorded: a model
        (OMS), or the aggregate of a round that the caller sealed (SLSA provenance), which must agree
        with the receipt. The same envelope again gives the same bundle.
        """
        ...


@dataclass(frozen=True, slots=True)
class Contribution:
    """One admitted update as lineage states it. `public_name` is the SPIFFE ID or a pseudonym."""

    participant: SpiffeId
    public_name: str
    update: Digest
    certificate: Digest


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What the provenance of a sealed round's aggregate must agree with."""

    run_id: RunId
    step: int
    round: int
    epoch: Epoch
    log_index: int
    receipt: Digest
    trained_from: Digest
    """Model digest (`fltrust.updates.digest`) that the round's instructions state."""
    opened_at: datetime
    sealed_at: datetime
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class StepOfRun:
    run_id: RunId
    step: int


@dataclass(frozen=True, slots=True)
class SpoiltRound:
    run_id: RunId
    step: int
    round: int
    log_index: int
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class SpoiltAggregate:
    """`is_direct` is False where it only descends from an aggregate that contains the updates."""

    run_id: RunId
    step: int
    round: int
    tensors: Digest
    log_index: int
    is_direct: bool


@dataclass(frozen=True, slots=True)
class SpoiltModel:
    """A released model; `subject` is the SHA-256 that its signature names."""

    name: str
    subject: Digest
    log_index: int
    is_direct: bool


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """Everything that contains a participant's updates from a time on, across runs."""

    participant: SpiffeId
    since: datetime
    rounds: tuple[SpoiltRound, ...]
    aggregates: tuple[SpoiltAggregate, ...]
    models: tuple[SpoiltModel, ...]


class LineageArchive(Protocol):
    """What the coordinator keeps of where models come from."""

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        """For the run's owner; `NotFound` if the round was not sealed."""
        ...

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        """Bundles of provenance statements, from the aggregate asked for back to the initial model. A
        digest is that of a canonical tensor set (`fltrust.artifacts.tensors`)."""
        ...

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius: ...

    def trust_file(self) -> bytes:
        """Trusted root and status: see `fltrust.artifacts.trustfile`."""
        ...
