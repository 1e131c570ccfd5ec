"""What stands in the log: the kinds of entries, what each says, and its one byte form.

Three kinds of leaf content, told apart by their first bytes:

- ``00 00``: a certificate, as RFC 6962 has it (`fltrust.tlog.ctleaf`);
- JSON with ``apiVersion`` and ``kind``: a countersigned statement, as Rekor has it;
- JSON with ``"type":"urn:fltrust:log:<kind>:v1"``: an act of the coordinator (`fltrust.tlog.acts`).

JSON is canonical (`fltrust.strictjson`): what an entry says has one byte form, and so one leaf hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fltrust import strictjson
from fltrust.clock import to_milliseconds
from fltrust.errors import Malformed, Oversized
from fltrust.strictjson import Fields
from fltrust.tlog.acts import (
    ACTS,
    Act,
    EnrollmentRefused,
    LogOpened,
    ParticipantCertificate,
    PublicNames,
    SealedRound,
    parse_act,
)
from fltrust.tlog.ctleaf import (
    LEAF_PREFIX,
    CertificateLeaf,
    PrecertificateLeaf,
    parse_leaf,
)
from fltrust.tlog.ports import MAX_ENTRY, NewEntry
from fltrust.tlog.stated import PublicName
from fltrust.tlog.taints import Taint, TaintedAggregate, TaintedModel, TaintedRound
from fltrust.tlog.trustevents import AuthorityChange, TrustEventEntry, TrustEventWord

__all__ = [
    "AuthorityChange",
    "CertificateLeaf",
    "EnrollmentRefused",
    "Entry",
    "LogKind",
    "LogOpened",
    "ParticipantCertificate",
    "PrecertificateLeaf",
    "PublicName",
    "PublicNames",
    "SealedRound",
    "StatementBody",
    "Taint",
    "TaintedAggregate",
    "TaintedModel",
    "TaintedRound",
    "TrustEventEntry",
    "TrustEventWord",
    "kind_of",
    "new_entry",
    "parse_entry",
    "to_milliseconds",
]


class LogKind(StrEnum):
    """The word that the index and the audit know an entry by."""

    LOG_OPENED = "log-opened"
    CERTIFICATE = "certificate"
    """x509_entry."""
    PRECERTIFICATE = "precertificate"
    """precert_entry: a code-signing certificate with an embedded SCT."""
    PARTICIPANT_CERTIFICATE = "participant-certificate"
    """In place of `CERTIFICATE` where participants have pseudonyms."""
    TRUST_EVENT = "trust-event"
    ENROLLMENT_REFUSED = "enrollment-refused"
    SEALED_ROUND = "sealed-round"
    STATEMENT = "statement"
    """A Rekor body: a model, the provenance of an aggregate, or a status, countersigned."""
    TAINT = "taint"
    KEY_USED = "key-used"
    KEY_DESTROYED = "key-destroyed"
    ENROLLMENT_REQUEST = "enrollment-request"
    """One step of a request that operators decide."""
    OPERATION = "operation"
    """One step of a sensitive operation."""


_REKOR_TYPES = {"hashedrekord": "0.0.2", "dsse": "0.0.1"}


@dataclass(frozen=True, slots=True)
class StatementBody:
    """A countersigned statement as Rekor logs it (``canonicalizedBody``); its `spec` is not looked into."""

    data: bytes
    api_version: str
    kind: str

    @classmethod
    def parse(cls, data: bytes) -> StatementBody:
        """Read a body: canonical JSON of exactly apiVersion, kind and spec, of a type that we log."""
        fields = Fields(strictjson.decode(data, limit=MAX_ENTRY, what="a log entry"), "a Rekor log entry")
        kind, version = fields.text("kind", limit=64), fields.text("apiVersion", limit=64)
        fields.object("spec")
        fields.done()
        if _REKOR_TYPES.get(kind) != version:
            raise Malformed(f"expected a Rekor entry of a known type, got {kind!r} {version!r}")
        return cls(data, version, kind)

    def encode(self) -> bytes:
        return self.data


Entry = CertificateLeaf | PrecertificateLeaf | StatementBody | Act

_KINDS: dict[type[Entry], LogKind] = {
    CertificateLeaf: LogKind.CERTIFICATE,
    PrecertificateLeaf: LogKind.PRECERTIFICATE,
    StatementBody: LogKind.STATEMENT,
    **{act: LogKind(word) for word, act in ACTS.items()},
}


def kind_of(entry: Entry) -> LogKind:
    return _KINDS[type(entry)]


def new_entry(entry: Entry, *, subjects: tuple[str, ...] = (), at: datetime | None = None) -> NewEntry:
    """The entry in its byte form, ready to append.

    `at` is the time that the index keeps; left out, it is the one that the entry itself states (a
    `StatementBody` states none, so there it must be given). `subjects` is what it is found by: SPIFFE IDs
    and ``run:<id>``; they are kept beside the entry and never served. `Oversized` past `MAX_ENTRY` bytes.
    """
    if at is None:
        if isinstance(entry, StatementBody):
            raise Malformed("expected the time of a countersigned statement, got none")
        at = entry.at
    data = entry.encode()
    if len(data) > MAX_ENTRY:
        raise Oversized(f"expected a log entry of at most {MAX_ENTRY} bytes, got {len(data)}")
    return NewEntry(kind_of(entry), at, data, subjects)


def parse_entry(data: bytes) -> Entry:
    """Read an entry of any kind that the log may hold, strictly.

    `Oversized` past `MAX_ENTRY` bytes, before anything is parsed; else `Malformed`, which names an
    unknown type. Nothing is skipped: a monitor must understand all of what it watches.
    """
    if len(data) > MAX_ENTRY:
        raise Oversized(f"expected a log entry of at most {MAX_ENTRY} bytes, got {len(data)}")
    if data.startswith(LEAF_PREFIX):
        return parse_leaf(data)
    value = strictjson.decode(data, limit=MAX_ENTRY, what="a log entry")
    if "apiVersion" in value:
        return StatementBody.parse(data)
    return parse_act(data, Fields(value, "a log entry"))
