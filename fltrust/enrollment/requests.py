"""A request to enroll, from its submission to its certificate in the log: a pure machine, and its store.

    submitted ──check──► evidence-checked ──approve──► approved ──issue──► issued ──deliver──► delivered
        │                    │      ▲                    │ │                  └──publish──┐        │
        │                    │      └──────reopen────────┘ │                              ▼     publish
        └──deny, expire──────┴──deny, expire───────────────┘                          published ◄──┘

What shows evidence is checked as it comes in. A request without (`manual`) stays submitted until the first
operator who approves it has given it a name: that is its check. `denied`, `expired` and `published` are
final. An approval that no longer counts, since its operator was revoked, reopens what was approved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from fltrust.enrollment.approvals import Decision
from fltrust.enrollment.types import Approval, EnrollmentProtocol
from fltrust.errors import Conflict
from fltrust.identity import KeyId, Name, Role, Serial


class RequestState(StrEnum):
    SUBMITTED = "submitted"
    CHECKED = "evidence-checked"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    ISSUED = "issued"
    DELIVERED = "delivered"
    PUBLISHED = "published"


class RequestStep(StrEnum):
    """What happens to a request."""

    CHECK = "check"
    APPROVE = "approve"
    REOPEN = "reopen"
    DENY = "deny"
    EXPIRE = "expire"
    ISSUE = "issue"
    DELIVER = "deliver"
    PUBLISH = "publish"


OPEN = frozenset({RequestState.SUBMITTED, RequestState.CHECKED, RequestState.APPROVED})
"""States in which no certificate was issued and one still may be."""
CERTIFIED = frozenset({RequestState.ISSUED, RequestState.DELIVERED, RequestState.PUBLISHED})

TRANSITIONS: Mapping[tuple[RequestState, RequestStep], RequestState] = MappingProxyType(
    {
        (RequestState.SUBMITTED, RequestStep.CHECK): RequestState.CHECKED,
        (RequestState.CHECKED, RequestStep.APPROVE): RequestState.APPROVED,
        (RequestState.APPROVED, RequestStep.REOPEN): RequestState.CHECKED,
        (RequestState.APPROVED, RequestStep.ISSUE): RequestState.ISSUED,
        (RequestState.ISSUED, RequestStep.DELIVER): RequestState.DELIVERED,
        (RequestState.ISSUED, RequestStep.PUBLISH): RequestState.PUBLISHED,
        (RequestState.DELIVERED, RequestStep.PUBLISH): RequestState.PUBLISHED,
        **{(state, RequestStep.DENY): RequestState.DENIED for state in OPEN},
        **{(state, RequestStep.EXPIRE): RequestState.EXPIRED for state in OPEN},
    }
)
"""Everything that can happen. What is not here is refused."""


def advance(state: RequestState, step: RequestStep) -> RequestState:
    """The state after a step; `Conflict` (``request-<state>``) for one that cannot happen there."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        hint = None
        if state in CERTIFIED and step is RequestStep.DENY:
            hint = "its certificate was issued: revoke it"
        raise Conflict(
            f"expected a request on which '{step}' is possible, this one is {state} already",
            reason=f"request-{state}",
            hint=hint,
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as it is kept. Its id is random: who does not know it cannot ask about it."""

    request_id: str
    state: RequestState
    protocol: EnrollmentProtocol
    evidence: str
    """The kind."""
    evidence_digest: bytes
    """SHA-256 of the evidence's binding: the same request, sent again, is this one."""
    csr_der: bytes
    key_id: KeyId
    node_key: bytes | None
    approval: Approval | None
    """What the evidence earned, or what the first operator decided; None until then."""
    source: str
    """Where it came from, for bounds; empty where that says nothing."""
    needed: int
    submitted_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    reason: str | None = None
    """Why it was denied."""
    serial: Serial | None = None
    log_size: int | None = None
    """A log of so many entries has its certificate."""
    issuers: tuple[bytes, ...] = ()
    """The rest of its chain, in DER, as it was issued."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """What the evidence says of who asks; a manual request says it of itself, and nobody checked it."""

    def state_at(self, now: datetime) -> RequestState:
        """The state, which time alone may have ended."""
        return RequestState.EXPIRED if self.state in OPEN and now >= self.expires_at else self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Who a request without evidence is, as an operator decides it."""

    role: Role
    name: Name
    dns_names: tuple[str, ...] = ()
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """A request as operators see it: its state at this moment, and who said what."""

    request: Request
    decisions: tuple[Decision, ...]
    count: int
    """Operators whose approval counts now."""


class RequestStore(Protocol):
    """Requests and what operators said of them, inside the caller's transaction."""

    def add(self, request: Request) -> None: ...

    def put(self, request: Request) -> None:
        """Write what of a request can change: state, approval, times, reason, serial and place in the log."""
        ...

    def get(self, request_id: str) -> Request | None: ...

    def find(self, key: KeyId, evidence_digest: bytes) -> Request | None:
        """The newest request for this key with this evidence."""
        ...

    def known_keys(self, keys: Collection[KeyId]) -> set[KeyId]:
        """Which of these any request is for."""
        ...

    def select(
        self, states: Collection[RequestState], *, after: str = "", limit: int = 256
    ) -> tuple[Request, ...]:
        """Requests in these states, in the order of their ids, after an id."""
        ...

    def open_of(self, role: Role, name: Name) -> tuple[Request, ...]:
        """Requests for a name that may still be issued."""
        ...

    def overdue(self, now: datetime, *, limit: int = 64) -> tuple[Request, ...]:
        """Requests that are open in the table and have expired by `now`."""
        ...

    def unpublished(self, size: int, *, limit: int = 256) -> tuple[Request, ...]:
        """Requests that are issued or delivered, whose certificate is in a log of `size` entries."""
        ...

    def count_open(self, now: datetime, *, evidence: str, source: str | None = None) -> int:
        """How many with this kind of evidence may still be issued at `now`, in all or from one source."""
        ...

    def decide(self, request_id: str, decision: Decision) -> None:
        """Keep one more decision about a request."""
        ...

    def decisions(self, request_id: str) -> tuple[Decision, ...]:
        """What operators said, in that order."""
        ...
