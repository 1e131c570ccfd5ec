"""What ACME calls an error: problem documents of a fixed set of types (RFC 8555, section 6.7)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Refused,
    SignatureInvalid,
    Unavailable,
)

CONTENT_TYPE = "application/problem+json"
_PREFIX = "urn:ietf:params:acme:error:"
_MAX_DETAIL = 400


class ProblemType(StrEnum):
    """The registered types that we use; the value follows ``urn:ietf:params:acme:error:``."""

    ACCOUNT_DOES_NOT_EXIST = "accountDoesNotExist"
    ALREADY_REPLACED = "alreadyReplaced"
    ALREADY_REVOKED = "alreadyRevoked"
    BAD_CSR = "badCSR"
    BAD_NONCE = "badNonce"
    BAD_PUBLIC_KEY = "badPublicKey"
    BAD_REVOCATION_REASON = "badRevocationReason"
    BAD_SIGNATURE_ALGORITHM = "badSignatureAlgorithm"
    CONNECTION = "connection"
    DNS = "dns"
    EXTERNAL_ACCOUNT_REQUIRED = "externalAccountRequired"
    INCORRECT_RESPONSE = "incorrectResponse"
    INVALID_CONTACT = "invalidContact"
    MALFORMED = "malformed"
    ORDER_NOT_READY = "orderNotReady"
    RATE_LIMITED = "rateLimited"
    REJECTED_IDENTIFIER = "rejectedIdentifier"
    SERVER_INTERNAL = "serverInternal"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED_CONTACT = "unsupportedContact"
    UNSUPPORTED_IDENTIFIER = "unsupportedIdentifier"


_STATUS: Mapping[ProblemType, int] = MappingProxyType(
    {
        ProblemType.UNAUTHORIZED: 403,
        ProblemType.ORDER_NOT_READY: 403,
        ProblemType.EXTERNAL_ACCOUNT_REQUIRED: 403,
        ProblemType.REJECTED_IDENTIFIER: 403,
        ProblemType.RATE_LIMITED: 429,
        ProblemType.ALREADY_REPLACED: 409,
        ProblemType.SERVER_INTERNAL: 500,
    }
)
"""HTTP status by type; 400 for the others."""


class AcmeProblem(Refused):
    """A request that ACME has a word for refusing. `status` is the HTTP status."""

    default_reason: ClassVar[str] = "acme-malformed"

    def __init__(
        self,
        kind: ProblemType,
        message: str,
        *,
        status: int | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, reason=f"acme-{kind}")
        self.kind = kind
        self.status = status or _STATUS.get(kind, 400)
        self._more = dict(more or {})

    def document(self) -> dict[str, object]:
        """As it is sent, and kept in challenges and orders that it ended."""
        detail = self.message[:_MAX_DETAIL]
        return {"type": _PREFIX + self.kind, "detail": detail, "status": self.status, **self._more}


def malformed(message: str) -> AcmeProblem:
    return AcmeProblem(ProblemType.MALFORMED, message)


def unauthorized(message: str) -> AcmeProblem:
    return AcmeProblem(ProblemType.UNAUTHORIZED, message)


def problem_of(error: FltrustError) -> AcmeProblem:
    """Say any error of ours in ACME's words. What broke here stays here: `serverInternal`."""
    if isinstance(error, AcmeProblem):
        return error
    if isinstance(error, NotFound):
        return AcmeProblem(ProblemType.MALFORMED, error.message, status=404)
    if isinstance(error, LimitExceeded):
        return AcmeProblem(ProblemType.RATE_LIMITED, error.message)
    if isinstance(error, InvalidInput):
        return AcmeProblem(ProblemType.MALFORMED, error.message)
    if isinstance(error, SignatureInvalid | CertificateRefused):
        return AcmeProblem(ProblemType.BAD_CSR, error.message)
    if isinstance(error, Conflict) and error.reason == "key-reused":
        return AcmeProblem(ProblemType.BAD_PUBLIC_KEY, error.message)
    if isinstance(error, Refused | Conflict):
        return AcmeProblem(ProblemType.UNAUTHORIZED, error.message)
    if isinstance(error, Unavailable):
        return AcmeProblem(ProblemType.SERVER_INTERNAL, "try again later", status=503)
    return AcmeProblem(ProblemType.SERVER_INTERNAL, "internal error")
