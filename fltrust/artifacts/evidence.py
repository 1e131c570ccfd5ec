"""What makes a signature verifiable for good, checked: certificate, its log, time, and the log entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from fltrust.artifacts.trustfile import TrustFile
from fltrust.identity import Digest


@dataclass(frozen=True, slots=True)
class Trust:
    """A trust file whose keys and certificates were read: what bundles are verified against."""

    file: TrustFile

    @classmethod
    def of(cls, file: TrustFile) -> Self:
        return cls(file)


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """An in-toto statement whose signature and evidence hold. Who may say it is judged after this.

    `signer` and `issuer` are as in the certificate: a SPIFFE ID and ``spiffe://<domain>`` of ours, an
    e-mail address or URI and an OIDC issuer of Sigstore's. `signed_at` is the earliest verified time.
    """

    payload: bytes
    predicate_type: str
    signer: str
    issuer: str | None
    signed_at: datetime
    certificate: Digest
    log_index: int | None
    log_id: bytes | None
    witnesses: frozenset[str]

    @property
    def payload_digest(self) -> Digest:
        return Digest.sha256_of(self.payload)


def verify_bundle(data: bytes, *, trust: Trust, require_log: bool = True) -> VerifiedStatement:
    """Verify a Sigstore bundle around an in-toto statement, offline: see the steps in `recipe`."""
    raise NotImplementedError
