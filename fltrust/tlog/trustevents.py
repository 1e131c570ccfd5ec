"""A trust event as a log entry: enrollment, revocation, hold, release, runs and CAs that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import CaKeyId, Digest, Epoch, KeyId, RunId, Serial, TrustDomain
from fltrust.strictbase64 import to_base64
from fltrust.strictjson import Fields
from fltrust.tlog.stated import PublicName, check_word, encode, take_base64, take_name

MAX_LISTED = 256
"""Serials and keys listed in one entry, each."""


class TrustEventWord(StrEnum):
    """The kinds of trust events (`fltrust.revocation.events.EventKind`) that are logged."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    RUN_OPENED = "run-opened"
    RUN_CLOSED = "run-closed"
    BUNDLE_CHANGED = "bundle-changed"
    ISSUER_REVOKED = "issuer-revoked"
    DOMAIN_HELD = "domain-held"
    DOMAIN_RELEASED = "domain-released"


_OF_AUTHORITIES = {
    TrustEventWord.BUNDLE_CHANGED,
    TrustEventWord.ISSUER_REVOKED,
    TrustEventWord.DOMAIN_HELD,
    TrustEventWord.DOMAIN_RELEASED,
}


@dataclass(frozen=True, slots=True)
class AuthorityChange:
    """What an event says of a CA: whose it is, its bundle's sequence, and the key it is about."""

    domain: TrustDomain
    sequence: int | None
    issuer: CaKeyId | None


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
    authority: AuthorityChange | None = None
    """In events about a CA, and in no others: those have no such member at all."""

    def __post_init__(self) -> None:
        if (self.event in _OF_AUTHORITIES) != (self.authority is not None):
            raise Malformed("expected a CA in a trust event about one, and in no other")
        is_cut = self.serial_count > len(self.serials) or self.key_count > len(self.keys)
        if (
            len(self.serials) != min(self.serial_count, MAX_LISTED)
            or len(self.keys) != min(self.key_count, MAX_LISTED)
            or is_cut != (self.named is not None)
        ):
            raise Malformed(f"expected a trust event to list the first {MAX_LISTED} of what it counts")
        if self.reason is not None:
            check_word(self.reason, "the reason of a trust event")

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
        authority: AuthorityChange | None = None,
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
            authority=authority,
        )

    def encode(self) -> bytes:
        about = {} if self.authority is None else {"authority": _authority_fields(self.authority)}
        return encode(
            self,
            {
                **about,
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
                "nodeKey": None if self.node_key is None else to_base64(self.node_key),
                "runId": None if self.run_id is None else str(self.run_id),
                "reason": self.reason,
                "compromisedSince": _time_or_none(self.compromised_since),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> TrustEventEntry:
        event = fields.choice("event", TrustEventWord)
        return cls(
            at=fields.time("at"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            event=event,
            authority=_take_authority(fields.object("authority")) if event in _OF_AUTHORITIES else None,
            actor=None if fields.is_null("actor") else take_name(fields, "actor"),
            subject=None if fields.is_null("subject") else take_name(fields, "subject"),
            identity_wide=fields.flag("identityWide"),
            serials=tuple(Serial.parse(text) for text in fields.texts("serials", limit=MAX_LISTED, each=40)),
            keys=tuple(KeyId(text) for text in fields.texts("keys", limit=MAX_LISTED, each=64)),
            serial_count=fields.number("serialCount"),
            key_count=fields.number("keyCount"),
            named=fields.optional_digest("named"),
            node_key=None if fields.is_null("nodeKey") else take_base64(fields, "nodeKey", limit=1024),
            run_id=None if fields.is_null("runId") else RunId(fields.decimal("runId", bits=64)),
            reason=None if fields.is_null("reason") else fields.text("reason", limit=64),
            compromised_since=None if fields.is_null("compromisedSince") else fields.time("compromisedSince"),
        )


def _authority_fields(change: AuthorityChange) -> dict[str, object]:
    return {
        "domain": change.domain,
        "sequence": None if change.sequence is None else str(change.sequence),
        "issuer": change.issuer,
    }


def _take_authority(fields: Fields) -> AuthorityChange:
    change = AuthorityChange(
        fields.domain("domain"),
        None if fields.is_null("sequence") else fields.decimal("sequence", bits=63),
        None if fields.is_null("issuer") else CaKeyId(fields.text("issuer", limit=40)),
    )
    fields.done()
    return change


def _time_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_rfc3339(at)


def _named(serials: Sequence[Serial], keys: Sequence[KeyId]) -> bytes:
    return strictjson.encode({"keys": list(keys), "serials": [serial.hex for serial in serials]})
