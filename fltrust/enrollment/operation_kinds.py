"""What operations about standing say: parameters that operators' tools write and the coordinator reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.identity import Name, Role, RunId, Serial
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.strictjson import Fields

RELEASE_HOLD = "release-hold"
BULK_REVOKE = "bulk-revoke"

MAX_NAMES = 1_000
"""Identities in one bulk revocation."""
_MAX_NAME = 128


def release_parameters(target: RevocationTarget) -> dict[str, object]:
    """The parameters of ``release-hold``: of name, foreign, serial, key and run, exactly one."""
    if target.name is not None:
        return {"name": _text_of(target.name)}
    if target.foreign is not None:
        return {"foreign": str(target.foreign)}
    if target.serial is not None:
        return {"serial": target.serial.hex}
    if target.key is not None:
        return {"key": str(target.key)}
    return {"run": str(int(target.run or 0))}


def release_target(parameters: object) -> RevocationTarget:
    """Read what `release_parameters` writes, and nothing else."""
    fields = Fields(parameters, "the parameters of release-hold")
    found = [word for word in ("name", "foreign", "serial", "key", "run") if _has(parameters, word)]
    if len(found) != 1:
        raise Malformed("expected exactly one of name, serial, key and run to release")
    match found[0]:
        case "name":
            target = RevocationTarget(name=name_of(fields.text("name", limit=_MAX_NAME)))
        case "foreign":
            target = RevocationTarget(foreign=fields.spiffe_id("foreign"))
        case "serial":
            target = RevocationTarget(serial=Serial.parse(fields.text("serial", limit=40)))
        case "key":
            target = RevocationTarget(key=fields.key_id("key"))
        case _:
            target = RevocationTarget(run=RunId(fields.decimal("run", bits=64)))
    fields.done()
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRevocation:
    """The parameters of ``bulk-revoke``. `atomic`: all are revoked, or nobody is."""

    names: tuple[tuple[Role, Name], ...]
    reason: RevocationReason
    compromised_since: datetime | None = None
    atomic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_NAMES or len(set(self.names)) != len(self.names):
            raise Malformed(f"expected 1 to {MAX_NAMES} different names to revoke, got {len(self.names)}")

    def to_parameters(self) -> dict[str, object]:
        since = self.compromised_since
        return {
            "names": [_text_of(name) for name in self.names],
            "reason": self.reason.value,
            "compromisedSince": None if since is None else to_rfc3339(since),
            "atomic": self.atomic,
        }

    @classmethod
    def from_parameters(cls, parameters: object) -> Self:
        fields = Fields(parameters, "the parameters of bulk-revoke")
        found = cls(
            names=tuple(map(name_of, fields.texts("names", limit=MAX_NAMES, each=_MAX_NAME))),
            reason=fields.choice("reason", RevocationReason),
            compromised_since=None if fields.is_null("compromisedSince") else fields.time("compromisedSince"),
            atomic=fields.flag("atomic"),
        )
        fields.done()
        return found


def name_of(text: str) -> tuple[Role, Name]:
    """Read ``<role>/<name>``; the coordinator is nobody's to revoke or release."""
    role, _, name = text.partition("/")
    if role not in set(Role) or role == Role.COORDINATOR:
        raise Malformed(f"expected '<role>/<name>', such as 'participant/site-a', got {text[:80]!r}")
    return Role(role), Name(name)


def _text_of(name: tuple[Role, Name]) -> str:
    return f"{name[0]}/{name[1]}"


def _has(parameters: object, word: str) -> bool:
    return isinstance(parameters, dict) and word in parameters
