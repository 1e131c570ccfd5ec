"""An entry of the log in an auditor's words: who did what to whom, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.strictbase64 import from_base64
from fltrust.tlog.approvals import EnrollmentRequestEntry, OperationEntry
from fltrust.tlog.entries import (
    CertificateLeaf,
    EnrollmentRefused,
    Entry,
    LogOpened,
    ParticipantCertificate,
    PrecertificateLeaf,
    SealedRound,
    StatementBody,
    Taint,
    TrustEventEntry,
)
from fltrust.tlog.keyacts import KeyDestroyed, KeyUsed
from fltrust.tlog.ports import MAX_ENTRY

MAX_LISTED = 8
"""Of what an entry lists, so many are named; of the rest it is said how many there are."""


@dataclass(frozen=True, slots=True)
class Words:
    """`actor` and `subject` are names as the entry has them, or ``run/<id>``."""

    actor: str | None
    subject: str | None
    detail: Mapping[str, object]


def words_of(entry: Entry) -> Words:
    """What an entry says. Pure, and of the entry alone."""
    match entry:
        case LogOpened():
            return Words(None, str(entry.domain), {"log": entry.origin, "names": entry.public_names.value})
        case CertificateLeaf():
            return _certificate(entry.read())
        case PrecertificateLeaf():
            return _certificate(entry.read(), use="signing")
        case ParticipantCertificate():
            detail = {"certificate": str(entry.certificate), **_window(entry.not_before, entry.not_after)}
            return Words(None, entry.name, detail)
        case TrustEventEntry():
            return _event(entry)
        case EnrollmentRefused():
            return Words(None, entry.name, {"reason": entry.reason, "token": entry.token_id})
        case SealedRound():
            return Words(
                entry.aggregator,
                f"run/{int(entry.run_id)}",
                {
                    "step": entry.step,
                    "round": entry.round,
                    "phase": entry.phase,
                    "admitted": entry.admitted,
                    "refused": entry.refused,
                    "epoch": int(entry.epoch),
                },
            )
        case StatementBody():
            return _statement(entry)
        case Taint():
            return _taint(entry)
        case EnrollmentRequestEntry():
            return Words(
                entry.operator,
                entry.name,
                {"step": entry.step.value, "protocol": entry.protocol, **_decided(entry)},
            )
        case OperationEntry():
            what = {"operation": str(entry.operation), "kind": entry.operation_kind}
            return Words(entry.operator, None, {**what, "step": entry.step.value, **_decided(entry)})
        case KeyUsed():
            counts = {"signatures": entry.signatures, "failed": entry.failed}
            return Words(None, None, {"key": entry.key, "key_id": str(entry.key_id), **counts})
        case KeyDestroyed():
            detail = {"key_id": str(entry.key_id), "home": entry.home, "reason": entry.reason}
            return Words(None, None, {**detail, "was_there": entry.was_there})


def _decided(entry: EnrollmentRequestEntry | OperationEntry) -> dict[str, object]:
    found: dict[str, object] = {"approvals": f"{entry.count} of {entry.needed}"}
    if entry.decision is not None:
        found["decision"] = str(entry.decision)
    return found


def _event(entry: TrustEventEntry) -> Words:
    subject = entry.subject if entry.run_id is None else f"run/{int(entry.run_id)}"
    detail: dict[str, object] = {"event": entry.event.value, "epoch": int(entry.epoch)}
    if entry.reason is not None and entry.event.value in ("revoked", "held"):
        detail["reason"] = entry.reason
    if entry.compromised_since is not None:
        detail["compromised_since"] = to_rfc3339(entry.compromised_since)
    if not entry.identity_wide and entry.serials:
        detail["serials"] = [serial.hex for serial in entry.serials[:MAX_LISTED]]
    return Words(entry.actor, subject, detail)


def _certificate(certificate: x509.Certificate, **more: object) -> Words:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:  # a timestamp authority's
        uris = []
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Words(
        None,
        uris[0] if uris else certificate.subject.rfc4514_string(),
        {
            **more,
            "serial": f"{certificate.serial_number:040x}",
            **_window(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
        },
    )


def _statement(entry: StatementBody) -> Words:
    """A countersigned statement: only its digest stands in the log, and who signed it."""
    spec = strictjson.Fields(strictjson.decode_any(entry.data, limit=MAX_ENTRY, what="an entry"), "an entry")
    body = spec.object("spec")
    if entry.kind == "dsse":
        signature = body.objects("signatures", limit=1)[0]
        certificate = x509.load_pem_x509_certificate(
            from_base64(signature.text("verifier", limit=MAX_ENTRY), "a verifier")
        )
        digest = "sha256:" + body.object("payloadHash").text("value", limit=64)
    else:
        signed = body.object("hashedRekordV002")
        verifier = signed.object("signature").object("verifier").object("x509Certificate")
        certificate = x509.load_der_x509_certificate(
            from_base64(verifier.text("rawBytes", limit=MAX_ENTRY), "a certificate")
        )
        digest = "sha256:" + from_base64(signed.object("data").text("digest", limit=64), "a digest").hex()
    signer = _certificate(certificate).subject
    return Words(signer, None, {"signed": digest, "entry": f"{entry.kind} {entry.api_version}"})


def _taint(entry: Taint) -> Words:
    found: dict[str, object] = {
        "since": to_rfc3339(entry.since),
        "epoch": int(entry.epoch),
        "rounds": [f"{int(item.run_id)}/{item.step}" for item in entry.rounds[:MAX_LISTED]],
        "aggregates": [f"{int(item.run_id)}/{item.step}" for item in entry.aggregates[:MAX_LISTED]],
        "models": [item.name for item in entry.models[:MAX_LISTED]],
    }
    counts = {"rounds": len(entry.rounds), "aggregates": len(entry.aggregates), "models": len(entry.models)}
    more = {f"more_{name}": n - MAX_LISTED for name, n in counts.items() if n > MAX_LISTED}
    return Words(None, entry.participant, {k: v for k, v in (found | more).items() if v != []})


def _window(start: datetime, end: datetime) -> dict[str, object]:
    return {"not_before": to_rfc3339(start), "not_after": to_rfc3339(end)}
