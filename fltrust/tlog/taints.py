"""A taint as log entries: the rounds, aggregates and models that contain compromised updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, RunId
from fltrust.strictjson import Fields
from fltrust.tlog.stated import PublicName, encode, take_name

_MAX_MODEL_NAME = 256


@dataclass(frozen=True, slots=True)
class TaintedRound:
    run_id: RunId
    step: int

    def to_json(self) -> dict[str, object]:
        return {"runId": str(self.run_id), "step": self.step}

    @classmethod
    def parse(cls, fields: Fields) -> TaintedRound:
        return cls(RunId(fields.decimal("runId", bits=64)), fields.number("step"))


@dataclass(frozen=True, slots=True)
class TaintedAggregate:
    """`is_direct` is False where it only descends from an aggregate that contains the updates."""

    run_id: RunId
    step: int
    tensors: Digest
    is_direct: bool

    def to_json(self) -> dict[str, object]:
        return {
            "runId": str(self.run_id),
            "step": self.step,
            "tensors": str(self.tensors),
            "isDirect": self.is_direct,
        }

    @classmethod
    def parse(cls, fields: Fields) -> TaintedAggregate:
        return cls(
            RunId(fields.decimal("runId", bits=64)),
            fields.number("step"),
            fields.digest("tensors"),
            fields.flag("isDirect"),
        )


@dataclass(frozen=True, slots=True)
class TaintedModel:
    """`subject` is the SHA-256 that the model's signature names; a name has at most 256 characters."""

    name: str
    subject: Digest
    is_direct: bool

    def __post_init__(self) -> None:
        if len(self.name) > _MAX_MODEL_NAME:
            raise Malformed(f"expected a model's name of at most {_MAX_MODEL_NAME} characters")

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "subject": str(self.subject), "isDirect": self.is_direct}

    @classmethod
    def parse(cls, fields: Fields) -> TaintedModel:
        return cls(
            fields.text("name", limit=_MAX_MODEL_NAME), fields.digest("subject"), fields.flag("isDirect")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """What contains updates of a participant that counts as compromised since `since`.

    One finding may take several entries: `of` gives as many as its lists need, at most 32 of each kind
    of item in one (so that names full of escapes still fit); all have the same participant, epoch and since.
    """

    kind: ClassVar[str] = "taint"
    MAX_ITEMS: ClassVar[int] = 32
    at: datetime
    epoch: Epoch
    participant: PublicName
    since: datetime
    rounds: tuple[TaintedRound, ...] = ()
    aggregates: tuple[TaintedAggregate, ...] = ()
    models: tuple[TaintedModel, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        at: datetime,
        epoch: Epoch,
        participant: str,
        since: datetime,
        rounds: Sequence[TaintedRound] = (),
        aggregates: Sequence[TaintedAggregate] = (),
        models: Sequence[TaintedModel] = (),
    ) -> tuple[Taint, ...]:
        """The finding in as many entries as it needs; at least one, even if nothing is tainted."""
        step, name = cls.MAX_ITEMS, PublicName(participant)
        longest = max(len(rounds), len(aggregates), len(models), 1)
        return tuple(
            cls(
                at=at,
                epoch=epoch,
                participant=name,
                since=since,
                rounds=tuple(rounds[start : start + step]),
                aggregates=tuple(aggregates[start : start + step]),
                models=tuple(models[start : start + step]),
            )
            for start in range(0, longest, step)
        )

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "epoch": str(self.epoch),
                "participant": self.participant,
                "since": to_rfc3339(self.since),
                "rounds": [item.to_json() for item in self.rounds],
                "aggregates": [item.to_json() for item in self.aggregates],
                "models": [item.to_json() for item in self.models],
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> Taint:
        most = cls.MAX_ITEMS
        return cls(
            at=fields.time("at"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            participant=take_name(fields, "participant"),
            since=fields.time("since"),
            rounds=tuple(TaintedRound.parse(item) for item in fields.objects("rounds", limit=most)),
            aggregates=tuple(
                TaintedAggregate.parse(item) for item in fields.objects("aggregates", limit=most)
            ),
            models=tuple(TaintedModel.parse(item) for item in fields.objects("models", limit=most)),
        )
