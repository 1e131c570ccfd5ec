"""Many at once: what an operator brings for each identity, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from fltrust.enrollment.requests import Assignment
from fltrust.enrollment.types import JoinToken
from fltrust.identity import SpiffeId
from fltrust.pki.types import TrustBundle

MAX_ITEMS = 500
"""Items of one call. A file may have any number: it is sent in parts, each durable when it is answered."""


@dataclass(frozen=True, slots=True)
class BulkEvidence:
    """The word of the operator who brings the request. A node key's proof binds to it, and to the CSR."""

    def binding(self) -> bytes:
        return b"bulk\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkItem:
    """One identity, its certificate request, and a participant's node key with its proof."""

    who: Assignment
    csr_der: bytes
    node_key: bytes | None = None
    node_key_proof: bytes | None = None
    proof: bytes | None = None
    """To renew: the present key's signature over `renewal_challenge`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an item was refused: as the error that it alone would have met."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """What became of one item: exactly one of certificate, pending request and refusal."""

    spiffe_id: SpiffeId
    certificate: bytes | None = None
    """DER, the leaf alone; `BulkAnswer` has the rest of its chain."""
    request_id: str | None = None
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAnswer:
    """Results in the order of the items, and what their certificates lead to."""

    results: tuple[BulkResult, ...]
    issuers: tuple[bytes, ...]
    bundle: TrustBundle


class BulkDesk(Protocol):
    """Enrollment and renewal in bulk, for operators. The same items again give the same certificates."""

    def enroll_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer:
        """At most `MAX_ITEMS`. With `atomic`, the first refusal is raised and nothing is done."""
        ...

    def renew_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer: ...

    def create_tokens(self, items: Sequence[Assignment], *, ttl: timedelta) -> tuple[JoinToken, ...]:
        """All or none."""
        ...
