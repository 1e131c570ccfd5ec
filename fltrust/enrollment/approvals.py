"""How many operators must say yes, and whose yes counts. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fltrust.enrollment.lapsed import KIND as LAPSED
from fltrust.enrollment.types import Approval, EnrollmentProtocol
from fltrust.errors import Malformed, PermissionDenied
from fltrust.identity import Role, Serial, SpiffeId

MAX_NEEDED = 16
"""Operators that a policy may ask for."""
MAX_REASON = 500
"""Characters of the reason that an operator gives."""
MANUAL = "manual"
"""The kind of evidence of whoever shows none: operators decide the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPolicy:
    """How many operators approve what. The default asks for nobody, and takes no request without evidence.

    A request needs the most that any rule asks for it: of its role, its kind of evidence, its protocol,
    and of taking a name over. Four eyes: where it needs anybody, who granted the evidence does not count.
    Nor does who gives a request without evidence its name: what is asked of a name is asked of others.
    """

    operations: int = 0
    """Operators who approve a sensitive operation, beside the one who proposes it. With one or more, an
    operator's enrollment needs as many, so that nobody makes a second self to approve with."""
    roles: Mapping[Role, int] = field(default_factory=dict)
    evidence: Mapping[str, int] = field(default_factory=dict)
    protocols: Mapping[EnrollmentProtocol, int] = field(default_factory=dict)
    replace: int = 0
    """For a request that may take over an enrolled or revoked name."""
    is_manual_taken: bool = False
    """Whether a request without evidence is taken in at all; it needs one operator at the least."""
    decide_within: timedelta = timedelta(days=7)
    """A request or operation that nobody decided by then has expired; an approved one, if not collected."""

    def __post_init__(self) -> None:
        counts = (self.operations, self.replace, *self.roles.values(), *self.evidence.values())
        if not all(0 <= count <= MAX_NEEDED for count in (*counts, *self.protocols.values())):
            raise Malformed(f"expected 0 to {MAX_NEEDED} operators in a rule of approvals")
        if not timedelta(minutes=1) <= self.decide_within <= timedelta(days=90):
            raise Malformed(
                f"expected between 1 minute and 90 days to decide a request, got {self.decide_within}"
            )

    def needed(self, approval: Approval | None, *, evidence: str, protocol: EnrollmentProtocol) -> int:
        """How many operators must approve; without an `approval`, what is known before a name is."""
        asked = [
            self.evidence.get(evidence, 0),
            self.protocols.get(protocol, 0),
            1 if evidence == MANUAL else 0,
        ]
        if approval is not None:
            # A node that slept comes back to the name that it held: nobody takes one over.
            of_name = max(
                self.roles.get(approval.role, 0),
                self.replace if approval.replace and evidence != LAPSED else 0,
                self.operations if approval.role is Role.OPERATOR else 0,
            )
            # The stranger may be an operator: the first who approves gives the name, and counts as who asked.
            asked.append(of_name + 1 if of_name and evidence == MANUAL else of_name)
        return max(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one operator said, with which certificate, and why."""

    operator: SpiffeId
    serial: Serial
    is_approval: bool
    reason: str
    at: datetime


def check_reason(reason: str) -> str:
    """Return a reason of 1 to `MAX_REASON` printable characters, stripped; `Malformed` otherwise."""
    text = reason.strip()
    if not text or len(text) > MAX_REASON or not text.isprintable():
        raise Malformed(
            f"expected a reason of 1 to {MAX_REASON} printable characters",
            hint="say why, in one line: others will read it",
        )
    return text


def check_four_eyes(operator: SpiffeId, *, asked: SpiffeId | None, needed: int) -> None:
    """Raise `PermissionDenied` (``four-eyes``) where whoever asked would approve it, too."""
    if needed and operator == asked:
        raise PermissionDenied(
            f"expected another operator than {operator}, who asked for it, to approve it",
            reason="four-eyes",
            hint="ask a colleague: whoever asked cannot approve",
        )


def count_approvals(
    decisions: Iterable[Decision],
    *,
    asked: SpiffeId | None,
    is_good: Callable[[SpiffeId, Serial], bool],
) -> int:
    """How many operators approve: each once however often and with whichever certificates, the one who
    asked never, and nobody who does not stand well (`is_good`) now."""
    last: dict[SpiffeId, Decision] = {}
    for decision in decisions:
        last[decision.operator] = decision
    return sum(
        decision.is_approval and operator != asked and is_good(operator, decision.serial)
        for operator, decision in last.items()
    )
