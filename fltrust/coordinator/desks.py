"""The desks of a coordinator that keeps signatures and lineage, put together around its notary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fltrust.artifacts.ports import BlastRadius, EntryKind, RoundFacts, StepOfRun
from fltrust.identity import Digest, RunId, SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.wire.artifacts import AuditQuery


class Signing(Protocol):
    """`fltrust.artifacts.ports.SigningDesk`, told who calls."""

    def certify(self, caller: VerifiedCertificate, csr_der: bytes) -> tuple[bytes, ...]: ...

    def countersign(
        self,
        caller: VerifiedCertificate,
        envelope: bytes,
        certificate: bytes,
        *,
        entry_kind: EntryKind = EntryKind.HASHEDREKORD,
    ) -> bytes: ...


class Lineage(Protocol):
    """The reading half of `fltrust.artifacts.ports.LineageArchive`."""

    def describe_round(self, caller: VerifiedCertificate, run_id: RunId, step: int) -> RoundFacts: ...

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]: ...

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius: ...


class Trusting(Protocol):
    def trust_file(self) -> bytes: ...


class Auditing(Protocol):
    def lines(self, query: AuditQuery) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desks:
    """Everything that a session asks beside enrollment, standing and rounds."""

    signing: Signing
    lineage: Lineage
    trust: Trusting
    audit: Auditing
