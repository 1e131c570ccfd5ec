"""What the session gives, as JSON; the shapes are those of `schemas`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import datetime

from fltrust.artifacts.ports import BlastRadius
from fltrust.clock import to_rfc3339
from fltrust.enrollment.mackeys import MacCredential
from fltrust.enrollment.requests import RequestView
from fltrust.enrollment.token import encode_token
from fltrust.enrollment.types import Enrollment, JoinToken, TokenRecord
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import TrustEvent
from fltrust.rounds.types import RoundRecord
from fltrust.strictbase64 import to_base64url

Json = dict[str, object]


def token_json(record: TokenRecord) -> Json:
    return {
        "id": record.token_id,
        "role": record.role.value,
        "name": record.name,
        "status": record.status.value,
        "createdAt": to_rfc3339(record.created_at),
        "expiresAt": to_rfc3339(record.expires_at),
        "createdBy": _text(record.created_by),
        "replace": record.replace,
        "dnsNames": list(record.dns_names),
    }


def made_token_json(token: JoinToken) -> Json:
    """The token itself, with its secret: for its maker alone, once."""
    return {"token": encode_token(token), "root": str(token.root)}


def credential_json(credential: MacCredential) -> Json:
    """The credential with its key: for its maker alone, once."""
    return {
        "id": credential.credential_id,
        "key": to_base64url(credential.key),
        "expiresAt": to_rfc3339(credential.expires_at),
    }


def participant_json(record: Enrollment) -> Json:
    return {
        "spiffeId": str(record.spiffe_id),
        "role": record.spiffe_id.role.value,
        "name": record.spiffe_id.name,
        "standing": str(record.standing),
        "sinceEpoch": record.since_epoch,
        "enrolledAt": to_rfc3339(record.enrolled_at),
        "enrolledBy": _text(record.enrolled_by),
        "evidence": record.evidence,
        "certificateSerial": record.certificate_serial,
        "certificateNotAfter": _time(record.certificate_not_after),
        "dnsNames": list(record.dns_names),
    }


def event_json(event: TrustEvent) -> Json:
    return {
        "epoch": int(event.epoch),
        "kind": event.kind.value,
        "at": to_rfc3339(event.at),
        "actor": _text(event.actor),
        "subject": _text(event.subject),
        "identityWide": event.identity_wide,
        "serials": [serial.hex for serial in event.serials],
        "keys": list(event.keys),
        "reason": None if event.reason is None else event.reason.value,
        "compromisedSince": _time(event.compromised_since),
    }


def events_json(events: Iterable[TrustEvent]) -> Json:
    return {"events": [event_json(event) for event in events]}


def round_json(record: RoundRecord) -> Json:
    return {
        "run": str(int(record.key.run_id)),
        "step": record.key.step,
        "round": record.key.round,
        "phase": str(record.key.phase),
        "status": record.status.value,
        "aggregator": str(record.aggregator),
        "openedAt": to_rfc3339(record.opened_at),
        "openedEpoch": int(record.opened_epoch),
        "cohort": [str(member.participant) for member in record.cohort],
        "receipt": None if record.receipt is None else b64encode(record.receipt).decode("ascii"),
    }


def bundle_json(bundle: TrustBundle) -> Json:
    pem = bundle_to_pem(bundle).decode("ascii")
    end = "-----END CERTIFICATE-----\n"
    roots = [f"{part}{end}".lstrip() for part in pem.split(end) if part.strip()]
    return {"trustDomain": str(bundle.domain), "sequence": bundle.sequence, "roots": roots}


def request_json(view: RequestView) -> Json:
    request, approval = view.request, view.request.approval
    return {
        "id": request.request_id,
        "state": request.state.value,
        "protocol": request.protocol.value,
        "evidence": request.evidence,
        "role": None if approval is None else approval.role.value,
        "name": None if approval is None else approval.name,
        "dnsNames": [] if approval is None else list(approval.dns_names),
        "replace": approval is not None and approval.replace,
        "needed": request.needed,
        "approvals": view.count,
        "submittedAt": to_rfc3339(request.submitted_at),
        "expiresAt": to_rfc3339(request.expires_at),
        "claims": dict(request.claims),
    }


def blast_json(found: BlastRadius) -> Json:
    return {
        "participant": str(found.participant),
        "since": to_rfc3339(found.since),
        "rounds": [
            {
                "run": str(int(one.run_id)),
                "step": one.step,
                "round": one.round,
                "logIndex": one.log_index,
            }
            for one in found.rounds
        ],
        "aggregates": [
            {
                "run": str(int(one.run_id)),
                "step": one.step,
                "tensors": str(one.tensors),
                "logIndex": one.log_index,
                "direct": one.is_direct,
            }
            for one in found.aggregates
        ],
        "models": [
            {
                "name": one.name,
                "subject": str(one.subject),
                "logIndex": one.log_index,
                "direct": one.is_direct,
            }
            for one in found.models
        ],
    }


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _time(at: datetime | None) -> str | None:
    return None if at is None else to_rfc3339(at)
