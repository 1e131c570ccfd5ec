"""What may be countersigned: every kind of statement, its checks, and what is recorded of it.

Checking is in two halves. `open_statement` reads the statement and what does not change (a sealed round),
outside of any lock; `Recordable.record` decides against the record and writes, inside the transaction that
logs the signature. Anything that is not one of these kinds is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from fltrust import strictjson
from fltrust.artifacts import oms
from fltrust.artifacts.inputs import UpdateInput
from fltrust.artifacts.keeping import AggregateRecord, ContributionRecord, ModelRecord
from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.provenance import (
    PROVENANCE_PREDICATE,
    BuildType,
    Provenance,
    SealedIn,
    require_agreement,
)
from fltrust.artifacts.vsa import VERIFIER, VSA_PREDICATE
from fltrust.coordinator.countersigner import Countersigned
from fltrust.coordinator.descent import recorded, refuse_hidden_parent, same_aggregates
from fltrust.coordinator.facts import SealedFacts, sealed_facts
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.lineage import MAX_STEPS
from fltrust.coordinator.logbook import run_subject
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.taint import TaintDesk
from fltrust.errors import Conflict, Malformed, PermissionDenied, Refusal, StatementRefused
from fltrust.identity import Digest, Role, RunId, SpiffeId
from fltrust.strictjson import Fields
from fltrust.updates.intoto import STATEMENT_TYPE, unknown_predicate

MAX_SUMMARY = 256 * 1024
"""Bytes of a verification summary."""


class Recordable(Protocol):
    """A statement that was read, and that its signer may make."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """What its entry is found by, beside its signer."""
        ...

    def check(self, work: Work) -> None:
        """Refuse what does not agree with the record, before anything is written."""
        ...

    def record(self, work: Work, signed: Countersigned, taints: TaintDesk) -> None:
        """Keep what it says; it is in the log already."""
        ...


def open_statement(payload: bytes, signer: SpiffeId, *, ledger: Ledger, names: PublicNaming) -> Recordable:
    """Read a statement of a kind that is known here, and hold it against what `signer` may say.

    1. A model (OMS v1.0).
    2. Provenance (SLSA v1) of one of our build types, of this domain, by its builder: see `_provenance`.
    3. A verification summary (SLSA VSA v1).

    Raises `StatementRefused`, `PermissionDenied`, `Malformed`, `Oversized`.
    """
    kind = _predicate_type(payload)
    if kind == oms.PREDICATE_TYPE:
        return _Model(oms.parse_statement(payload), signer)
    if kind == PROVENANCE_PREDICATE:
        return _provenance(payload, signer, ledger=ledger, names=names)
    if kind == VSA_PREDICATE:
        _check_summary(payload)
        return _Summary()
    raise unknown_predicate(kind)


@dataclass(frozen=True, slots=True)
class _Model:
    """A released model. What it says of its lineage must be what is recorded."""

    statement: oms.ModelStatement
    signer: SpiffeId

    @property
    def subjects(self) -> tuple[str, ...]:
        link = self.statement.lineage
        return () if link is None else (run_subject(link.run_id),)

    def check(self, work: Work) -> None:
        link = self.statement.lineage
        if link is None:
            return
        found = work.tx.aggregates.get(link.run_id, link.step)
        if found is None or (found.tensors, found.log_index, Digest.sha256_of(found.bundle)) != (
            link.aggregate,
            link.log_index,
            link.bundle,
        ):
            raise _refused(
                f"step {link.step} of run {int(link.run_id)} as it is recorded", "another aggregate"
            )
        steps = len(work.tx.aggregates.ancestry(found.place, limit=MAX_STEPS))
        if link.count != steps:
            raise _refused(f"a lineage of {steps} statements", f"one of {link.count}")

    def record(self, work: Work, signed: Countersigned, taints: TaintDesk) -> None:
        link, statement = self.statement.lineage, self.statement
        sets = tuple(dict.fromkeys(statement.tensor_sets.values()))
        record = ModelRecord(
            name=statement.name,
            subject=statement.subject,
            tensors=sets,
            aggregate=None if link is None else StepOfRun(link.run_id, link.step),
            signer=self.signer,
            log_index=signed.log_index,
            bundle=signed.bundle,
            recorded_at=work.now,
        )
        work.tx.models.add(record)
        places = [] if record.aggregate is None else [record.aggregate]
        places += [found.place for found in work.tx.aggregates.by_tensors(*sets)]  # whether it says so or not
        taints.inherit_model(work, record, dict.fromkeys(places))


@dataclass(frozen=True, slots=True)
class _Summary:
    """A verdict about a model: logged, and nothing of it is kept elsewhere."""

    @property
    def subjects(self) -> tuple[str, ...]:
        return ()

    def check(self, work: Work) -> None:
        del work

    def record(self, work: Work, signed: Countersigned, taints: TaintDesk) -> None:
        del work, signed, taints


@dataclass(frozen=True, slots=True)
class _Aggregate:
    """An aggregate by its provenance. `facts` are those of the sealed round; None for an initial model."""

    said: Provenance
    facts: SealedFacts | None
    names: PublicNaming

    @property
    def place(self) -> StepOfRun:
        return StepOfRun(self.said.run_id, self.said.step)

    @property
    def subjects(self) -> tuple[str, ...]:
        found = [run_subject(self.said.run_id)]
        if self.said.tainted is not None:
            found.append(run_subject(self.said.tainted.run_id))
        return tuple(found)

    def check(self, work: Work) -> None:
        """1. No other aggregate of this step is recorded (`Conflict`, ``aggregate-recorded``).
        2. A run is its owner's; a replay is a run of its own, that nobody opened.
        3. Every aggregate that is named is recorded, as it is named, and none is hidden.
        """
        said, tx = self.said, work.tx
        if tx.aggregates.get(said.run_id, said.step) is not None:  # 1.
            raise Conflict(
                f"the aggregate of step {said.step} of run {int(said.run_id)} is recorded already",
                reason="aggregate-recorded",
            )
        run = tx.rounds.run(said.run_id)  # 2.
        if said.is_replay and run is not None:
            raise Conflict(f"expected a run of its own for a replay, run {int(said.run_id)} was opened")
        if run is not None and run.aggregator != said.builder:
            raise _not_yours(said.run_id, run.aggregator, said.builder)
        if said.previous is not None:  # 3.
            recorded(tx, said.previous, what="the model before")
            if self.facts is not None and not said.is_replay:
                refuse_hidden_parent(tx, self.facts.models, said.previous)
        if said.tainted is not None:
            recorded(tx, said.tainted, what="the tainted aggregate")

    def record(self, work: Work, signed: Countersigned, taints: TaintDesk) -> None:
        said, tx, before = self.said, work.tx, self.said.previous
        record = AggregateRecord(
            run_id=said.run_id,
            step=said.step,
            round=said.round,
            tensors=said.tensors,
            model=said.model,
            previous=None if before is None else before.model,
            log_index=signed.log_index,
            bundle=signed.bundle,
            recorded_at=work.now,
            parent=None if before is None else StepOfRun(before.run_id, before.step),
            same_as=same_aggregates(tx, tensors=said.tensors, model=said.model),
        )
        tx.aggregates.add(record)
        contributions = self._contributions(work)
        if said.is_replay:
            tx.contributions.add_all(contributions)
        taints.inherit(work, record, contributions)

    def _contributions(self, work: Work) -> tuple[ContributionRecord, ...]:
        """Who is in it: of a round, those whom it admitted; of a replay, those who were kept."""
        if self.facts is None:
            return ()
        found = work.tx.contributions.of_round(self.facts.facts.run_id, self.facts.facts.step)
        if not self.said.is_replay:
            return found
        kept = {update.update for update in self.said.updates}
        return tuple(
            replace(item, run_id=self.said.run_id, step=self.said.step)
            for item in found
            if item.update in kept
        )


def _provenance(payload: bytes, signer: SpiffeId, *, ledger: Ledger, names: PublicNaming) -> _Aggregate:
    """Provenance in its one byte form.

    1. It is of this domain, and its builder is who signs.
    2. An initial model names no round.
    3. A federated round is one that the builder sealed, and says what the receipt says
       (`require_agreement`).
    4. A replay is of a sealed round: all of its updates but those of the names left out; the builder owned
       the run, or is a signer.
    """
    said = Provenance.from_payload(payload)
    if said.domain != signer.domain or said.builder != signer:  # 1.
        raise _refused(f"provenance of {signer.domain} by {signer}", f"{said.domain}, {said.builder}")
    if said.is_initial:  # 2.
        if signer.role is not Role.AGGREGATOR:
            raise PermissionDenied(f"expected an aggregator to state an initial model, got {signer}")
        return _Aggregate(said, None, names)
    round_of = said.tainted if said.tainted is not None else said
    with ledger.reading() as tx:
        record = tx.rounds.get(round_of.run_id, round_of.step)
    if record is None:
        raise _refused("a sealed round", f"step {round_of.step} of run {int(round_of.run_id)}, never opened")
    sealed = sealed_facts(record, names)
    if signer != sealed.aggregator and not (said.is_replay and signer.role is Role.SIGNER):
        raise _not_yours(round_of.run_id, sealed.aggregator, signer)
    if said.build_type is BuildType.FEDERATED_ROUND:  # 3.
        require_agreement(said, sealed.facts)
    else:  # 4.
        _require_replay(said, sealed)
    return _Aggregate(said, sealed, names)


def _require_replay(said: Provenance, sealed: SealedFacts) -> None:
    """Raise `StatementRefused` unless a replay says what the round says, less the names left out."""
    facts, before = sealed.facts, said.previous
    if before is None or said.round != facts.round:
        raise _refused(f"a replay of round {facts.round}", f"one of round {said.round}")
    if said.sealed != SealedIn(facts.epoch, facts.receipt, facts.log_index):
        raise _refused("the round's own receipt, epoch and place in the log", "another round's")
    left_out = set(said.without)
    kept = {UpdateInput.of(item) for item in facts.contributions if item.public_name not in left_out}
    if {replace(update, examples=None) for update in said.updates} != kept:
        raise _refused(f"the {len(kept)} updates of the round that are not left out", "others")
    if (said.trained_from or before.model) != facts.trained_from:
        raise _refused(f"training from {facts.trained_from}, as instructed", "another model")


def _check_summary(payload: bytes) -> None:
    """A verification summary of ours: about one thing, with a verdict."""
    fields = Fields(strictjson.decode(payload, limit=MAX_SUMMARY, what="a summary"), "a summary")
    subjects, predicate = fields.objects("subject", limit=1), fields.object("predicate")
    if not subjects:
        raise Malformed("expected one subject in a verification summary, got none")
    Digest.parse("sha256:" + subjects[0].object("digest").text("sha256", limit=64))
    verifier, verdict = (
        predicate.object("verifier").text("id", limit=512),
        predicate.any("verificationResult"),
    )
    if verifier != VERIFIER or verdict not in ("PASSED", "FAILED"):
        raise _refused(f"a verdict by {VERIFIER}", f"{str(verdict)[:40]!r} by {verifier[:80]!r}")


def _predicate_type(payload: bytes) -> str:
    """What kind of statement it claims to be; how to read it is decided after that."""
    value = strictjson.decode_any(payload, limit=len(payload), what="a statement")
    fields = Fields(value, "a statement")
    if fields.text("_type", limit=128) != STATEMENT_TYPE:
        raise Malformed("expected an in-toto statement of version 1, got another")
    return fields.text("predicateType", limit=256)


def _not_yours(run_id: RunId, owner: SpiffeId, signer: SpiffeId) -> PermissionDenied:
    return PermissionDenied(f"run {int(run_id)} belongs to {owner}, {signer} signed a statement about it")


def _refused(expected: str, got: str) -> StatementRefused:
    return StatementRefused(f"expected {expected}, got {got}", reason=Refusal.WRONG_MODEL)
