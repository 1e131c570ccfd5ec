"""What comes in, read strictly into our types: `Malformed` for everything that `schemas` does not allow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from fltrust.clock import from_rfc3339
from fltrust.coordinator.rest.schemas import MAX_NAMES, NAMED, TTL, WITHOUT_DNS
from fltrust.enrollment.approvals import MAX_REASON
from fltrust.errors import Malformed
from fltrust.identity import Digest, KeyId, Name, Role, RunId, Serial
from fltrust.pki.leaf import is_dns_name
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.strictjson import Fields, decode_any

MAX_BODY = 64 * 1024
_MAX_VALUES = 1_000
_SECONDS = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_REASON = re.compile(r"[!-~]([ -~]*[!-~])?\Z")
_TTL = re.compile(TTL["pattern"].removesuffix("$") + r"\Z", re.ASCII)
_ID = re.compile(r"[0-9a-f]{1,32}\Z")
_SERIAL = re.compile(r"(?!0{40}\Z)[0-7][0-9a-f]{39}\Z")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class TokenForm:
    role: Role
    name: Name
    ttl: timedelta
    replace: bool
    dns_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RevocationForm:
    target: RevocationTarget
    reason: RevocationReason
    compromised_since: datetime | None


def read_token(body: bytes) -> TokenForm:
    """A join token; a server's has DNS names, no other has."""
    fields = _object(body)
    role = fields.choice("role", Role)
    if role not in (*WITHOUT_DNS, Role.SERVER):
        raise Malformed(f"expected a role that joins by a token, got {role}")
    return _token(fields, role)


def read_credential(body: bytes) -> TokenForm:
    """An ACME credential."""
    fields = _object(body)
    if fields.text("purpose", limit=16) != "acme":
        raise Malformed("expected the purpose 'acme'")
    return _token(fields, Role.SERVER)


def _token(fields: Fields, role: Role) -> TokenForm:
    name, ttl = Name(fields.text("name", limit=63)), fields.text("ttl", limit=8)
    if not _TTL.match(ttl):
        raise Malformed("expected a 'ttl' of whole seconds up to seven days, such as '900s'")
    names: list[str] = []
    if role is Role.SERVER:
        names = fields.texts("dnsNames", limit=MAX_NAMES, each=253)
        if not names or len(set(names)) != len(names) or not all(map(is_dns_name, names)):
            raise Malformed("expected different, lower-case DNS names as 'dnsNames'")
    replace = _flag(fields, "replace")
    fields.done()
    return TokenForm(role, name, timedelta(seconds=int(ttl[:-1])), replace, tuple(names))


def read_revocation(body: bytes) -> RevocationForm:
    fields = _object(body)
    target, reason = _target(fields), fields.choice("reason", RevocationReason)
    since = fields.take("compromisedSince")
    fields.done()
    return RevocationForm(target, reason, None if since is None else _time(since))


def read_hold(body: bytes) -> RevocationForm:
    fields = _object(body)
    target, reason = _target(fields), RevocationReason.UNSPECIFIED
    given = fields.take("reason")
    if given is not None:
        reason = Fields({"reason": given}, "the request").choice("reason", RevocationReason)
    fields.done()
    return RevocationForm(target, reason, None)


def read_release(body: bytes) -> RevocationTarget:
    fields = _object(body)
    target = _target(fields)
    fields.done()
    return target


def read_decision(body: bytes) -> str:
    """Why an operator approves or denies."""
    fields = _object(body)
    reason = fields.text("reason", limit=MAX_REASON)
    if not _REASON.match(reason):
        raise Malformed("expected a reason of one line of printable ASCII")
    fields.done()
    return reason


def read_nothing(body: bytes) -> None:
    """An empty object, or no body at all."""
    if body:
        _object(body).done()


def read_run(text: str) -> RunId:
    if not _NUMBER.match(text):
        raise Malformed("expected a run as a decimal number")
    return RunId(int(text))


def read_number(text: str, what: str, *, most: int = 999_999_999) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text, re.ASCII) or int(text) > most:
        raise Malformed(f"expected {what} as a decimal number of at most {most}")
    return int(text)


def read_role(text: str) -> Role:
    if text not in {role.value for role in NAMED}:
        raise Malformed(f"expected a role of {', '.join(NAMED)}")
    return Role(text)


def read_id(text: str) -> str:
    if not _ID.match(text):
        raise Malformed("expected an id in hex")
    return text


def read_digest(text: str) -> Digest:
    if not _SHA256.match(text):
        raise Malformed("expected 'sha256:' and 64 hex digits")
    return Digest.parse(text)


def read_time(text: str) -> datetime:
    return _time(text)


def _target(fields: Fields) -> RevocationTarget:
    inner = fields.object("target")
    role, serial, key, run = (inner.take(name) for name in ("role", "serial", "key", "run"))
    name = inner.take("name")
    inner.done()
    given = [value for value in ((role, name), serial, key, run) if value not in (None, (None, None))]
    if len(given) != 1:
        raise Malformed("expected exactly one of role with name, serial, key and run as 'target'")
    if isinstance(role, str) and isinstance(name, str):
        return RevocationTarget(name=(read_role(role), Name(name)))
    if isinstance(serial, str) and _SERIAL.match(serial):
        return RevocationTarget(serial=Serial.parse(serial))
    if isinstance(key, str):
        return RevocationTarget(key=KeyId(key))
    if isinstance(run, str):
        return RevocationTarget(run=read_run(run))
    raise Malformed("expected text in 'target'")


def _flag(fields: Fields, name: str) -> bool:
    value = fields.take(name)
    if value is not None and not isinstance(value, bool):
        raise Malformed(f"expected true or false as {name!r}")
    return value is True


def _time(value: object) -> datetime:
    try:
        if not isinstance(value, str) or not _SECONDS.match(value):
            raise ValueError
        return from_rfc3339(value)
    except ValueError:
        raise Malformed("expected a time such as 2026-01-31T12:00:00Z") from None


def _object(body: bytes) -> Fields:
    value = decode_any(body, limit=MAX_BODY, what="the request", values=_MAX_VALUES)
    _refuse_nulls(value)  # what is left out is left out: nothing here can be null
    return Fields(value, "the request")


def _refuse_nulls(value: object) -> None:
    if value is None:
        raise Malformed("expected no null in the request: leave the member out")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_nulls(inner)
