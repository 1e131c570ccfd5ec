"""Where an aggregate comes from: SLSA provenance v1 inside an in-toto v1 statement, in one byte form.

    subject               aggregate/<domain>/<run>/<step>   sha256: tensor set, fltrust-model-v1: model digest
    buildType             urn:fltrust:build:initial-model:v1     the arrays that a run began with
                          urn:fltrust:build:federated-round:v1   what a strategy made of a sealed round
                          urn:fltrust:build:replayed-round:v1    the same round again, without some updates
    externalParameters    runId, step, round, phase, app {fabId, fabVersion, fabHash} or null, without […]
    internalParameters    epoch, receipt, logIndex of the sealed round; empty for an initial model
    resolvedDependencies  model/<domain>/<run>/<step>   the aggregate before, logIndex of its provenance
                          trained-from                  the model that went out, where it is not that one
                          tainted/<domain>/<run>/<step> the aggregate that a replay stands in for
                          update/<public name>          one admitted update: certificate, examples

An initial model has a `model/…` dependency only where it is an aggregate of another run (or of an earlier
strategy of this one). A replay is a run of its own, with a run id of its own; its sealed rounds are those of
the run whose aggregate is tainted. A public name is a participant's SPIFFE ID or ``pseudonym:<32 hex>``.
64-bit numbers are decimal strings. A payload and its dataclass determine each other:
`Provenance.from_payload` refuses what `to_payload` would not have written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from fltrust import strictjson
from fltrust.artifacts.inputs import (
    AppVersion,
    ModelInput,
    SealedIn,
    UpdateInput,
    check_public_name,
    digests_fields,
    digests_from,
    examples_text,
    parse_place,
    place_text,
)
from fltrust.artifacts.ports import RoundFacts
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed, Oversized, Refusal, StatementRefused
from fltrust.identity import Digest, Role, RunId, SpiffeId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.updates.digest import MODEL_ALGORITHM
from fltrust.updates.intoto import (
    SHA256,
    STATEMENT_TYPE,
    Phase,
    check_count,
    check_digest,
    check_same,
    check_times,
    unknown_predicate,
)
from fltrust.updates.receipt import MAX_COHORT

__all__ = [
    "MAX_PROVENANCE_BYTES",
    "PROVENANCE_PREDICATE",
    "AppVersion",
    "BuildType",
    "ModelInput",
    "Provenance",
    "SealedIn",
    "UpdateInput",
    "examples_text",
    "require_agreement",
]

PROVENANCE_PREDICATE = "https://slsa.dev/provenance/v1"
MAX_PROVENANCE_BYTES = 6 * 2**20
"""Of a statement's payload: a cohort of `MAX_COHORT` fits."""

_MODEL, _TRAINED_FROM, _TAINTED, _UPDATE = "model", "trained-from", "tainted", "update"
_SUBJECT = "aggregate"
_MAX_NAME = 512


class BuildType(StrEnum):
    """What made an aggregate."""

    INITIAL_MODEL = "urn:fltrust:build:initial-model:v1"
    FEDERATED_ROUND = "urn:fltrust:build:federated-round:v1"
    REPLAYED_ROUND = "urn:fltrust:build:replayed-round:v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The statement. `builder` made the aggregate and signs: an aggregator, or for a replay a signer too.

    `previous` is the aggregate before. `trained_from` is the model digest that the instructions stated where
    it is not `previous`'s, as with strategies that send out something else than their model. `tainted` and
    `without` (public names, in order) belong to a replay alone.
    """

    predicate_type: ClassVar[str] = PROVENANCE_PREDICATE

    build_type: BuildType
    domain: TrustDomain
    run_id: RunId
    step: int
    round: int
    phase: Phase
    tensors: Digest
    model: Digest
    app: AppVersion | None
    builder: SpiffeId
    previous: ModelInput | None
    updates: tuple[UpdateInput, ...]
    sealed: SealedIn | None
    started_at: datetime
    finished_at: datetime
    trained_from: Digest | None = None
    tainted: ModelInput | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_count(self.step, "step")
        check_count(self.round, "round")
        check_digest(self.tensors, SHA256, "tensors")
        check_digest(self.model, MODEL_ALGORITHM, "model")
        check_times(self.started_at, self.finished_at)
        makers = {Role.AGGREGATOR} | ({Role.SIGNER} if self.is_replay else set())
        if self.builder.domain != self.domain or self.builder.role not in makers:
            raise Malformed(f"expected a builder of {self.domain} that may make this, got {self.builder}")
        if self.trained_from is not None:
            check_digest(self.trained_from, MODEL_ALGORITHM, "trained-from")
            if self.previous is not None and self.trained_from == self.previous.model:
                raise Malformed("expected trained-from only where it is not the model before")
        self._check_parts()
        self._check_updates()

    def _check_parts(self) -> None:
        """Which parts a statement of this build type has."""
        has_round = self.sealed is not None and bool(self.updates)
        is_bare = self.sealed is None and not self.updates and self.trained_from is None
        if not (is_bare if self.is_initial else has_round):
            raise Malformed("expected a sealed round and its updates in all but an initial model")
        if not self.is_initial and (self.previous is None or self.step == 0 or self.phase is not Phase.TRAIN):
            raise Malformed("expected a round of training from step 1 on, and the model before it")
        if self.is_replay != (self.tainted is not None) or self.is_replay != bool(self.without):
            raise Malformed("expected a tainted aggregate and the names left out in a replay, nowhere else")
        before = self.previous
        if (
            self.build_type is BuildType.FEDERATED_ROUND
            and before is not None
            and before.run_id != self.run_id
        ):
            raise Malformed("expected a round to go on from a model of its own run")
        if self.tainted is not None and self.tainted.run_id == self.run_id:
            raise Malformed("expected a replay to be a run of its own")
        if before is not None and before.run_id == self.run_id and before.step >= self.step:
            raise Malformed(f"expected a model before step {self.step}, got that of step {before.step}")
        if self.is_initial and before is not None and before.tensors != self.tensors:
            raise Malformed("expected an initial model to be the aggregate that it is said to come from")

    def _check_updates(self) -> None:
        if max(len(self.updates), len(self.without)) > MAX_COHORT:
            raise Oversized(f"expected at most {MAX_COHORT} updates in an aggregate, got {len(self.updates)}")
        names = {update.public_name for update in self.updates}
        if len(names) != len(self.updates):
            raise Malformed("expected each participant once in an aggregate")
        for name in self.without:
            check_public_name(name)
        if names & set(self.without) or list(self.without) != sorted(set(self.without)):
            raise Malformed("expected the names left out in order, once, and among no updates")

    @property
    def is_initial(self) -> bool:
        return self.build_type is BuildType.INITIAL_MODEL

    @property
    def is_replay(self) -> bool:
        return self.build_type is BuildType.REPLAYED_ROUND

    @property
    def name(self) -> str:
        """The subject's name."""
        return place_text(_SUBJECT, self.domain, self.run_id, self.step)

    def as_input(self, *, log_index: int) -> ModelInput:
        """This aggregate as the next statement's `previous`; `log_index` is where its provenance stands."""
        return ModelInput(
            run_id=self.run_id, step=self.step, tensors=self.tensors, model=self.model, log_index=log_index
        )

    def to_payload(self) -> bytes:
        """The bytes to sign; `Oversized` past `MAX_PROVENANCE_BYTES`."""
        payload = strictjson.encode(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.name, "digest": digests_fields(self.tensors, self.model)}],
                "predicateType": PROVENANCE_PREDICATE,
                "predicate": {"buildDefinition": self._definition(), "runDetails": self._details()},
            }
        )
        if len(payload) > MAX_PROVENANCE_BYTES:
            raise Oversized(
                f"expected at most {MAX_PROVENANCE_BYTES} bytes of provenance, got {len(payload)}"
            )
        return payload

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read what `to_payload` writes; raises `Oversized`, `Malformed` or `StatementRefused`."""
        value = strictjson.decode(payload, limit=MAX_PROVENANCE_BYTES, what="provenance")
        fields = Fields(value, "provenance")
        kind, predicate = fields.text("_type", limit=128), fields.text("predicateType", limit=128)
        if kind != STATEMENT_TYPE or predicate != PROVENANCE_PREDICATE:
            raise unknown_predicate(predicate)
        statement = cls(**_subject(fields), **_predicate(fields.object("predicate")))
        check_same(statement.to_payload(), payload)
        return statement

    def _definition(self) -> dict[str, object]:
        return {
            "buildType": self.build_type,
            "externalParameters": {
                "runId": str(int(self.run_id)),
                "step": self.step,
                "round": self.round,
                "phase": self.phase,
                "app": None if self.app is None else self.app.to_fields(),
                "without": list(self.without),
            },
            "internalParameters": {} if self.sealed is None else self.sealed.to_fields(),
            "resolvedDependencies": self._dependencies(),
        }

    def _dependencies(self) -> list[object]:
        found: list[object] = []
        if self.previous is not None:
            found.append(self.previous.to_fields(_MODEL, self.domain))
        if self.trained_from is not None:
            found.append({"name": _TRAINED_FROM, "digest": {MODEL_ALGORITHM: self.trained_from.hex}})
        if self.tainted is not None:
            found.append(self.tainted.to_fields(_TAINTED, self.domain))
        return found + [update.to_fields(_UPDATE) for update in self.updates]

    def _details(self) -> dict[str, object]:
        return {
            "builder": {"id": str(self.builder)},
            "metadata": {
                "invocationId": f"{int(self.run_id)}/{self.step}",
                "startedOn": to_rfc3339(self.started_at),
                "finishedOn": to_rfc3339(self.finished_at),
            },
        }


def require_agreement(said: Provenance, facts: RoundFacts) -> None:
    """Raise `StatementRefused` unless a federated round's provenance says what the sealed round says.

    1. It is of this run, step and round, and names this receipt, epoch and place in the log.
    2. Its updates are those that were admitted, every one, by their public names and certificates.
    3. The model that the instructions state is the one before, or named as trained from.
    """
    if said.build_type is not BuildType.FEDERATED_ROUND or said.previous is None:
        raise _disagrees("expected the provenance of a federated round, got another build type")
    place = (facts.run_id, facts.step, facts.round, SealedIn(facts.epoch, facts.receipt, facts.log_index))
    if (said.run_id, said.step, said.round, said.sealed) != place:  # 1
        raise _disagrees(f"expected step {facts.step} of run {facts.run_id} as it was sealed, got another")
    admitted = {UpdateInput.of(contribution) for contribution in facts.contributions}
    if {replace(update, examples=None) for update in said.updates} != admitted:  # 2
        raise _disagrees(f"expected the {len(admitted)} updates that were admitted, got others")
    if (said.trained_from or said.previous.model) != facts.trained_from:  # 3
        raise _disagrees(f"expected training from {facts.trained_from}, as instructed, got another model")


# What reading leaves open (fields that are left over, other names for the same place), the byte form settles.


def _subject(fields: Fields) -> dict[str, Any]:
    subjects = fields.objects("subject", limit=1)
    if not subjects:
        raise Malformed("expected one subject in provenance, got none")
    domain, _, _ = parse_place(subjects[0].text("name", limit=_MAX_NAME), _SUBJECT)
    tensors, model = digests_from(subjects[0].object("digest"))
    return {"domain": domain, "tensors": tensors, "model": model}


def _predicate(fields: Fields) -> dict[str, Any]:
    definition, details = fields.object("buildDefinition"), fields.object("runDetails")
    build_type = definition.choice("buildType", BuildType)
    internal, metadata = definition.object("internalParameters"), details.object("metadata")
    return {
        "build_type": build_type,
        **_external(definition.object("externalParameters")),
        "sealed": None if build_type is BuildType.INITIAL_MODEL else SealedIn.from_fields(internal),
        **_inputs(definition.objects("resolvedDependencies", limit=MAX_COHORT + 3)),
        "builder": details.object("builder").spiffe_id("id"),
        "started_at": metadata.time("startedOn"),
        "finished_at": metadata.time("finishedOn"),
    }


def _external(fields: Fields) -> dict[str, Any]:
    app, without = fields.any("app"), fields.any("without")
    if not isinstance(without, list) or not all(isinstance(name, str) for name in without):
        raise Malformed("expected a list of public names as 'without' in provenance")
    return {
        "run_id": RunId(fields.decimal("runId", bits=64)),
        "step": fields.number("step"),
        "round": fields.number("round"),
        "phase": fields.choice("phase", Phase),
        "app": None if app is None else AppVersion.from_fields(Fields(app, "provenance, app")),
        "without": tuple(without),
    }


def _inputs(dependencies: list[Fields]) -> dict[str, Any]:
    found: dict[str, Any] = {"previous": None, "trained_from": None, "tainted": None}
    updates = []
    for dependency in dependencies:
        name = dependency.text("name", limit=_MAX_NAME)
        kind, _, rest = name.partition("/")
        if kind == _UPDATE:
            updates.append(UpdateInput.from_fields(rest, dependency))
        elif kind == _TRAINED_FROM:
            model = dependency.object("digest").text(MODEL_ALGORITHM, limit=64)
            found["trained_from"] = Digest.parse(f"{MODEL_ALGORITHM}:{model}")
        elif kind in (_MODEL, _TAINTED):
            place = "previous" if kind == _MODEL else "tainted"
            found[place] = ModelInput.from_fields(name, kind, dependency)
        else:
            raise Malformed(f"expected a dependency of a kind known here, got {name[:80]!r}")
    return found | {"updates": tuple(updates)}


def _disagrees(message: str) -> StatementRefused:
    return StatementRefused(message, reason=Refusal.WRONG_ROUND)
