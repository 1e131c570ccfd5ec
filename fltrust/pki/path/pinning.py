"""Pins: which keys a path must go through, whatever else a root signs, with backups for when one is lost.

A pin is the SHA-256 of a SubjectPublicKeyInfo (RFC 7469, 2.4), of any certificate of the path. There is
always a backup: the pin of a key that is in no path today. Without one a lost key would lock everybody out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import CertificateRefused, Malformed
from fltrust.identity import KeyId
from fltrust.pki.path.facts import read_facts
from fltrust.pki.path.types import PathLimits, ValidatedPath

MAX_PINS: Final = 16
MAX_PIN_FILE: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class PinMatch:
    """Which pins the path goes through; `only_backup` asks for a new backup to be pinned, soon."""

    keys: tuple[KeyId, ...]
    only_backup: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PinSet:
    """Pins in force until `expires`; after that nothing passes them. At least one pin and one backup."""

    TYPE: ClassVar[str] = "urn:fltrust:pins:v1"
    pins: frozenset[KeyId]
    backups: frozenset[KeyId]
    expires: datetime

    def __post_init__(self) -> None:
        if not self.pins or not self.backups or self.pins & self.backups:
            raise Malformed(
                "expected at least one pin and one backup pin, none of them both",
                hint="a backup is the pin of a key that is kept elsewhere and in no use",
            )
        if len(self.pins) + len(self.backups) > MAX_PINS:
            raise Malformed(f"expected at most {MAX_PINS} pins, got more")
        if self.expires.tzinfo is None:
            raise ValueError("expected an aware time for pins to expire at, got a naive one")

    @classmethod
    def of(
        cls, path: ValidatedPath, *, pinned: Sequence[int], backups: Sequence[KeyId], expires: datetime
    ) -> Self:
        """Pin certificates of a path that was just validated, by their place in it (0 is the leaf).

        `Malformed` for a backup that is a key of the path: it would be lost together with the pin.
        """
        keys = keys_of(path)
        if set(backups) & set(keys):
            raise Malformed("expected backup pins of keys that are not in the path, got one that is")
        return cls(pins=frozenset(keys[n] for n in pinned), backups=frozenset(backups), expires=expires)

    def check(self, path: ValidatedPath) -> PinMatch:
        """Return which pins the path goes through; refuse with ``pin-mismatch`` or ``pins-expired``."""
        if path.at > self.expires:
            raise CertificateRefused(
                f"expected pins that are in force, these ended at {to_rfc3339(self.expires)}",
                reason="pins-expired",
                hint="pin anew, after asking whose keys they are by another way",
            )
        keys = keys_of(path)
        found = tuple(key for key in keys if key in self.pins or key in self.backups)
        if not found:
            raise CertificateRefused(
                "expected a path through a pinned key, this one goes through none",
                reason="pin-mismatch",
                hint="somebody else may be signing for this name, or keys were changed beyond the backups",
            )
        return PinMatch(found, not any(key in self.pins for key in found))

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": self.TYPE,
                "pins": sorted(self.pins),
                "backups": sorted(self.backups),
                "expires": to_rfc3339(self.expires),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` writes, and nothing else: `Oversized`, else `Malformed`."""
        fields = strictjson.Fields(strictjson.decode(data, limit=MAX_PIN_FILE, what="pins"), "pins")
        if fields.text("type", limit=64) != cls.TYPE:
            raise Malformed(f"expected pins of the type {cls.TYPE}, got another")
        pins = fields.texts("pins", limit=MAX_PINS, each=64)
        backups = fields.texts("backups", limit=MAX_PINS, each=64)
        expires = fields.time("expires")
        fields.done()
        if len(set(pins)) != len(pins) or len(set(backups)) != len(backups):
            raise Malformed("expected each pin once, got one twice")
        return cls(pins=frozenset(map(KeyId, pins)), backups=frozenset(map(KeyId, backups)), expires=expires)


def keys_of(path: ValidatedPath) -> tuple[KeyId, ...]:
    """The keys of a path, leaf first."""
    limit = PathLimits().certificate_bytes
    return tuple(KeyId.of_spki(read_facts(item, limit=limit).spki) for item in path.certificates)
