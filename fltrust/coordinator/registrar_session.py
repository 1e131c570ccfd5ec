"""What operators may do at the registration authority; a part of `fltrust.coordinator.session.Session`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING

from fltrust.coordinator import inventory
from fltrust.enrollment.bulk import BulkAnswer, BulkItem
from fltrust.enrollment.inventory import InventoryEntry, InventoryFilter
from fltrust.enrollment.operation_kinds import BULK_REVOKE, RELEASE_HOLD
from fltrust.enrollment.operation_ports import OperationRecord, SignedDecision
from fltrust.enrollment.requests import Assignment, RequestView
from fltrust.enrollment.types import JoinToken
from fltrust.errors import PermissionDenied
from fltrust.pki.types import VerifiedCertificate

if TYPE_CHECKING:
    from fltrust.coordinator.authority import Authority


_COMMANDS = {
    RELEASE_HOLD: "operations release-hold NAME --reason …",
    BULK_REVOKE: "bulk revoke FILE --reason …",
}


class RegistrarSession(ABC):
    """Requests, operations, bulk and the inventory, for one caller."""

    _authority: Authority

    @property
    @abstractmethod
    def _certificate(self) -> VerifiedCertificate: ...

    @abstractmethod
    def _allowed(self, method: str) -> AbstractContextManager[None]: ...

    def list_requests(self, *, open_only: bool = False, after: str = "") -> tuple[RequestView, ...]:
        with self._allowed("RequestService/ListRequests"):
            return self._authority.enroller.requests.list(
                caller=self._certificate, after=after, open_only=open_only
            )

    def get_request(self, request_id: str) -> RequestView:
        with self._allowed("RequestService/GetRequest"):
            return self._authority.enroller.requests.get(request_id, caller=self._certificate)

    def approve_request(
        self, request_id: str, *, reason: str, assignment: Assignment | None = None
    ) -> RequestView:
        """Count the caller's approval; see `RequestDesk.approve`."""
        with self._allowed("RequestService/ApproveRequest"):
            return self._authority.enroller.requests.approve(
                request_id, reason=reason, assignment=assignment, caller=self._certificate
            )

    def deny_request(self, request_id: str, *, reason: str) -> RequestView:
        with self._allowed("RequestService/DenyRequest"):
            return self._authority.enroller.requests.deny(request_id, reason=reason, caller=self._certificate)

    def propose_operation(self, payload: bytes, signed: bytes) -> OperationRecord:
        """Take an operation in, signed by the caller; see `Operations.propose`."""
        with self._allowed("OperationService/ProposeOperation"):
            return self._authority.operations.propose(payload, signed, caller=self._certificate)

    def decide_operation(self, operation_id: str, signed: bytes) -> OperationRecord:
        """Take the caller's signed approval or denial in; see `Operations.decide`."""
        with self._allowed("OperationService/DecideOperation"):
            return self._authority.operations.decide(operation_id, signed, caller=self._certificate)

    def list_operations(self, *, waiting_only: bool = False, after: str = "") -> tuple[OperationRecord, ...]:
        with self._allowed("OperationService/ListOperations"):
            return self._authority.operations.list(after=after, waiting_only=waiting_only)

    def get_operation(self, operation_id: str) -> tuple[OperationRecord, tuple[SignedDecision, ...]]:
        with self._allowed("OperationService/GetOperation"):
            return self._authority.operations.get(operation_id)

    def enroll_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer:
        with self._allowed("BulkService/EnrollBulk"):
            return self._authority.bulk.enroll(items, atomic=atomic, caller=self._certificate)

    def renew_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer:
        with self._allowed("BulkService/RenewBulk"):
            return self._authority.bulk.renew(items, atomic=atomic, caller=self._certificate)

    def create_tokens(self, items: Sequence[Assignment], *, ttl: timedelta) -> tuple[JoinToken, ...]:
        with self._allowed("BulkService/CreateTokens"):
            return self._authority.bulk.create_tokens(items, ttl=ttl, caller=self._certificate)

    def find_participants(self, wanted: InventoryFilter) -> Iterator[tuple[InventoryEntry, ...]]:
        """The inventory, a page at a time."""
        with self._allowed("ParticipantService/FindParticipants"):
            return inventory.pages(self._authority, wanted)

    def _demand_quorum(self, kind: str) -> None:
        """Raise (``quorum-required``) where this way would go around operators who have to approve."""
        if self._authority.operations.has_quorum:
            raise PermissionDenied(
                f"expected other operators to approve this, as an operation of the kind {kind!r}",
                reason="quorum-required",
                hint=f"propose it: fltrust {_COMMANDS[kind]}",
            )
