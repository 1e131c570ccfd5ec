"""What becomes of the coordinator's keys, as log entries: how often each signed, and which was destroyed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import KeyId
from fltrust.strictjson import Fields
from fltrust.tlog.stated import check_word, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUsed:
    """One key signed `signatures` times since `since`; `failed` attempts more came to nothing.

    `key` is its purpose (``issuing``, ``ct``, ``tsa``, ``note``) and `home` where it lies.
    """

    kind: ClassVar[str] = "key-used"
    at: datetime
    since: datetime
    key: str
    key_id: KeyId
    home: str
    signatures: int
    failed: int

    def __post_init__(self) -> None:
        check_word(self.key, "the purpose of a key")
        check_word(self.home, "where a key lies")
        if self.since > self.at:
            raise Malformed("expected a key's use to be counted up to now, got a count from the future")

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "since": to_rfc3339(self.since),
                "key": self.key,
                "keyId": self.key_id,
                "home": self.home,
                "signatures": str(self.signatures),
                "failed": str(self.failed),
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> KeyUsed:
        return cls(
            at=fields.time("at"),
            since=fields.time("since"),
            key=fields.text("key", limit=64),
            key_id=fields.key_id("keyId"),
            home=fields.text("home", limit=64),
            signatures=fields.decimal("signatures", bits=63),
            failed=fields.decimal("failed", bits=63),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDestroyed:
    """A key was destroyed on this machine's word. `was_there` is False where it was found to be gone.

    `gone_at` is when it is gone for good, where its keeper waits (a cloud's KMS); else the time of the entry.
    `reason` is a word of the operator's: ``retired``, ``compromised``, ``ceremony``, ``other``.
    """

    kind: ClassVar[str] = "key-destroyed"
    at: datetime
    key_id: KeyId
    home: str
    was_there: bool
    gone_at: datetime
    reason: str

    def __post_init__(self) -> None:
        check_word(self.home, "where a key lay")
        check_word(self.reason, "why a key was destroyed")

    def encode(self) -> bytes:
        return encode(
            self,
            {
                "keyId": self.key_id,
                "home": self.home,
                "wasThere": self.was_there,
                "goneAt": to_rfc3339(self.gone_at),
                "reason": self.reason,
            },
        )

    @classmethod
    def parse(cls, fields: Fields) -> KeyDestroyed:
        return cls(
            at=fields.time("at"),
            key_id=fields.key_id("keyId"),
            home=fields.text("home", limit=64),
            was_there=fields.flag("wasThere"),
            gone_at=fields.time("goneAt"),
            reason=fields.text("reason", limit=64),
        )
