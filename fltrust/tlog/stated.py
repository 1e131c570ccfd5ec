"""What all acts in the log share: public names, and the one byte form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Protocol, Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import SpiffeId
from fltrust.strictbase64 import from_base64
from fltrust.strictjson import Fields

MAX_NAME = 512

_PSEUDONYM = re.compile(r"pseudonym:[0-9a-f]{32}\Z")
_WORD = re.compile(r"[a-z0-9-]{1,64}\Z")


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


class StatedAct(Protocol):
    kind: ClassVar[str]

    @property
    def at(self) -> datetime: ...


def type_name(kind: str) -> str:
    return f"urn:fltrust:log:{kind}:v1"


def encode(act: StatedAct, fields: Mapping[str, object]) -> bytes:
    return strictjson.encode({"type": type_name(act.kind), "at": to_rfc3339(act.at), **fields})


def take_name(fields: Fields, name: str) -> PublicName:
    return PublicName(fields.text(name, limit=MAX_NAME))


def take_base64(fields: Fields, name: str, *, limit: int) -> bytes:
    return from_base64(fields.text(name, limit=4 * limit // 3 + 4), f"{name!r} in a log entry")


def check_word(text: str, what: str) -> None:
    if not _WORD.match(text):
        raise Malformed(f"expected a word as {what}, got {text[:64]!r}")
