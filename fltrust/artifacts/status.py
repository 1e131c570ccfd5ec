"""The status of a trust domain: who was revoked since when, and what counts as tainted because of it.

An in-toto statement with predicate ``urn:fltrust:statement:status:v1``, signed by the coordinator and
carried in the trust file; its subject is the trust domain at an epoch.

    {"epoch": n, "at": "…Z", "checkpoint": signed note or null,
     "revoked": [{"name", "at", "compromisedSince": "…Z" | null, "identityWide": bool,
                  "certificates": ["sha256:…"], "reason"}],
     "taintedAggregates": [{"tensors": "sha256:…", "runId": "…", "step": n, "isDirect": bool}],
     "taintedModels": [{"subject": "sha256:…", "name", "isDirect": bool}]}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.identity import Digest, Epoch, RunId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.updates import intoto
from fltrust.updates.intoto import STATEMENT_TYPE, check_same, unknown_predicate

STATUS_PREDICATE = "urn:fltrust:statement:status:v1"
MAX_STATUS = 12 * 2**20
_MAX_ITEMS = 200_000
_MAX_CHECKPOINT = 64 * 1024
_MAX_DIGEST = 192


@dataclass(frozen=True, slots=True)
class RevokedName:
    """One revocation. `name` is a public name; without `is_identity_wide` it is of `certificates` alone."""

    name: str
    at: datetime
    compromised_since: datetime | None
    is_identity_wide: bool
    certificates: frozenset[Digest]
    reason: str


@dataclass(frozen=True, slots=True)
class TaintedAggregate:
    """`is_direct` is False where it only descends from an aggregate with compromised updates in it."""

    tensors: Digest
    run_id: RunId
    step: int
    is_direct: bool


@dataclass(frozen=True, slots=True)
class TaintedModel:
    """`subject` is the SHA-256 that the model's statement names."""

    subject: Digest
    name: str
    is_direct: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What the coordinator says of its domain at `at`."""

    domain: TrustDomain
    epoch: Epoch
    at: datetime
    checkpoint: str | None = None
    revoked: tuple[RevokedName, ...] = ()
    tainted_aggregates: tuple[TaintedAggregate, ...] = ()
    tainted_models: tuple[TaintedModel, ...] = ()
    _by_name: dict[str, list[RevokedName]] = field(init=False, repr=False, compare=False)
    _aggregates: dict[Digest, TaintedAggregate] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, list[RevokedName]] = {}
        for item in self.revoked:
            by_name.setdefault(item.name, []).append(item)
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_aggregates", {item.tensors: item for item in self.tainted_aggregates})

    def revocation_of(self, name: str, certificate: Digest, *, signed_at: datetime) -> RevokedName | None:
        """The revocation that a signature by `name` at this time falls under, if there is one: it was made
        after the revocation, or after the time since which the name counts as compromised."""
        for item in self._by_name.get(name, ()):
            if not item.is_identity_wide and certificate not in item.certificates:
                continue
            if signed_at >= min(item.at, item.compromised_since or item.at):
                return item
        return None

    def taint_of(self, tensors: Iterable[Digest], subject: Digest) -> TaintedAggregate | TaintedModel | None:
        """The taint of a model with these tensor sets (its own and those it comes from) and this subject."""
        for digest in tensors:
            if digest in self._aggregates:
                return self._aggregates[digest]
        return next((item for item in self.tainted_models if item.subject == subject), None)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read the statement that `to_payload` writes; `Malformed`, or `StatementRefused` for another."""
        fields = Fields(strictjson.decode(payload, limit=MAX_STATUS, what="a status"), "a status")
        kind, predicate_type = fields.text("_type", limit=128), fields.text("predicateType", limit=128)
        if kind != STATEMENT_TYPE or predicate_type != STATUS_PREDICATE:
            raise unknown_predicate(predicate_type)
        subjects = fields.objects("subject", limit=1)
        predicate = fields.object("predicate")
        fields.done()
        name = subjects[0].text("name", limit=512) if subjects else ""
        status = cls(
            domain=TrustDomain(name.partition("/")[2].rpartition("/")[0]),
            epoch=Epoch(predicate.decimal("epoch", bits=63)),
            at=predicate.time("at"),
            checkpoint=_text_or_none(predicate, "checkpoint", limit=_MAX_CHECKPOINT),
            revoked=tuple(_revoked(item) for item in predicate.objects("revoked", limit=_MAX_ITEMS)),
            tainted_aggregates=tuple(
                _aggregate(item) for item in predicate.objects("taintedAggregates", limit=_MAX_ITEMS)
            ),
            tainted_models=tuple(
                _model(item) for item in predicate.objects("taintedModels", limit=_MAX_ITEMS)
            ),
        )
        predicate.done()
        check_same(status.to_payload(), payload)
        return status

    def to_payload(self) -> bytes:
        """The statement in its one byte form."""
        predicate = self._predicate()
        name = f"status/{self.domain}/{int(self.epoch)}"
        return intoto.encode(
            STATUS_PREDICATE, name, Digest.sha256_of(strictjson.encode(predicate)), predicate
        )

    def _predicate(self) -> dict[str, object]:
        return {
            "epoch": str(int(self.epoch)),
            "at": to_rfc3339(self.at),
            "checkpoint": self.checkpoint,
            "revoked": [
                {
                    "name": item.name,
                    "at": to_rfc3339(item.at),
                    "compromisedSince": item.compromised_since and to_rfc3339(item.compromised_since),
                    "identityWide": item.is_identity_wide,
                    "certificates": sorted(str(digest) for digest in item.certificates),
                    "reason": item.reason,
                }
                for item in self.revoked
            ],
            "taintedAggregates": [
                {
                    "tensors": str(item.tensors),
                    "runId": str(int(item.run_id)),
                    "step": item.step,
                    "isDirect": item.is_direct,
                }
                for item in self.tainted_aggregates
            ],
            "taintedModels": [
                {"subject": str(item.subject), "name": item.name, "isDirect": item.is_direct}
                for item in self.tainted_models
            ],
        }


def _revoked(fields: Fields) -> RevokedName:
    found = RevokedName(
        name=fields.text("name", limit=512),
        at=fields.time("at"),
        compromised_since=None if fields.is_null("compromisedSince") else fields.time("compromisedSince"),
        is_identity_wide=fields.flag("identityWide"),
        certificates=frozenset(
            map(Digest.parse, fields.texts("certificates", limit=_MAX_ITEMS, each=_MAX_DIGEST))
        ),
        reason=fields.text("reason", limit=64),
    )
    fields.done()
    return found


def _aggregate(fields: Fields) -> TaintedAggregate:
    found = TaintedAggregate(
        tensors=fields.digest("tensors"),
        run_id=RunId(fields.decimal("runId", bits=64)),
        step=fields.number("step"),
        is_direct=fields.flag("isDirect"),
    )
    fields.done()
    return found


def _model(fields: Fields) -> TaintedModel:
    found = TaintedModel(
        subject=fields.digest("subject"),
        name=fields.text("name", limit=1024),
        is_direct=fields.flag("isDirect"),
    )
    fields.done()
    return found


def _text_or_none(fields: Fields, name: str, *, limit: int) -> str | None:
    return None if fields.is_null(name) else fields.text(name, limit=limit)
