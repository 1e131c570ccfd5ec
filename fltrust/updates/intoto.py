"""The frame around every statement: in-toto Statement v1 in one byte form, and the checks that all share.

A statement has one subject with one digest; what `decode` leaves open, `check_same` settles by
writing the statement again and comparing bytes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from fltrust import strictjson
from fltrust.errors import Malformed, Refusal, StatementRefused
from fltrust.identity import Digest, Role, SpiffeId, TrustDomain
from fltrust.strictjson import Fields

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
INSTRUCTION_PREDICATE = "urn:fltrust:statement:instruction:v1"
UPDATE_PREDICATE = "urn:fltrust:statement:update:v1"
SEALED_ROUND_PREDICATE = "urn:fltrust:statement:sealed-round:v2"

MAX_PAYLOAD_BYTES = 48 * 1024
MAX_SEALED_PAYLOAD_BYTES = 6 * 2**20
MAX_MESSAGE_TYPE = 128
"""Characters of a message type."""
SHA256 = "sha256"


class Phase(StrEnum):
    """What an instruction asks for."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"


_LEGACY_QUERIES = ("get_properties", "get_parameters")


def phase_of(message_type: str) -> Phase:
    """The phase that a Flower message type (``train``, ``query.my_action``, …) belongs to.

    Raises `StatementRefused` with ``unknown-type`` for a type that Flower does not define.
    """
    category, dot, action = message_type.partition(".")
    if message_type in _LEGACY_QUERIES:
        return Phase.QUERY
    for phase in Phase:
        if category == phase and (not dot or action.isidentifier()) and len(message_type) <= MAX_MESSAGE_TYPE:
            return phase
    raise StatementRefused(
        f"expected a message type of {', '.join(Phase)}, got {message_type[:80]!r}",
        reason=Refusal.UNKNOWN_TYPE,
    )


def encode(predicate_type: str, name: str, subject: Digest, predicate: dict[str, object]) -> bytes:
    return strictjson.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {subject.algorithm: subject.hex}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def decode(payload: bytes, predicate_type: str, *, limit: int) -> tuple[Digest, Fields]:
    """The subject's digest and the predicate's fields; `check_same` then settles the rest."""
    fields = Fields(strictjson.decode(payload, limit=limit, what="a statement"), "a statement")
    kind, predicate = fields.text("_type", limit=128), fields.text("predicateType", limit=128)
    if kind != STATEMENT_TYPE or predicate != predicate_type:
        raise unknown_predicate(predicate)
    subjects = fields.objects("subject", limit=1)
    if not subjects:
        raise Malformed("expected one subject in a statement, got none")
    digest = subjects[0].any("digest")
    if not isinstance(digest, dict) or len(digest) != 1:
        raise Malformed("expected one digest in a statement's subject")
    ((algorithm, value),) = digest.items()
    return Digest.parse(f"{algorithm}:{value}"), fields.object("predicate")


def unknown_predicate(found: object) -> StatementRefused:
    return StatementRefused(
        f"expected a statement of a kind known here, got {str(found)[:80]!r}",
        reason=Refusal.UNKNOWN_TYPE,
        hint="a newer version of fltrust may have signed it",
    )


def check_same(written: bytes, payload: bytes) -> None:
    if written != payload:
        raise Malformed("expected a statement in its one byte form, got another for the same content")


def check_count(value: int, what: str) -> None:
    if not 0 <= value < 2**31:
        raise Malformed(f"expected a {what} from 0 to 2^31-1, got {value}")


def check_identity(who: SpiffeId, role: Role, domain: TrustDomain) -> None:
    if who.role is not role or who.domain != domain:
        raise Malformed(f"expected {role} of {domain} in a statement, got {who}")


def check_participant(who: SpiffeId) -> None:
    """Of whatever domain: that it may take part is decided where its certificate and standing are judged."""
    if who.role is not Role.PARTICIPANT:
        raise Malformed(f"expected a participant in a statement, got {who}")


def check_digest(digest: Digest, algorithm: str, what: str) -> None:
    if digest.algorithm != algorithm or len(digest.value) != 32:
        raise Malformed(f"expected a {algorithm} digest as {what}, got {digest.algorithm[:40]!r}")


def check_times(*times: datetime) -> None:
    if any(at.tzinfo is None for at in times):
        raise Malformed("expected times with a zone in a statement, got a naive one")
