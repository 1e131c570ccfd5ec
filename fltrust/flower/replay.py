"""Making a run's model again without one participant's updates, from the updates that were retained.

A replay goes as far as it can vouch for: through the rounds before the first update that is left out, and
that one round again without it. What the others sent later was trained from a model that held it, so it goes
too: nothing in the repaired model depends on what was left out. Train on from there.

With `all_rounds` the later rounds are made again as well, from the others' updates as they were signed. Then
whatever these took over from a poisoned model stays in: after a gross attack that is everything.

Each new aggregate is stated with build type ``…:replayed-round:v1``, in a run id of the replay's own: the
updates that were kept, the sealed round that admitted them, and the tainted aggregate that it stands in for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg, Strategy

from fltrust.agent.leaf import SigningLeaf
from fltrust.agent.recorder import read_provenance
from fltrust.artifacts.inputs import ModelInput
from fltrust.artifacts.ports import SigningDesk, StepOfRun
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.clock import Clock
from fltrust.errors import Conflict, EvidenceInvalid, EvidenceMissing, Malformed, NotFound
from fltrust.flower.rebuild import Rebuilder
from fltrust.flower.retained import open_round
from fltrust.flower.retention import INITIAL
from fltrust.identity import Digest, Role, RunId, SpiffeId
from fltrust.keys.recovery import RecoveryKey
from fltrust.rounds.types import RoundRecord, RoundStatus
from fltrust.updates import Content, Phase, SignedStatement, UpdateStatement, Verifier

_log = logging.getLogger("fltrust.flower")

SignProvenance = Callable[[Provenance], tuple[bytes, int]]
"""Signs a statement and has it countersigned; gives the bundle and its place in the log."""


def signing_at(desk: SigningDesk, *, clock: Clock) -> SignProvenance:
    """Sign with keys of this process, certified and countersigned at the coordinator."""
    leaf = SigningLeaf(desk, clock=clock)

    def sign(said: Provenance) -> tuple[bytes, int]:
        bundle = leaf.countersigned(said.to_payload())
        return bundle, read_provenance(bundle)[1]

    return sign


class WrittenRecord(Protocol):
    """What a replay reads of the coordinator: as an operator may, or the run's aggregator."""

    def list_rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]: ...

    def get_round(self, run_id: RunId, step: int) -> RoundRecord: ...

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """A round made again. `kept` and `dropped` are public names; `bundle` is None if none was signed."""

    step: int
    round: int
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    tensors: Digest
    bundle: bytes | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The repaired model. `steps` are those that differ from the run's own, in order (none where nothing was
    left of a round: then the model is the run's own before it); `reproduced` counts the rounds before them,
    whose aggregates came out as they were recorded."""

    arrays: ArrayRecord
    steps: tuple[ReplayedStep, ...]
    reproduced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What to make again, from what, and how.

    `without` is left out from its first update on, or from its first one that was signed at `since` or later.
    `make_strategy` makes the run's own strategy, settings and all. `sign` is None for a model without
    provenance; `builder` is who signs, `new_run_id` the replay's own run, which nobody opened.
    """

    run_id: RunId
    without: SpiffeId
    record: WrittenRecord
    verifier: Verifier
    folder: Path
    key: RecoveryKey
    builder: SpiffeId
    new_run_id: RunId
    now: Callable[[], datetime]
    make_strategy: Callable[[], Strategy] = FedAvg
    since: datetime | None = None
    sign: SignProvenance | None = None
    all_rounds: bool = False

    def run(self) -> Replayed:
        """Make the model again.

        1. The run's provenance is read from the coordinator: its last aggregate, back to its first arrays.
        2. The retained arrays are those that it began with.
        3. For each round: every update that its provenance names was retained; each is the very content that
           a statement in the round's record was signed over, whose signature, certificate and signer verify
           (`Verifier.open`, as of the seal).
        4. Until something is left out, the strategy gives the very aggregate that was recorded. Otherwise it
           is another strategy, or one that cannot be repeated (noise): `Conflict` (``not-reproduced``).
        5. Then what is left is aggregated, and stated. A round of which nothing is left is passed over: the
           model stays as it was. That is the end, unless `all_rounds`.

        `NotFound` where nothing is to be left out, `EvidenceMissing` where something was not retained,
        `EvidenceInvalid` or `Tampered` where it is not what was signed.
        """
        first, *others = self._chain()  # 1
        model = Rebuilder(self.make_strategy, self.run_id, self._initial_arrays(first.said))  # 2
        if (model.tensors, model.model) != (first.said.tensors, first.said.model):
            raise _other_beginning()
        progress = _Progress(model, previous=first.as_input())
        for recorded in others:
            if progress.left_out and not self.all_rounds:
                break
            if recorded.said.is_initial:
                model.begin_anew()
                if not progress.steps:
                    progress.previous = recorded.as_input()
            else:
                self._round(recorded, progress)
        if not progress.left_out:
            when = "" if self.since is None else f" that was signed since {self.since}"
            raise NotFound(f"no round of run {int(self.run_id)} holds an update of {self.without}{when}")
        return Replayed(model.arrays, tuple(progress.steps), progress.reproduced)

    def _round(self, recorded: _Recorded, progress: _Progress) -> None:
        said, model = recorded.said, progress.model
        record = self.record.get_round(self.run_id, said.step)
        updates = self._updates(said, record)  # 3
        dropped = {name for name, update in updates.items() if self._is_out(update, progress)}
        kept = [update.content for name, update in updates.items() if name not in dropped]
        progress.left_out |= dropped
        if not kept:
            _log.warning("round %d is passed over: nothing is left of it", said.round)
            model.pass_over(said.round)
            return
        model.aggregate(said.round, kept, cohort=len(record.cohort))
        if progress.left_out:  # 5
            self._state(recorded, progress, names=updates.keys() - dropped)
        elif model.tensors != said.tensors:  # 4
            raise Conflict(
                f"expected round {said.round} to come out as it was recorded, another model came out",
                reason="not-reproduced",
                hint="give the run's own strategy, with its settings, by --strategy module:function",
            )
        else:
            progress.previous, progress.reproduced = recorded.as_input(), progress.reproduced + 1

    def _is_out(self, update: _SignedUpdate, progress: _Progress) -> bool:
        is_late = self.since is None or update.signed_at >= self.since or bool(progress.left_out)
        return update.participant == self.without and is_late

    def _state(self, recorded: _Recorded, progress: _Progress, *, names: set[str]) -> None:
        said, tensors = recorded.said, progress.model.tensors
        bundle = None
        if self.sign is not None:
            statement = self._statement(recorded, progress, names)
            bundle, index = self.sign(statement)
            progress.previous = statement.as_input(log_index=index)
        every = (update.public_name for update in said.updates)
        kept, out = tuple(sorted(names)), tuple(sorted(set(every) - names))
        progress.steps.append(ReplayedStep(said.step, said.round, kept, out, tensors, bundle))

    def _statement(self, recorded: _Recorded, progress: _Progress, names: set[str]) -> Provenance:
        said, previous, now = recorded.said, progress.previous, self.now()
        if said.previous is None:
            raise Malformed(f"expected step {said.step} to name the model before it, it names none")
        trained_from = said.trained_from or said.previous.model
        return Provenance(
            build_type=BuildType.REPLAYED_ROUND,
            domain=said.domain,
            run_id=self.new_run_id,
            step=said.step,
            round=said.round,
            phase=Phase.TRAIN,
            tensors=progress.model.tensors,
            model=progress.model.model,
            app=said.app,
            builder=self.builder,
            previous=previous,
            updates=tuple(update for update in said.updates if update.public_name in names),
            sealed=said.sealed,
            started_at=now,
            finished_at=now,
            trained_from=None if trained_from == previous.model else trained_from,
            tainted=recorded.as_input(),
            without=tuple(sorted(progress.left_out)),
        )

    def _chain(self) -> list[_Recorded]:
        """The run's own statements, the first arrays first."""
        for record in sorted(self.record.list_rounds(self.run_id), key=lambda r: -r.key.step):
            if record.key.phase is not Phase.TRAIN or record.status is not RoundStatus.SEALED:
                continue
            try:
                bundles = self.record.find_lineage(StepOfRun(self.run_id, record.key.step))
                found = [_Recorded(*read_provenance(bundle)) for bundle in bundles]
            except NotFound:
                continue
            mine = [recorded for recorded in found if recorded.said.run_id == self.run_id]
            if mine and mine[-1].said.is_initial:
                return mine[::-1]
        raise EvidenceMissing(
            f"expected a recorded aggregate of run {int(self.run_id)}, found none",
            reason="lineage-missing",
            hint="was it trained without lineage (TrustPolicy(lineage=False))?",
        )

    def _initial_arrays(self, said: Provenance) -> Content:
        found, *others = open_round(self.folder, self.run_id, said.step, key=self.key)
        if others or found.participant != INITIAL or found.update != said.tensors:
            raise _other_beginning()
        return found.content

    def _updates(self, said: Provenance, record: RoundRecord) -> Mapping[str, _SignedUpdate]:
        """What the strategy got in this round, by public name and in its order, each as it was signed."""
        names = {update.update: update.public_name for update in said.updates}
        signed, found = self._signed(said, record), {}
        for retained in open_round(self.folder, self.run_id, said.step, key=self.key):
            name, statement = names.get(retained.update), signed.get(retained.update)
            if name is None or statement is None or statement.content != retained.digest:
                raise EvidenceInvalid(
                    f"expected an update that step {said.step} admitted, as it was signed; got another, kept "
                    f"as one of {retained.participant}",
                    reason="not-admitted",
                )
            found[name] = _SignedUpdate(statement.participant, statement.signed_at, retained.content)
        if len(found) != len(names):
            raise EvidenceMissing(
                f"expected {len(names)} updates retained of step {said.step}, found {len(found)}",
                reason="not-retained",
            )
        return found

    def _signed(self, said: Provenance, record: RoundRecord) -> Mapping[Digest, UpdateStatement]:
        """The statements in the round's record, by the digests that its provenance names."""
        found: dict[Digest, UpdateStatement] = {}
        for candidate in record.evidence:
            opened = self.verifier.open(
                SignedStatement.from_bytes(candidate.update),
                at=said.started_at,
                role=Role.PARTICIPANT,
                judge=_admitted,
            )
            statement = opened.statement
            if not isinstance(statement, UpdateStatement):
                raise EvidenceInvalid("expected updates in the record of a round, got another statement")
            if (statement.run_id, statement.step) == (self.run_id, said.step):
                found[opened.payload_digest] = statement
        return found


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A statement of the run, and where it stands in the log."""

    said: Provenance
    log_index: int

    def as_input(self) -> ModelInput:
        return self.said.as_input(log_index=self.log_index)


@dataclass(frozen=True, slots=True)
class _SignedUpdate:
    """An update that was retained, as its statement names it."""

    participant: SpiffeId
    signed_at: datetime
    content: Content


class _Progress:
    """How far a replay has come. `left_out` are the public names that were; while empty, nothing differs."""

    __slots__ = ("left_out", "model", "previous", "reproduced", "steps")

    def __init__(self, model: Rebuilder, *, previous: ModelInput) -> None:
        self.model = model
        self.previous = previous
        self.left_out: set[str] = set()
        self.steps: list[ReplayedStep] = []
        self.reproduced = 0


def _other_beginning() -> EvidenceInvalid:
    return EvidenceInvalid("expected the retained arrays that the run began with, got others")


def _admitted(_certificate: object) -> None:
    """Whether a signer stood well was decided at the seal, and is the receipt's word."""
