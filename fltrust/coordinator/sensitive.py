"""Kinds of sensitive operations about standing: ending a hold, and revoking many at once."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.coordinator import standing
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operations import Executed
from fltrust.coordinator.taint import TaintDesk
from fltrust.enrollment.operation import Operation
from fltrust.enrollment.operation_kinds import (
    BULK_REVOKE,
    RELEASE_HOLD,
    BulkRevocation,
    release_target,
)
from fltrust.errors import FltrustError, Malformed
from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.events import TrustEvent
from fltrust.revocation.ports import RevocationTarget


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """End a hold, of one identity, certificate or key, or of everybody in a run who is on hold."""

    domain: TrustDomain
    kind: str = RELEASE_HOLD

    def check(self, operation: Operation, work: Work) -> None:
        standing.resolve(release_target(operation.parameters), work, domain=self.domain)

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        target = release_target(operation.parameters)
        subjects = standing.resolve(target, work, domain=self.domain)
        if target.run is not None:
            events = standing.all_that_apply(
                subjects, work, lambda subject, now: standing.release(subject, now, actor=operation.proposer)
            )
        else:
            events = tuple(standing.release(s, work, actor=operation.proposer) for s in subjects)
        return Executed(result={"epochs": [str(int(event.epoch)) for event in events]})


@dataclass(frozen=True, slots=True)
class BulkRevoke:
    """Revoke many identities: all of them or none, or each on its own."""

    domain: TrustDomain
    taints: TaintDesk
    kind: str = BULK_REVOKE

    def check(self, operation: Operation, work: Work) -> None:
        wanted = BulkRevocation.from_parameters(operation.parameters)
        since = wanted.compromised_since
        if since is not None and since > work.now:
            raise Malformed("expected 'compromised since' as a time that is not in the future")
        if wanted.atomic:
            for name in wanted.names:
                standing.resolve(RevocationTarget(name=name), work, domain=self.domain)

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        wanted = BulkRevocation.from_parameters(operation.parameters)
        epochs: list[str] = []
        failed: list[dict[str, object]] = []
        for name in wanted.names:
            try:
                if wanted.atomic:
                    event = self._revoke(name, wanted, work, by=operation.proposer)
                else:
                    with work.attempt():
                        event = self._revoke(name, wanted, work, by=operation.proposer)
            except FltrustError as error:
                if wanted.atomic:
                    raise
                failed.append({"name": f"{name[0]}/{name[1]}", "reason": error.reason})
            else:
                epochs.append(str(int(event.epoch)))
        return Executed(result={"revoked": len(epochs), "epochs": epochs, "failed": failed})

    def _revoke(
        self, name: tuple[Role, Name], wanted: BulkRevocation, work: Work, *, by: SpiffeId
    ) -> TrustEvent:
        (subject,) = standing.resolve(RevocationTarget(name=name), work, domain=self.domain)
        event = standing.revoke(
            subject, work, actor=by, reason=wanted.reason, compromised_since=wanted.compromised_since
        )
        if event in work.emitted:
            self.taints.spread(work, event)
        return event
