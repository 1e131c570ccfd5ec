"""Every error fltrust raises, one tree.

    FltrustError
    ├── InvalidInput            what came is not what the format allows
    │   ├── Malformed
    │   └── Oversized
    ├── Refused                 understood, and the answer is no
    │   ├── Unauthenticated     who are you?
    │   ├── PermissionDenied    not your call
    │   ├── TokenRefused        join token unknown, used, expired or cancelled
    │   ├── EvidenceRefused     evidence of another kind: who vouches, for whom, when, or used before
    │   ├── CertificateRefused  path, time, profile or trust domain
    │   ├── Revoked             revoked or held, with the epoch that says so
    │   ├── SignatureInvalid
    │   ├── StatementRefused    signed, but says something else than it must
    │   ├── UpdateRefused       the content itself: digest, structure, policy
    │   ├── QuorumNotMet
    │   ├── RequestDenied       an operator said no to it
    │   └── ArtifactRefused     a model, its signature or its lineage
    │       ├── Tampered            the bytes are not the ones that were signed
    │       ├── UntrustedSigner     signed, by somebody whom trust or policy does not name
    │       ├── EvidenceMissing     signature, timestamp, log entry or lineage that is demanded is not there
    │       ├── EvidenceInvalid     it is there and does not verify
    │       ├── Tainted             made of updates that count as compromised
    │       └── PolicyNotMet        any other demand of the policy
    ├── NotFound
    ├── Conflict                the thing is already there, or in another state
    ├── LimitExceeded           rate, size or count
    └── Unavailable             try again later
        ├── CoordinatorUnavailable
        ├── AgentUnavailable
        ├── StaleView           trust view older than policy allows
        ├── ApprovalPending     operators have yet to decide; ask again
        └── StorageUnavailable  disk full, read-only, locked

A message says what was expected, what came and for whom; ``hint`` says what to
do next. ``reason`` is the stable, machine-readable word that crosses the wire,
names the counter and selects the CLI's exit code. No message, hint or detail
ever carries a secret.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Refusal(StrEnum):
    """Why a certificate, statement, update or reply was not accepted."""

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNKNOWN_TYPE = "unknown-type"
    SIGNATURE_INVALID = "signature-invalid"
    CERTIFICATE_PATH = "certificate-path"
    CERTIFICATE_PROFILE = "certificate-profile"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    UNKNOWN_IDENTITY = "unknown-identity"
    UNKNOWN_CERTIFICATE = "unknown-certificate"
    ISSUER_REVOKED = "issuer-revoked"
    REVOKED = "revoked"
    HELD = "held"
    WRONG_DOMAIN = "wrong-domain"
    WRONG_ROLE = "wrong-role"
    WRONG_RUN = "wrong-run"
    WRONG_ROUND = "wrong-round"
    WRONG_PHASE = "wrong-phase"
    WRONG_PARTICIPANT = "wrong-participant"
    WRONG_NODE = "wrong-node"
    WRONG_INSTRUCTION = "wrong-instruction"
    WRONG_MODEL = "wrong-model"
    WRONG_CERTIFICATE = "wrong-certificate"
    RUN_NOT_OPEN = "run-not-open"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    DIGEST_MISMATCH = "digest-mismatch"
    STRUCTURE = "structure"
    NOT_FINITE = "not-finite"
    DUPLICATE = "duplicate"
    LATE = "late"
    STALLED = "stalled"
    NO_REPLY = "no-reply"
    STALE_VIEW = "stale-view"


class FltrustError(Exception):
    """Root of the tree. Catch this to catch everything fltrust raises."""

    default_reason: ClassVar[str] = "internal"

    def __init__(self, message: str, *, reason: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason: str = str(reason) if reason is not None else self.default_reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(FltrustError):
    default_reason = "invalid-input"


class Malformed(InvalidInput):
    default_reason = Refusal.MALFORMED.value


class Oversized(InvalidInput):
    default_reason = Refusal.OVERSIZED.value


class Refused(FltrustError):
    default_reason = "refused"


class Unauthenticated(Refused):
    default_reason = "unauthenticated"


class PermissionDenied(Refused):
    default_reason = "permission-denied"


class TokenRefused(Refused):
    """``reason``: ``token-unknown``, ``token-used``, ``token-expired``, ``token-cancelled``,
    ``granter-barred``."""

    default_reason = "token-unknown"


class EvidenceRefused(Refused):
    """``reason`` names what was wrong: ``token-audience``, ``token-used``, ``issuer-unknown``…"""

    default_reason = "evidence-refused"


class CertificateRefused(Refused):
    """``reason`` is one of the ``certificate-*``, ``wrong-*``, ``unknown-*`` or ``issuer-revoked``."""

    default_reason = Refusal.CERTIFICATE_PATH.value


class Revoked(Refused):
    """The identity, key or certificate was revoked (or is held) at an epoch in force."""

    default_reason = Refusal.REVOKED.value


class SignatureInvalid(Refused):
    default_reason = Refusal.SIGNATURE_INVALID.value


class StatementRefused(Refused):
    default_reason = Refusal.MALFORMED.value


class UpdateRefused(Refused):
    default_reason = Refusal.STRUCTURE.value


class QuorumNotMet(Refused):
    default_reason = "quorum-not-met"


class RequestDenied(Refused):
    """``reason``: ``request-denied``, or ``request-expired`` where nobody decided in time."""

    default_reason = "request-denied"


class ArtifactRefused(Refused):
    default_reason = "artifact-refused"


class Tampered(ArtifactRefused):
    """``reason``: ``tampered``, or what was found: ``file-missing``, ``file-added``, ``file-changed``…"""

    default_reason = "tampered"


class UntrustedSigner(ArtifactRefused):
    default_reason = "untrusted-signer"


class EvidenceMissing(ArtifactRefused):
    default_reason = "evidence-missing"


class EvidenceInvalid(ArtifactRefused):
    default_reason = "evidence-invalid"


class Tainted(ArtifactRefused):
    default_reason = "tainted"


class PolicyNotMet(ArtifactRefused):
    default_reason = "policy-not-met"


class NotFound(FltrustError):
    default_reason = "not-found"


class Conflict(FltrustError):
    default_reason = "conflict"


class LimitExceeded(FltrustError):
    default_reason = "limit-exceeded"


class Unavailable(FltrustError):
    default_reason = "unavailable"


class CoordinatorUnavailable(Unavailable):
    default_reason = "coordinator-unavailable"


class AgentUnavailable(Unavailable):
    default_reason = "agent-unavailable"


class StaleView(Unavailable):
    default_reason = Refusal.STALE_VIEW.value


class ApprovalPending(Unavailable):
    """The request was taken and waits for operators. `request_id` names it; ask again with the same key."""

    default_reason = "approval-pending"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        hint: str | None = None,
        request_id: str = "",
        retry_after: float = 5.0,
    ) -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.request_id = request_id
        self.retry_after = retry_after
        """Seconds."""


class StorageUnavailable(Unavailable):
    default_reason = "storage-unavailable"


def leaf_classes() -> tuple[type[FltrustError], ...]:
    """Every class of the tree, root first: the wire rebuilds an error from its class name."""
    found: list[type[FltrustError]] = [FltrustError]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub.__module__ == __name__)
    return tuple(found)
