"""What the registration authority needs kept: tokens, enrollments and the certificates issued.

Every method runs inside the caller's transaction: nothing is durable before it commits, and all of
it is or none. Storage implements these; a refusal raised by the caller undoes the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from fltrust.enrollment.types import Approval, EnrollRequest, Evidence, TokenRecord
from fltrust.identity import CaKeyId, KeyId, Name, Role, Serial, SpiffeId


@dataclass(frozen=True, slots=True)
class EnrolledRecord:
    """The record of one name: what the last enrollment wrote. Standing is the trust feed's."""

    spiffe_id: SpiffeId
    enrolled_at: datetime
    enrolled_by: SpiffeId | None
    evidence: str
    node_key: bytes | None
    dns_names: tuple[str, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """One certificate that was issued; kept for good."""

    serial: Serial
    spiffe_id: SpiffeId
    key_id: KeyId
    not_before: datetime
    not_after: datetime
    der: bytes
    issuer: CaKeyId
    """The key of the CA that issued it, as it names it (authorityKeyIdentifier)."""


class TokenStore(Protocol):
    """Join tokens by the hash of their secret."""

    def add(self, record: TokenRecord, *, secret_hash: bytes) -> None: ...

    def find(self, secret_hash: bytes, *, now: datetime) -> TokenRecord | None: ...

    def get(self, token_id: str, *, now: datetime) -> TokenRecord | None: ...

    def all(self, *, now: datetime) -> tuple[TokenRecord, ...]:
        """Every token, the oldest first, with its status at `now`."""
        ...

    def spend(self, token_id: str, *, now: datetime) -> bool:
        """Mark a pending token used; False if it is not pending at `now`. Of two callers one gets True."""
        ...

    def cancel(self, token_id: str, *, now: datetime) -> bool:
        """Mark a pending token cancelled; False if it is not pending at `now`."""
        ...

    def cancel_all_for(self, role: Role, name: Name, *, now: datetime) -> None:
        """Mark every pending token for a name cancelled."""
        ...

    def cancel_all_by(self, operator: SpiffeId, *, now: datetime) -> None:
        """Mark every pending token that an operator made cancelled."""
        ...

    def spend_once(self, kind: str, digest: bytes, *, now: datetime) -> bool:
        """Remember for good that this evidence, which no operator made a token for, was used; False if it
        was before. Of two callers one gets True. `digest` is a SHA-256."""
        ...


class EnrollmentStore(Protocol):
    """Who is enrolled, and which node keys ever were."""

    def get(self, who: SpiffeId) -> EnrolledRecord | None: ...

    def all(self) -> tuple[EnrolledRecord, ...]: ...

    def put(self, record: EnrolledRecord) -> None:
        """Write the record of a name, in place of an earlier one; its node key is remembered for good."""
        ...

    def add_all(self, records: Sequence[EnrolledRecord]) -> None:
        """Write the records of names that have none, with node keys that nobody has."""
        ...

    def known_node_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        """Which of these were ever enrolled."""
        ...

    def node_key_owner(self, key: KeyId) -> SpiffeId | None:
        """The participant that ever enrolled this node key, if any did."""
        ...


class CertificateStore(Protocol):
    """Every certificate that was issued."""

    def add(self, record: CertificateRecord) -> None: ...

    def add_all(self, records: Sequence[CertificateRecord]) -> None: ...

    def known_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        """Which of these were ever certified."""
        ...

    def by_serial(self, serial: Serial) -> CertificateRecord | None: ...

    def by_key(self, key: KeyId) -> CertificateRecord | None:
        """The certificate of this key that ends last."""
        ...

    def all_by_key(self, key: KeyId) -> tuple[CertificateRecord, ...]:
        """Every certificate of this key, the one that ends last first: all of one identity."""
        ...

    def of(self, who: SpiffeId) -> tuple[CertificateRecord, ...]:
        """Every certificate that `who` was ever issued."""
        ...

    def count_issued_by(self, issuer: CaKeyId) -> int:
        """How many certificates on record a CA's key signed."""
        ...

    def unexpired_of(self, who: SpiffeId, *, now: datetime) -> tuple[CertificateRecord, ...]: ...

    def count_unexpired_of(self, who: SpiffeId, *, now: datetime) -> int: ...

    def newest_of(self, who: SpiffeId) -> CertificateRecord | None:
        """The certificate of `who` that ends last."""
        ...

    def all(self) -> tuple[CertificateRecord, ...]:
        """Every certificate, in the order in which they became valid."""
        ...

    def count_live(self, *, now: datetime) -> dict[SpiffeId, int]:
        """How many certificates that have not expired each identity has."""
        ...

    def newest(self) -> dict[SpiffeId, CertificateRecord]:
        """The same for everybody in the enrollment record, in one go."""
        ...


class EvidenceChecker(Protocol):
    """Turns one kind of evidence into an approval, inside the transaction that issues."""

    @property
    def kind(self) -> str:
        """The word that the record keeps, e.g. ``join-token``."""
        ...

    def accepts(self, evidence: Evidence) -> bool:
        """Whether this checker judges this kind of evidence."""
        ...

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """Spend the evidence and say what it earns, or raise a `Refused`. If the transaction is
        undone, so is the spending."""
        ...


@runtime_checkable
class RecordChecker(EvidenceChecker, Protocol):
    """A checker of evidence that rests on what is on record here."""

    def confirm(
        self, evidence: Evidence, *, certificates: CertificateStore, enrollments: EnrollmentStore
    ) -> None:
        """Return only if the record bears the evidence out; in the transaction, right before `approve`."""
        ...


@runtime_checkable
class ExaminingChecker(EvidenceChecker, Protocol):
    """A checker of evidence that takes work to judge, or that is bound to the request it came with."""

    def examine(self, request: EnrollRequest, *, now: datetime) -> Evidence:
        """Verify what needs no record, before a transaction is begun: signatures, the binding to
        `request.csr_der`. Returns what was verified, for `approve`; raises a `Refused` otherwise.

        Waits for no network: what has to be fetched first raises `Unavailable`, and is fetched meanwhile."""
        ...
