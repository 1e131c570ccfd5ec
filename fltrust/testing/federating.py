"""Two scratch coordinators that federate, in one process: operations really signed, feeds really followed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from fltrust.coordinator.federation.follower import ForeignFollower
from fltrust.enrollment.foreign import (
    ADMIT_FOREIGN,
    END_FEDERATION,
    FEDERATE,
    BundleProfile,
    ForeignDomain,
    ForeignParticipant,
)
from fltrust.enrollment.operation import Operation, Verdict, sign_decision
from fltrust.enrollment.operation_ports import OperationRecord
from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import FeedHeartbeat
from fltrust.testing.identities import ScratchIdentity

if TYPE_CHECKING:
    from fltrust.testing.coordinator import ScratchCoordinator

_BATCH = 256
_DECIDE_WITHIN = timedelta(minutes=30)


def propose(coordinator: ScratchCoordinator, kind: str, parameters: Mapping[str, object]) -> OperationRecord:
    """Have the scratch operator propose an operation, signed; without a quorum it is executed."""
    now, operator = coordinator.clock.now(), coordinator.operator
    operation = Operation(
        domain=coordinator.bundle.domain,
        operation_id=secrets.token_hex(16),
        kind=kind,
        parameters=parameters,
        proposer=operator.spiffe_id,
        reason="for the test",
        proposed_at=now,
        expires_at=now + _DECIDE_WITHIN,
    )
    signed = sign_decision(
        operation,
        Verdict.PROPOSE,
        reason="for the test",
        signer=operator.credentials.signer,
        chain=operator.credentials.chain_der,
        operator=operator.spiffe_id,
        at=now,
    )
    return coordinator.authority.operations.propose(
        operation.to_payload(), signed, caller=operator.credentials.certificate
    )


def agree(
    coordinator: ScratchCoordinator,
    domain: TrustDomain,
    bundle: TrustBundle,
    *,
    lends: Iterable[str] = (),
) -> OperationRecord:
    """Federate `coordinator` with a domain of this bundle. Nothing is followed by that."""
    record = ForeignDomain(
        bundle=bundle,
        address="scratch:2",
        endpoint_url=f"https://bundle.{domain}/spiffe/bundle",
        profile=BundleProfile.HTTPS_SPIFFE,
        endpoint_spiffe_id=str(SpiffeId(domain, Role.COORDINATOR, None)),
        lent=frozenset(map(Name, lends)),
    )
    return propose(coordinator, FEDERATE, record.to_parameters())


def admit(coordinator: ScratchCoordinator, guest: ScratchIdentity) -> OperationRecord:
    """Admit a participant of a domain that `coordinator` is federated with."""
    return propose(
        coordinator,
        ADMIT_FOREIGN,
        ForeignParticipant(guest.spiffe_id, guest.node_key_der).to_parameters(),
    )


def end(coordinator: ScratchCoordinator, domain: TrustDomain) -> OperationRecord:
    """End federation with a domain."""
    return propose(coordinator, END_FEDERATION, {"domain": str(domain)})


class Tie:
    """`host` follows the feed of `theirs`, as far as that shows it: at once, after every commit there.

    `theirs.is_reachable = False` cuts it; what `host` knows then grows old, see `settle`.
    """

    def __init__(self, host: ScratchCoordinator, theirs: ScratchCoordinator) -> None:
        record = host.authority.federation.get(theirs.bundle.domain)
        assert record is not None, "federate first"  # noqa: S101 - a fault of the test's
        self._host = host
        self._theirs = theirs
        self._reader = SpiffeId(host.bundle.domain, Role.COORDINATOR, None)
        self._lock = threading.RLock()
        self.follower = ForeignFollower(
            record,
            ledger=host.authority.ledger,
            spread=host.authority.desks.taints.spread,
            clock=host.clock,
        )
        self._unsubscribe = theirs.authority.subscribe(lambda _epoch: self.settle())
        self.settle()

    def settle(self) -> None:
        """Hear what there is to hear, and take it over; where there is nothing to hear, notice that."""
        with self._lock:
            if self._theirs.is_reachable:
                view, authority = self.follower.view, self._theirs.authority
                while events := authority.events(view.epoch, _BATCH, reader=self._reader):
                    for event in events:
                        view.feed(event)
                view.feed(FeedHeartbeat(view.epoch, self._theirs.clock.now()))
            self.follower.settle(home=self._host.bundle)

    def close(self) -> None:
        self._unsubscribe()
