"""Acts of the coordinator as log entries: canonical JSON with ``"type":"urn:fltrust:log:<kind>:v1"``.

Names are public names: a SPIFFE ID, or the pseudonym that stands for it. What may be large is listed up
to a bound, and counted and digested beyond it: an act is never kept from the log by its size.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol, Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, KeyId, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.strictjson import Fields

MAX_LISTED = 256
"""Serials, keys, rounds, aggregates or models listed in one entry, each."""

_PSEUDONYM = re.compile(r"pseudonym:[0-9a-f]{32}\Z")
_WORD = re.compile(r"[a-z0-9-]{1,64}\Z")
_MAX_NAME = 512


class PublicName(str):
    """How the log names somebody: a SPIFFE ID, or ``pseudonym:`` and 32 hex digits."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _PSEUDONYM.match(value):
            SpiffeId.parse(value)
        return super().__new__(cls, value)

    @property
    def is_pseudonym(self) -> bool:
        return self.startswith("pseudonym:")


class PublicNames(StrEnum):
    """Under which names participants stand in the log; chosen when it is opened, for good."""

    SPIFFE = "spiffe"
    PSEUDONYMS = "pseudonyms"


class TrustEventWord(StrEnum):
    """The kinds of trust events (`fltrust.revocation.events.EventKind`) that are logged."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    RUN_OPENED = "run-opened"
    RUN_CLOSED = "run-closed"


class _Act(Protocol):
    kind: ClassVar[str]

    @property
    def at(self) -> datetime: ...


def type_name(kind: str) -> str:
    return f"urn:fltrust:log:{kind}:v1"


def _encode(act: _Act, fields: Mapping[str, object]) -> bytes:
    return strictjson.encode({"type": type_name(act.kind), "at": to_rfc3339(act.at), **fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOpened:
    """The first entry: whose log it is, and what was chosen for good."""

    kind: ClassVar[str] = "log-opened"
    at: datetime
    domain: TrustDomain
    origin: str
    """The first line of every checkpoint."""
    log_key: str
    """The key that checkpoints are signed with, as a vkey (C2SP signed-note)."""
    public_names: PublicNames

    def encode(self) -> bytes:
        return _encode(
            self,
            {
                "trustDomain": self.domain,
                "origin": self.origin,
                "logKey": self.log_key,
                "publicNames": self.public_names,
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> LogOpened:
        return cls(
            at=fields.time("at"),
            domain=fields.domain("trustDomain"),
            origin=fields.text("origin", limit=_MAX_NAME),
            log_key=fields.text("logKey", limit=_MAX_NAME),
            public_names=fields.choice("publicNames", PublicNames),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantCertificate:
    """A participant's certificate where participants have pseudonyms: its digest, not its names."""

    kind: ClassVar[str] = "participant-certificate"
    at: datetime
    name: PublicName
    certificate: Digest
    not_before: datetime
    not_after: datetime

    def encode(self) -> bytes:
        return _encode(
            self,
            {
                "name": self.name,
                "certificate": str(self.certificate),
                "notBefore": to_rfc3339(self.not_before),
                "notAfter": to_rfc3339(self.not_after),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> ParticipantCertificate:
        return cls(
            at=fields.time("at"),
            name=_name(fields, "name"),
            certificate=fields.digest("certificate"),
            not_before=fields.time("notBefore"),
            not_after=fields.time("notAfter"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustEventEntry:
    """One epoch of the trust feed, with all that the event says.

    Up to `MAX_LISTED` serials and keys each are listed. Of more, the first are, and `named` is the SHA-256
    of the canonical JSON ``{"keys":[…],"serials":[…]}`` of all; `of` does that.
    """

    kind: ClassVar[str] = "trust-event"
    at: datetime
    epoch: Epoch
    event: TrustEventWord
    actor: PublicName | None = None
    subject: PublicName | None = None
    identity_wide: bool = False
    serials: tuple[Serial, ...] = ()
    keys: tuple[KeyId, ...] = ()
    serial_count: int = 0
    key_count: int = 0
    named: Digest | None = None
    node_key: bytes | None = None
    run_id: RunId | None = None
    reason: str | None = None
    compromised_since: datetime | None = None

    def __post_init__(self) -> None:
        is_cut = self.serial_count > len(self.serials) or self.key_count > len(self.keys)
        if (
            len(self.serials) != min(self.serial_count, MAX_LISTED)
            or len(self.keys) != min(self.key_count, MAX_LISTED)
            or is_cut != (self.named is not None)
        ):
            raise Malformed(
                f"expected a trust event to list at most {MAX_LISTED} of what it counts, in order"
            )
        if self.reason is not None and not _WORD.match(self.reason):
            raise Malformed(f"expected a word as reason of a trust event, got {self.reason[:64]!r}")

    @classmethod
    def of(
        cls,
        *,
        epoch: Epoch,
        event: str,
        at: datetime,
        actor: str | None = None,
        subject: str | None = None,
        identity_wide: bool = False,
        serials: Sequence[Serial] = (),
        keys: Sequence[KeyId] = (),
        node_key: bytes | None = None,
        run_id: RunId | None = None,
        reason: str | None = None,
        compromised_since: datetime | None = None,
    ) -> TrustEventEntry:
        """Take the fields of a trust event, names already public, and cut what is too long to list."""
        is_cut = max(len(serials), len(keys)) > MAX_LISTED
        return cls(
            at=at,
            epoch=epoch,
            event=TrustEventWord(event),
            actor=None if actor is None else PublicName(actor),
            subject=None if subject is None else PublicName(subject),
            identity_wide=identity_wide,
            serials=tuple(serials[:MAX_LISTED]),
            keys=tuple(keys[:MAX_LISTED]),
            serial_count=len(serials),
            key_count=len(keys),
            named=Digest.sha256_of(_named(serials, keys)) if is_cut else None,
            node_key=node_key,
            run_id=run_id,
            reason=reason,
            compromised_since=compromised_since,
        )

    def encode(self) -> bytes:
        return _encode(
            self,
            {
                "epoch": str(self.epoch),
                "event": self.event,
                "actor": self.actor,
                "subject": self.subject,
                "identityWide": self.identity_wide,
                "serials": [serial.hex for serial in self.serials],
                "keys": list(self.keys),
                "serialCount": self.serial_count,
                "keyCount": self.key_count,
                "named": None if self.named is None else str(self.named),
                "nodeKey": None if self.node_key is None else b64encode(self.node_key).decode(),
                "runId": None if self.run_id is None else str(self.run_id),
                "reason": self.reason,
                "compromisedSince": _time_or_none(self.compromised_since),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> TrustEventEntry:
        return cls(
            at=fields.time("at"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            event=fields.choice("event", TrustEventWord),
            actor=None if fields.is_null("actor") else _name(fields, "actor"),
            subject=None if fields.is_null("subject") else _name(fields, "subject"),
            identity_wide=fields.flag("identityWide"),
            serials=tuple(Serial.parse(text) for text in fields.texts("serials", limit=MAX_LISTED, each=40)),
            keys=tuple(KeyId(text) for text in fields.texts("keys", limit=MAX_LISTED, each=64)),
            serial_count=fields.number("serialCount"),
            key_count=fields.number("keyCount"),
            named=fields.optional_digest("named"),
            node_key=None if fields.is_null("nodeKey") else _base64(fields, "nodeKey", limit=1024),
            run_id=None if fields.is_null("runId") else RunId(fields.decimal("runId", bits=64)),
            reason=None if fields.is_null("reason") else fields.text("reason", limit=64),
            compromised_since=None if fields.is_null("compromisedSince") else fields.time("compromisedSince"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRefused:
    """Somebody showed a join token that is known and no longer good; `token_id` is not its secret."""

    kind: ClassVar[str] = "enrollment-refused"
    at: datetime
    token_id: str
    role: Role
    name: PublicName
    reason: str
    """``token-used``, ``token-expired`` or ``token-cancelled``."""

    def __post_init__(self) -> None:
        if not _WORD.match(self.reason) or not 0 < len(self.token_id) <= 64:
            raise Malformed(f"expected a token id and a word as reason, got {self.reason[:64]!r}")

    def encode(self) -> bytes:
        return _encode(
            self, {"tokenId": self.token_id, "role": self.role, "name": self.name, "reason": self.reason}
        )

    @classmethod
    def parse(cls, fields: Fields) -> EnrollmentRefused:
        return cls(
            at=fields.time("at"),
            token_id=fields.text("tokenId", limit=64),
            role=fields.choice("role", Role),
            name=_name(fields, "name"),
            reason=fields.text("reason", limit=64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRound:
    """A round was sealed. `receipt` is the SHA-256 of the receipt's payload, which says who was admitted."""

    kind: ClassVar[str] = "sealed-round"
    at: datetime
    run_id: RunId
    step: int
    round: int
    phase: str
    aggregator: PublicName
    epoch: Epoch
    admitted: int
    refused: int
    receipt: Digest

    def __post_init__(self) -> None:
        if not _WORD.match(self.phase):
            raise Malformed(f"expected a word as the phase of a round, got {self.phase[:64]!r}")

    def encode(self) -> bytes:
        return _encode(
            self,
            {
                "runId": str(self.run_id),
                "step": self.step,
                "round": self.round,
                "phase": self.phase,
                "aggregator": self.aggregator,
                "epoch": str(self.epoch),
                "admitted": self.admitted,
                "refused": self.refused,
                "receipt": str(self.receipt),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> SealedRound:
        return cls(
            at=fields.time("at"),
            run_id=RunId(fields.decimal("runId", bits=64)),
            step=fields.number("step"),
            round=fields.number("round"),
            phase=fields.text("phase", limit=64),
            aggregator=_name(fields, "aggregator"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            admitted=fields.number("admitted"),
            refused=fields.number("refused"),
            receipt=fields.digest("receipt"),
        )


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
    """`subject` is the SHA-256 that the model's signature names."""

    name: str
    subject: Digest
    is_direct: bool

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "subject": str(self.subject), "isDirect": self.is_direct}

    @classmethod
    def parse(cls, fields: Fields) -> TaintedModel:
        return cls(fields.text("name", limit=256), fields.digest("subject"), fields.flag("isDirect"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """What contains updates of a participant that counts as compromised since `since`.

    One finding may take several entries: `of` gives as many as its lists need, at most 128 of each kind
    of item in one; all have the same participant, epoch and since.
    """

    kind: ClassVar[str] = "taint"
    MAX_ITEMS: ClassVar[int] = 128
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
        return _encode(
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
            participant=_name(fields, "participant"),
            since=fields.time("since"),
            rounds=tuple(TaintedRound.parse(item) for item in fields.objects("rounds", limit=most)),
            aggregates=tuple(
                TaintedAggregate.parse(item) for item in fields.objects("aggregates", limit=most)
            ),
            models=tuple(TaintedModel.parse(item) for item in fields.objects("models", limit=most)),
        )


Act = LogOpened | ParticipantCertificate | TrustEventEntry | EnrollmentRefused | SealedRound | Taint

ACTS: dict[str, type[Act]] = {
    act.kind: act
    for act in (LogOpened, ParticipantCertificate, TrustEventEntry, EnrollmentRefused, SealedRound, Taint)
}


def parse_act(data: bytes, fields: Fields) -> Act:
    """Read the act in `data`, of which `fields` are the object; its type decides.

    `Malformed` for an unknown type (``unknown-type``), and for a value in any form but the one that
    `encode` gives it (a time with other digits, say).
    """
    name = fields.text("type", limit=128)
    found = next((act for word, act in ACTS.items() if type_name(word) == name), None)
    if found is None:
        raise Malformed(f"expected a log entry of a known type, got {name!r}", reason="unknown-type")
    act = found.parse(fields)
    fields.done()
    if act.encode() != data:
        raise Malformed(f"expected {name} in its one byte form, got another")
    return act


def _name(fields: Fields, name: str) -> PublicName:
    return PublicName(fields.text(name, limit=_MAX_NAME))


def _base64(fields: Fields, name: str, *, limit: int) -> bytes:
    text = fields.text(name, limit=4 * limit // 3 + 4)
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise Malformed(f"expected base64 as {name!r} in a log entry") from None


def _time_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_rfc3339(at)


def _named(serials: Sequence[Serial], keys: Sequence[KeyId]) -> bytes:
    return strictjson.encode({"keys": list(keys), "serials": [serial.hex for serial in serials]})
