"""A sensitive operation, and what each operator signs of it: exact words, one byte form.

The operation is canonical JSON of the type ``urn:fltrust:operation:v1``; its SHA-256 is its name in the log.
Every operator, the proposer too, signs a decision (``urn:fltrust:operation-decision:v1``) that names this
digest, in a DSSE envelope of a payload type of its own: no signature of ours made for anything else passes
for one. Signed decisions stay verifiable offline, with the certificates that travel in them.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.enrollment.approvals import MAX_REASON, check_reason
from fltrust.errors import Malformed, Refusal, SignatureInvalid, StatementRefused
from fltrust.identity import Digest, KeyId, Role, SpiffeId, TrustDomain
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_signature
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN, verify_certificate
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.strictjson import Fields
from fltrust.updates.dsse import pae

MAX_OPERATION = 256 * 1024
"""Bytes of an operation's payload."""
MAX_SIGNED_DECISION = 64 * 1024
"""Bytes of a signed decision: its envelope and its certificates."""
PAYLOAD_TYPE = "application/vnd.fltrust.operation-decision+json"

_ID = re.compile(r"[0-9a-f]{32}\Z")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_MAX_ID_TEXT = 512


class Verdict(StrEnum):
    """What an operator signs: that it be proposed, done, or not done."""

    PROPOSE = "propose"
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is to be done, and until when it may be. `parameters` are the kind's own, as JSON values."""

    TYPE: ClassVar[str] = "urn:fltrust:operation:v1"
    domain: TrustDomain
    operation_id: str
    """32 random hex digits of the proposer's."""
    kind: str
    parameters: Mapping[str, object]
    proposer: SpiffeId
    reason: str
    proposed_at: datetime
    expires_at: datetime

    def __post_init__(self) -> None:
        check_operation_id(self.operation_id)
        check_kind(self.kind)
        if check_reason(self.reason) != self.reason:
            raise Malformed("expected the reason of an operation without spaces around it")
        if self.proposer.role is not Role.OPERATOR or self.proposer.domain != self.domain:
            raise Malformed(f"expected an operator of {self.domain} to propose, got {self.proposer}")
        if self.expires_at <= self.proposed_at:
            raise Malformed("expected an operation to expire after it was proposed")

    def to_payload(self) -> bytes:
        """The exact words."""
        payload = strictjson.encode(
            {
                "type": self.TYPE,
                "trustDomain": self.domain,
                "id": self.operation_id,
                "kind": self.kind,
                "parameters": dict(self.parameters),
                "proposer": str(self.proposer),
                "reason": self.reason,
                "proposedAt": to_rfc3339(self.proposed_at),
                "expiresAt": to_rfc3339(self.expires_at),
            }
        )
        if len(payload) > MAX_OPERATION:
            raise Malformed(
                f"expected an operation of at most {MAX_OPERATION} bytes, got {len(payload)}",
                hint="split it: what names fewer identities is decided on its own",
            )
        return payload

    @classmethod
    def from_payload(cls, data: bytes) -> Self:
        """Read what `to_payload` writes, and nothing else: `Oversized`, else `Malformed`."""
        fields = Fields(strictjson.decode(data, limit=MAX_OPERATION, what="an operation"), "an operation")
        _check_type(fields, cls.TYPE)
        parameters = fields.any("parameters")
        if not isinstance(parameters, dict):
            raise Malformed("expected the parameters of an operation as an object")
        found = cls(
            domain=fields.domain("trustDomain"),
            operation_id=fields.text("id", limit=32),
            kind=fields.text("kind", limit=32),
            parameters=parameters,
            proposer=SpiffeId.parse(fields.text("proposer", limit=_MAX_ID_TEXT)),
            reason=fields.text("reason", limit=MAX_REASON),
            proposed_at=fields.time("proposedAt"),
            expires_at=fields.time("expiresAt"),
        )
        fields.done()
        if found.to_payload() != data:
            raise Malformed("expected an operation in its one byte form, got another")
        return found

    @property
    def digest(self) -> Digest:
        """SHA-256 of the exact words."""
        return Digest.sha256_of(self.to_payload())


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationDecision:
    """One operator's word on one operation."""

    TYPE: ClassVar[str] = "urn:fltrust:operation-decision:v1"
    operation: Digest
    kind: str
    verdict: Verdict
    operator: SpiffeId
    reason: str
    signed_at: datetime
    certificate: Digest
    """SHA-256 of the signing certificate, in DER."""

    def to_payload(self) -> bytes:
        return strictjson.encode(
            {
                "type": self.TYPE,
                "operation": str(self.operation),
                "kind": self.kind,
                "verdict": self.verdict,
                "operator": str(self.operator),
                "reason": self.reason,
                "signedAt": to_rfc3339(self.signed_at),
                "certificate": str(self.certificate),
            }
        )

    @classmethod
    def from_payload(cls, data: bytes) -> Self:
        what = "a decision on an operation"
        fields = Fields(strictjson.decode(data, limit=MAX_SIGNED_DECISION, what=what), what)
        _check_type(fields, cls.TYPE)
        found = cls(
            operation=fields.digest("operation"),
            kind=check_kind(fields.text("kind", limit=32)),
            verdict=fields.choice("verdict", Verdict),
            operator=SpiffeId.parse(fields.text("operator", limit=_MAX_ID_TEXT)),
            reason=check_reason(fields.text("reason", limit=MAX_REASON)),
            signed_at=fields.time("signedAt"),
            certificate=fields.digest("certificate"),
        )
        fields.done()
        if found.to_payload() != data:
            raise Malformed(f"expected {what} in its one byte form, got another")
        return found


def sign_decision(
    operation: Operation,
    verdict: Verdict,
    *,
    reason: str,
    signer: Signer,
    chain: Sequence[bytes],
    operator: SpiffeId,
    at: datetime,
) -> bytes:
    """Sign a verdict on these exact words with the operator's own key; `chain` is leaf first, in DER."""
    decision = OperationDecision(
        operation=operation.digest,
        kind=operation.kind,
        verdict=verdict,
        operator=operator,
        reason=check_reason(reason),
        signed_at=at,
        certificate=Digest.sha256_of(chain[0]),
    )
    payload = decision.to_payload()
    return strictjson.encode(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": to_base64(payload),
            "signatures": [
                {"keyid": signer.key_id, "sig": to_base64(signer.sign(pae(PAYLOAD_TYPE, payload)))}
            ],
            "chain": [to_base64(der) for der in chain],
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDecision:
    """A decision whose signature, certificate and operation were verified."""

    decision: OperationDecision
    certificate: VerifiedCertificate
    payload: bytes

    @property
    def digest(self) -> Digest:
        return Digest.sha256_of(self.payload)


def verify_decision(
    signed: bytes, operation: Operation, *, bundle: TrustBundle, at: datetime | None = None
) -> VerifiedDecision:
    """Return the decision in `signed` if an operator made it on exactly these words, or raise.

    `at` is the time at which the certificate must be good; without it, the time that the decision itself
    states, for whoever verifies later. Whether the operator was revoked is judged by the record, after this.

    1. Bounds, then JSON in one byte form, of one signature and this payload type.
    2. The certificate verifies under the bundle at that time, as an operator's of the operation's domain.
    3. The signature is its key's over the payload: only now the payload is believed to be its words.
    4. The decision names this certificate and its operator, and lies within the operation's time.
    5. It is on the digest and the kind of this operation, else `StatementRefused`.
    """
    # 1.
    what = "a signed decision"
    fields = Fields(strictjson.decode(signed, limit=MAX_SIGNED_DECISION, what=what), what)
    if (found := fields.text("payloadType", limit=128)) != PAYLOAD_TYPE:
        raise StatementRefused(
            f"expected a payload of {PAYLOAD_TYPE!r}, got {found[:80]!r}", reason=Refusal.UNKNOWN_TYPE
        )
    payload = from_base64(fields.text("payload", limit=MAX_SIGNED_DECISION), "the payload")
    signature, key_id = _one_signature(fields)
    chain = [
        from_base64(text, "a certificate")
        for text in fields.texts("chain", limit=MAX_CHAIN, each=2 * MAX_CERTIFICATE)
    ]
    fields.done()
    decision = OperationDecision.from_payload(payload)
    # 2.
    certificate = verify_certificate(
        chain,
        bundle=bundle,
        at=decision.signed_at if at is None else at,
        expect_domain=operation.domain,
        expect_role=Role.OPERATOR,
    )
    # 3.
    public_key = certificate.leaf.public_key()
    if key_id != certificate.key_id or not is_p256(public_key):
        raise SignatureInvalid(f"expected a signature by {certificate.spiffe_id}, got another key's")
    verify_signature(public_key, signature, pae(PAYLOAD_TYPE, payload))
    # 4.
    if decision.operator != certificate.spiffe_id or decision.certificate != certificate.fingerprint:
        raise StatementRefused(
            f"expected the decision of {certificate.spiffe_id}, it says it is another's",
            reason=Refusal.WRONG_CERTIFICATE,
        )
    if not operation.proposed_at - _SKEW <= decision.signed_at < operation.expires_at:
        raise StatementRefused(
            f"expected a decision between {to_rfc3339(operation.proposed_at)} and "
            f"{to_rfc3339(operation.expires_at)}, got one of {to_rfc3339(decision.signed_at)}",
            reason=Refusal.EXPIRED,
        )
    # 5.
    if decision.kind != operation.kind or not hmac.compare_digest(
        decision.operation.value, operation.digest.value
    ):
        raise StatementRefused(
            f"expected a decision on the operation {operation.operation_id}, got one on another",
            reason="wrong-operation",
            hint="fetch the operation again and sign what it says now",
        )
    return VerifiedDecision(decision=decision, certificate=certificate, payload=payload)


_SKEW = timedelta(seconds=30)


def check_operation_id(text: str) -> str:
    """Return an id of 32 hex digits; `Malformed` for anything else."""
    if not _ID.match(text):
        raise Malformed(f"expected an id of 32 hex digits, got {text[:40]!r}")
    return text


def check_kind(text: str) -> str:
    """Return the kind of an operation, such as ``release-hold``; `Malformed` for anything else."""
    if not _KIND.match(text):
        raise Malformed(f"expected a kind of operation, such as 'release-hold', got {text[:40]!r}")
    return text


def _one_signature(fields: Fields) -> tuple[bytes, KeyId]:
    signatures = fields.objects("signatures", limit=1)
    if len(signatures) != 1:
        raise Malformed(f"expected exactly one signature, got {len(signatures)}")
    entry = signatures[0]
    key_id = KeyId(entry.text("keyid", limit=64))
    signature = from_base64(entry.text("sig", limit=128), "the signature")
    entry.done()
    return signature, key_id


def _check_type(fields: Fields, expected: str) -> None:
    if (found := fields.text("type", limit=128)) != expected:
        raise StatementRefused(f"expected {expected!r}, got {found[:80]!r}", reason=Refusal.UNKNOWN_TYPE)
