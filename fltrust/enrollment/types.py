"""Evidence in, certificate out: what an enrollment needs and gives.

Evidence kinds are a port: a join token is the first; others (OIDC, X.509, TPM,
approval) bring their own dataclass and an `EvidenceChecker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from fltrust.errors import Malformed
from fltrust.identity import Digest, Name, Role, SpiffeId
from fltrust.pki.types import TrustBundle

MAX_NOTE = 200
"""Characters of what a request without evidence says of itself."""


class EnrollmentProtocol(StrEnum):
    """The ways in; all of them end in the one registration authority."""

    GRPC = "grpc"
    ACME = "acme"
    EST = "est"
    CMP = "cmp"
    SCEP = "scep"
    REST = "rest"
    BULK = "bulk"
    LOCAL = "local"


class TokenStatus(StrEnum):
    PENDING = "pending"
    USED = "used"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the coordinator keeps of a join token: never the secret, only its hash."""

    token_id: str
    role: Role
    name: Name
    created_at: datetime
    expires_at: datetime
    created_by: SpiffeId | None
    replace: bool
    status: TokenStatus
    dns_names: tuple[str, ...] = ()
    """DNS names that the certificates of the name will carry; for servers only."""


@dataclass(frozen=True, slots=True)
class JoinTokenEvidence:
    """The one-time secret of a join token, as it came over the wire."""

    secret: bytes

    def binding(self) -> bytes:
        return b"join-token\x00" + self.secret

    def __repr__(self) -> str:
        return "JoinTokenEvidence(secret=…)"


@dataclass(frozen=True, slots=True)
class ManualEvidence:
    """No evidence at all: operators decide who it is, by what they know of the key. `note` is unchecked."""

    note: str = ""

    def __post_init__(self) -> None:
        if len(self.note) > MAX_NOTE or not (self.note.isprintable() or not self.note):
            raise Malformed(f"expected a note of at most {MAX_NOTE} printable characters")

    def binding(self) -> bytes:
        return b"manual\x00" + self.note.encode()


class Evidence(Protocol):
    """Shown by a requester: a frozen dataclass of its own for each kind, judged by that kind's checker.

    An `EvidenceChecker` knows its kind by its class; evidence that no checker accepts is refused.
    """

    def binding(self) -> bytes:
        """What a node key's proof is bound to: the kind, a zero byte, and what only this evidence has.

        It is hashed before it is signed (`node_key_challenge`); it may hold the evidence's secret.
        """
        ...


@dataclass(frozen=True, slots=True)
class Approval:
    """What evidence earns: a name and a role, from the record, never from the request."""

    role: Role
    name: Name
    replace: bool
    """May take over an enrolled or revoked name; only an operator can create such a token."""
    granted_by: SpiffeId | None = None
    """The operator who decided it, where one did."""
    dns_names: tuple[str, ...] = ()
    """DNS names that its certificates carry beside, for a role whose profile has room for them."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """What the evidence says of who asks, for the operators who decide and for the record; nothing secret."""
    account: str | None = None
    """The account that the name was opened for before (ACME): this is its next certificate, and enrolls
    nobody. See `fltrust.enrollment.accounts`."""


@dataclass(frozen=True, slots=True)
class EnrollRequest:
    """One request to enroll. Names in the CSR are ignored.

    `node_key` is the Flower node key's SubjectPublicKeyInfo (DER), for participants
    only; `node_key_proof` is its signature over `node_key_challenge(csr_der, evidence)`.
    """

    evidence: Evidence
    csr_der: bytes
    node_key: bytes | None = None
    node_key_proof: bytes | None = None
    protocol: EnrollmentProtocol = EnrollmentProtocol.GRPC
    """How it came: for the record and for the policy of approvals."""
    source: str = ""
    """Where it came from, such as an address, so that one source cannot fill the list of requests."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that operators have yet to decide."""

    request_id: str
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just issued: `chain_der` is leaf first, without the root."""

    spiffe_id: SpiffeId
    chain_der: tuple[bytes, ...]
    bundle: TrustBundle


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What an operator hands to a site, as one string; see `encode` and `decode`.

    `bootstrap` is the coordinator's bootstrap address and `address` its mTLS one, `host:port`.
    `root_der` is the root certificate itself, so that the site's first TLS handshake is already
    verified against it and the secret is never sent to anybody else.
    """

    bootstrap: str
    address: str
    root_der: bytes
    secret: bytes

    @property
    def root(self) -> Digest:
        """SHA-256 of the root's DER: what operator and site can compare by eye."""
        return Digest.sha256_of(self.root_der)

    def __repr__(self) -> str:
        return f"JoinToken(bootstrap={self.bootstrap!r}, root={self.root}, secret=…)"


class Registrar(Protocol):
    """Where a site enrolls and renews."""

    def enroll(self, request: EnrollRequest) -> Issued:
        """Spend the evidence and issue. Raises `TokenRefused`, `Malformed`, `Conflict`, `Revoked`."""
        ...

    def renew(self, csr_der: bytes) -> Issued:
        """Issue the next certificate of the caller, for a new key. Raises `Revoked`, `Malformed`."""
        ...


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What the record says of one enrolled identity."""

    spiffe_id: SpiffeId
    enrolled_at: datetime
    enrolled_by: SpiffeId | None
    evidence: str
    """The kind of evidence that was shown, e.g. ``join-token``."""
    node_key: bytes | None
    standing: str
    since_epoch: int
    certificate_serial: str | None
    """Hex serial of the newest certificate."""
    certificate_not_after: datetime | None
    dns_names: tuple[str, ...] = ()


class TokenDesk(Protocol):
    """Join tokens, for operators."""

    def create_token(
        self,
        role: Role,
        name: Name,
        *,
        ttl: timedelta,
        replace: bool = False,
        dns_names: tuple[str, ...] = (),
    ) -> JoinToken:
        """Make a single-use token. `replace` allows an enrolled or revoked name to be enrolled anew."""
        ...

    def list_tokens(self) -> tuple[TokenRecord, ...]: ...

    def cancel_token(self, token_id: str) -> TokenRecord: ...


class ParticipantDirectory(Protocol):
    """Who is enrolled."""

    def list_enrollments(self) -> tuple[Enrollment, ...]: ...

    def get_enrollment(self, who: SpiffeId) -> Enrollment: ...
