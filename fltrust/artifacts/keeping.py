"""What signing and lineage need kept: aggregates, models, who contributed, taints, and signatures given.

Every method runs inside the caller's transaction: nothing is durable before it commits. Nothing is
changed or deleted once it is there; adding what is there already raises `Conflict`, unless it is said
that it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fltrust.artifacts.ports import StepOfRun
from fltrust.identity import Digest, Epoch, RunId, SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateRecord:
    """The model after one step of a run, as its signed provenance states it.

    `tensors` is the digest of the canonical tensor set, `model` and `previous` are model digests
    (`fltrust.updates.digest`) of it and of the model that the round trained from (None at step 0).
    `bundle` is the provenance's Sigstore bundle, `log_index` where it stands in the log.

    `parent` is the aggregate that the provenance states before it. `same_as` are those that it is known to
    come from without saying so: earlier aggregates of the same tensors.
    """

    run_id: RunId
    step: int
    round: int
    tensors: Digest
    model: Digest
    previous: Digest | None
    log_index: int
    bundle: bytes
    recorded_at: datetime
    parent: StepOfRun | None = None
    same_as: tuple[StepOfRun, ...] = ()

    @property
    def place(self) -> StepOfRun:
        return StepOfRun(self.run_id, self.step)


class AggregateStore(Protocol):
    """One aggregate for each step of a run. Records that are read come without `parent` and `same_as`."""

    def add(self, record: AggregateRecord) -> None: ...

    def get(self, run_id: RunId, step: int) -> AggregateRecord | None: ...

    def of_run(self, run_id: RunId) -> tuple[AggregateRecord, ...]:
        """Those of a run in the order of steps."""
        ...

    def by_tensors(self, *tensors: Digest) -> tuple[AggregateRecord, ...]:
        """Every aggregate of one of these tensor sets, across runs, the last recorded first.

        They come with an empty `bundle`.
        """
        ...

    def by_model(self, model: Digest) -> tuple[AggregateRecord, ...]:
        """The same by model digest."""
        ...

    def made_from(self, model: Digest) -> tuple[AggregateRecord, ...]:
        """Aggregates whose round trained from this model, in the order recorded."""
        ...

    def descendants(self, of: Iterable[StepOfRun]) -> tuple[AggregateRecord, ...]:
        """Those aggregates and all that come from them, stated or not, across runs, in the order recorded.

        For walking far: they come with an empty `bundle`.
        """
        ...

    def ancestry(self, of: StepOfRun, *, limit: int) -> tuple[StepOfRun, ...]:
        """That aggregate and those before it as provenance states them, the newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A released model: what was signed, by whom, and which aggregate it comes from, if it says so.

    `subject` is the SHA-256 that its signature names, `tensors` the digest of each file's tensor set.
    """

    name: str
    subject: Digest
    tensors: tuple[Digest, ...]
    aggregate: StepOfRun | None
    signer: SpiffeId
    log_index: int
    bundle: bytes
    recorded_at: datetime


class ModelStore(Protocol):
    """Released models by their position in the log; one may be signed more than once."""

    def add(self, record: ModelRecord) -> None: ...

    def get(self, log_index: int) -> ModelRecord | None: ...

    def by_subject(self, subject: Digest) -> tuple[ModelRecord, ...]: ...

    def by_tensors(self, tensors: Digest) -> tuple[ModelRecord, ...]:
        """Models that hold a file of these tensors."""
        ...

    def of_aggregate(self, run_id: RunId, step: int) -> tuple[ModelRecord, ...]:
        """Models that say they come from this step of a run."""
        ...

    def made_of(self, places: Iterable[StepOfRun], tensors: Iterable[Digest]) -> tuple[ModelRecord, ...]:
        """Models that say they come from one of these aggregates, or hold a file of these tensors.

        For walking far: they come with an empty `bundle` and without `tensors`.
        """
        ...

    def all(self) -> tuple[ModelRecord, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionRecord:
    """One update that a sealed round admitted: whose, signed when. `log_index` is the round's.

    `update` is the SHA-256 of the update statement's payload, `certificate` of the certificate.
    """

    run_id: RunId
    step: int
    participant: SpiffeId
    signed_at: datetime
    update: Digest
    certificate: Digest
    log_index: int


class ContributionStore(Protocol):
    """Who is in which round: written with every seal, asked by blast radius."""

    def add_all(self, records: Iterable[ContributionRecord]) -> None: ...

    def of_round(self, run_id: RunId, step: int) -> tuple[ContributionRecord, ...]:
        """In the order of the receipt."""
        ...

    def of(self, who: SpiffeId, *, since: datetime) -> tuple[ContributionRecord, ...]:
        """What `who` signed at `since` or later, across runs, in the order of the log."""
        ...


class TaintedKind(StrEnum):
    """What a taint is of."""

    AGGREGATE = "aggregate"
    """`Taint.key` is ``<run id>/<step>``, in decimal."""
    MODEL = "model"
    """`Taint.key` is the model's position in the log, in decimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Something holds updates that `cause` signed at `since` or later, or descends from what does.

    `epoch` is that of the revocation which says so, `log_index` the position of the taint's entry.
    """

    what: TaintedKind
    key: str
    cause: SpiffeId
    epoch: Epoch
    since: datetime
    is_direct: bool
    log_index: int


class TaintStore(Protocol):
    """Taints by what they are of. One thing can be tainted for several causes, and again by new knowledge."""

    def add(self, taint: Taint) -> bool:
        """Write it, unless this thing is tainted by this cause at this epoch already: then False."""
        ...

    def of(self, what: TaintedKind, key: str) -> tuple[Taint, ...]:
        """In the order of the log."""
        ...

    def all(self) -> tuple[Taint, ...]:
        """In the order of the log."""
        ...


class CountersignedStore(Protocol):
    """Bundles given out, by the SHA-256 of what was countersigned: the same again gives the same."""

    def get(self, request: Digest) -> bytes | None: ...

    def put(self, request: Digest, bundle: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's line under the checkpoint of `size` entries (C2SP tlog-cosignature)."""

    witness: str
    size: int
    line: str


class CosignatureStore(Protocol):
    """What witnesses signed."""

    def add(self, cosignature: Cosignature) -> None:
        """Keep it; the same witness and size again does nothing."""
        ...

    def at(self, size: int) -> tuple[Cosignature, ...]:
        """By name of the witness."""
        ...

    def newest_of(self, witness: str) -> Cosignature | None:
        """The one of the largest checkpoint."""
        ...

    def sizes(self, *, after: int = 0) -> tuple[int, ...]:
        """Sizes past `after` that anybody cosigned, ascending."""
        ...


@dataclass(frozen=True, slots=True)
class TrustMaterial:
    """A key or certificate that verifiers of what was signed have to know, for good.

    `kind` is the keeper's word, e.g. ``note-key`` or ``timestamp-authority``; `data` the DER of it.
    `not_after` of None: in use.
    """

    kind: str
    fingerprint: Digest
    data: bytes
    not_before: datetime
    not_after: datetime | None


class TrustMaterialStore(Protocol):
    """Everything that ever was in the trusted root, with its time."""

    def put(self, material: TrustMaterial) -> None:
        """Keep it. The same kind and fingerprint again updates nothing but `not_after`."""
        ...

    def all(self) -> tuple[TrustMaterial, ...]:
        """By kind, then by `not_before`."""
        ...
