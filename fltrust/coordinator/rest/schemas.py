"""JSON Schemas (2020-12) of what goes in and comes out. The parser (`forms`) is as strict as these say."""

from __future__ import annotations

from typing import Any, Final

from fltrust.enrollment.approvals import MAX_REASON
from fltrust.enrollment.requests import RequestState
from fltrust.enrollment.types import EnrollmentProtocol, TokenStatus
from fltrust.identity import Role
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.state import Standing
from fltrust.rounds.types import RoundStatus

Schema = dict[str, Any]

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAMED: Final = tuple(role for role in Role if role is not Role.COORDINATOR)
"""Roles of identities that have a name."""
WITHOUT_DNS: Final = (Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR, Role.SIGNER, Role.DEVICE)
"""Roles that join by a token and have no DNS names from the record."""
MAX_NAMES: Final = 16


def words(kind: type[Any] | tuple[Any, ...]) -> Schema:
    return {"type": "string", "enum": [str(one) for one in kind]}


NAME: Final[Schema] = {"type": "string", "pattern": f"^{_LABEL}$", "minLength": 1, "maxLength": 63}
DNS_NAME: Final[Schema] = {
    "type": "string",
    "pattern": rf"^{_LABEL}(\.{_LABEL})*$",
    "minLength": 1,
    "maxLength": 253,
}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
PAST: Final[Schema] = {
    "type": "string",
    "pattern": r"^20[0-2][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$",
    "description": "RFC 3339, in UTC, whole seconds; not in the future.",
}
SERIAL: Final[Schema] = {"type": "string", "pattern": "^(?!0{40}$)[0-7][0-9a-f]{39}$"}
KEY_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
NUMBER: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,18})$"}
"""64 bits as text: JSON readers lose precision past 2^53."""
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
STEP: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
STEP_TEXT: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,8})$"}
PAGE: Final[Schema] = {"type": "string", "pattern": "^([1-9][0-9]?|[1-4][0-9]{2}|500)$"}
ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{1,32}$"}
DIGEST: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
TEXT: Final[Schema] = {"type": "string"}
BYTES: Final[Schema] = {"type": "string", "contentEncoding": "base64"}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Schema, **bounds: Any) -> Schema:
    return {"type": "array", "items": schema, **bounds}


def obj(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


PROBLEM: Final = obj({"type": TEXT, "title": TEXT, "status": COUNT, "detail": TEXT}, {"hint": TEXT})

TTL: Final[Schema] = {
    "type": "string",
    "pattern": "^([1-9][0-9]{0,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s$",
    "description": "Whole seconds, up to seven days: 900s.",
}
_NAMES = listed(DNS_NAME, minItems=1, maxItems=MAX_NAMES, uniqueItems=True)
FLAG: Final[Schema] = {"type": "boolean"}
REASON: Final[Schema] = {
    "type": "string",
    "pattern": r"^[!-~]([ -~]*[!-~])?$",
    "minLength": 1,
    "maxLength": MAX_REASON,
    "description": "Why, in one line of printable ASCII: others will read it.",
}

NEW_TOKEN: Final[Schema] = {
    "oneOf": [
        obj({"role": words(WITHOUT_DNS), "name": NAME, "ttl": TTL}, {"replace": FLAG}),
        obj({"role": words((Role.SERVER,)), "name": NAME, "ttl": TTL, "dnsNames": _NAMES}, {"replace": FLAG}),
    ]
}
NEW_CREDENTIAL: Final = obj(
    {"purpose": words(("acme",)), "name": NAME, "ttl": TTL, "dnsNames": _NAMES}, {"replace": FLAG}
)
_TARGETS: Final = (
    obj({"role": words(NAMED), "name": NAME}),
    obj({"serial": SERIAL}),
    obj({"key": KEY_ID}),
    obj({"run": NUMBER}),
)
TARGET: Final[Schema] = {"oneOf": list(_TARGETS)}
REVOCATION: Final = obj({"target": TARGET, "reason": words(RevocationReason)}, {"compromisedSince": PAST})
HOLD: Final = obj({"target": TARGET}, {"reason": words(RevocationReason)})
RELEASE: Final = obj({"target": TARGET})
DECISION: Final = obj({"reason": REASON})
NO_BODY: Final = obj({})

TOKEN: Final = obj(
    {
        "id": TEXT,
        "role": words(Role),
        "name": NAME,
        "status": words(TokenStatus),
        "createdAt": TIME,
        "expiresAt": TIME,
        "createdBy": maybe(TEXT),
        "replace": FLAG,
        "dnsNames": listed(DNS_NAME),
    }
)
MADE_TOKEN: Final = obj({"token": TEXT, "root": DIGEST})
MADE_CREDENTIAL: Final = obj({"id": TEXT, "key": TEXT, "expiresAt": TIME})
PARTICIPANT: Final = obj(
    {
        "spiffeId": TEXT,
        "role": words(Role),
        "name": NAME,
        "standing": words(Standing),
        "sinceEpoch": COUNT,
        "enrolledAt": TIME,
        "enrolledBy": maybe(TEXT),
        "evidence": TEXT,
        "certificateSerial": maybe(SERIAL),
        "certificateNotAfter": maybe(TIME),
        "dnsNames": listed(DNS_NAME),
    }
)
EVENT: Final = obj(
    {
        "epoch": COUNT,
        "kind": words(EventKind),
        "at": TIME,
        "actor": maybe(TEXT),
        "subject": maybe(TEXT),
        "identityWide": FLAG,
        "serials": listed(SERIAL),
        "keys": listed(KEY_ID),
        "reason": maybe(words(RevocationReason)),
        "compromisedSince": maybe(TIME),
    }
)
ROUND: Final = obj(
    {
        "run": NUMBER,
        "step": STEP,
        "round": STEP,
        "phase": TEXT,
        "status": words(RoundStatus),
        "aggregator": TEXT,
        "openedAt": TIME,
        "openedEpoch": COUNT,
        "cohort": listed(TEXT),
        "receipt": maybe(BYTES),
    }
)
BUNDLE: Final = obj({"trustDomain": TEXT, "sequence": COUNT, "roots": listed(TEXT)})
REQUEST: Final = obj(
    {
        "id": TEXT,
        "state": words(RequestState),
        "protocol": words(EnrollmentProtocol),
        "evidence": TEXT,
        "role": maybe(words(Role)),
        "name": maybe(NAME),
        "dnsNames": listed(DNS_NAME),
        "replace": FLAG,
        "needed": COUNT,
        "approvals": COUNT,
        "submittedAt": TIME,
        "expiresAt": TIME,
        "claims": {"type": "object", "additionalProperties": TEXT},
    }
)
BLAST: Final = obj(
    {
        "participant": TEXT,
        "since": TIME,
        "rounds": listed(obj({"run": NUMBER, "step": STEP, "round": STEP, "logIndex": COUNT})),
        "aggregates": listed(
            obj({"run": NUMBER, "step": STEP, "tensors": DIGEST, "logIndex": COUNT, "direct": FLAG})
        ),
        "models": listed(obj({"name": TEXT, "subject": DIGEST, "logIndex": COUNT, "direct": FLAG})),
    }
)
ANY_OBJECT: Final[Schema] = {"type": "object"}
