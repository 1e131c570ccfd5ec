"""What operators ask the registration authority for; a part of `CoordinatorClient`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from fltrust.client.calls import Caller
from fltrust.enrollment.bulk import BulkAnswer, BulkItem
from fltrust.enrollment.inventory import InventoryEntry, InventoryFilter
from fltrust.enrollment.operation_ports import OperationRecord, SignedDecision
from fltrust.enrollment.requests import Assignment
from fltrust.enrollment.token import decode_token
from fltrust.enrollment.types import JoinToken
from fltrust.wire import inventory as inventory_codec
from fltrust.wire import methods
from fltrust.wire import operations as operations_codec
from fltrust.wire import requests as requests_codec
from fltrust.wire.enrollment import seconds_of
from fltrust.wire.pb import enrollment_pb2, operations_pb2, requests_pb2
from fltrust.wire.requests import RequestSummary
from fltrust.wire.values import present


class RegistrarClient:
    """Requests, operations, bulk and the inventory, as one operator."""

    _caller: Caller

    def list_requests(self, *, open_only: bool = False) -> Iterator[RequestSummary]:
        """Yield them in the order of their ids, a page at a time."""
        after = ""
        while True:
            answer = self._caller.unary(
                methods.LIST_REQUESTS,
                requests_pb2.ListRequestsRequest(open_only=open_only, after=after),
                requests_pb2.ListRequestsResponse,
                is_idempotent=True,
            )
            page = [requests_codec.summary_from_pb(message) for message in answer.requests]
            yield from page
            if not page or page[-1].request_id <= after:
                return
            after = page[-1].request_id

    def get_request(self, request_id: str) -> RequestSummary:
        answer = self._caller.unary(
            methods.GET_REQUEST,
            requests_pb2.GetRequestRequest(request_id=request_id),
            requests_pb2.GetRequestResponse,
            is_idempotent=True,
        )
        present(answer, "request")
        return requests_codec.summary_from_pb(answer.request)

    def approve_request(
        self, request_id: str, *, reason: str, assignment: Assignment | None = None
    ) -> RequestSummary:
        """Repeated when the answer is lost: an operator counts once."""
        message = requests_pb2.ApproveRequestRequest(request_id=request_id, reason=reason)
        if assignment is not None:
            message.assignment.CopyFrom(requests_codec.assignment_to_pb(assignment))
        answer = self._caller.unary(
            methods.APPROVE_REQUEST, message, requests_pb2.ApproveRequestResponse, is_idempotent=True
        )
        present(answer, "request")
        return requests_codec.summary_from_pb(answer.request)

    def deny_request(self, request_id: str, *, reason: str) -> RequestSummary:
        answer = self._caller.unary(
            methods.DENY_REQUEST,
            requests_pb2.DenyRequestRequest(request_id=request_id, reason=reason),
            requests_pb2.DenyRequestResponse,
            is_idempotent=False,
        )
        present(answer, "request")
        return requests_codec.summary_from_pb(answer.request)

    def propose_operation(self, payload: bytes, signed: bytes) -> OperationRecord:
        """Not repeated when the answer is lost: ask for the operation by its id."""
        answer = self._caller.unary(
            methods.PROPOSE_OPERATION,
            operations_pb2.ProposeOperationRequest(payload=payload, signed=signed),
            operations_pb2.ProposeOperationResponse,
            is_idempotent=False,
            timeout=self._caller.settings.seal_timeout,
        )
        present(answer, "operation")
        return operations_codec.operation_from_pb(answer.operation)[0]

    def decide_operation(self, operation_id: str, signed: bytes) -> OperationRecord:
        answer = self._caller.unary(
            methods.DECIDE_OPERATION,
            operations_pb2.DecideOperationRequest(operation_id=operation_id, signed=signed),
            operations_pb2.DecideOperationResponse,
            is_idempotent=False,
            timeout=self._caller.settings.seal_timeout,
        )
        present(answer, "operation")
        return operations_codec.operation_from_pb(answer.operation)[0]

    def list_operations(self, *, waiting_only: bool = False) -> Iterator[OperationRecord]:
        """Yield them in the order of their ids; long words are left out."""
        after = ""
        while True:
            answer = self._caller.unary(
                methods.LIST_OPERATIONS,
                operations_pb2.ListOperationsRequest(waiting_only=waiting_only, after=after),
                operations_pb2.ListOperationsResponse,
                is_idempotent=True,
            )
            page = [operations_codec.operation_from_pb(message)[0] for message in answer.operations]
            yield from page
            if not page or page[-1].operation_id <= after:
                return
            after = page[-1].operation_id

    def get_operation(self, operation_id: str) -> tuple[OperationRecord, tuple[SignedDecision, ...]]:
        answer = self._caller.unary(
            methods.GET_OPERATION,
            operations_pb2.GetOperationRequest(operation_id=operation_id),
            operations_pb2.GetOperationResponse,
            is_idempotent=True,
        )
        present(answer, "operation")
        return operations_codec.operation_from_pb(answer.operation)

    def enroll_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer:
        """Repeated when the answer is lost: the same items give the same certificates."""
        answer = self._caller.unary(
            methods.ENROLL_BULK,
            requests_pb2.EnrollBulkRequest(items=requests_codec.items_to_pb(items), atomic=atomic),
            requests_pb2.EnrollBulkResponse,
            is_idempotent=True,
            timeout=self._caller.settings.seal_timeout,
        )
        return requests_codec.answer_from_pb(answer)

    def renew_bulk(self, items: Sequence[BulkItem], *, atomic: bool) -> BulkAnswer:
        answer = self._caller.unary(
            methods.RENEW_BULK,
            requests_pb2.RenewBulkRequest(items=requests_codec.items_to_pb(items), atomic=atomic),
            requests_pb2.RenewBulkResponse,
            is_idempotent=True,
            timeout=self._caller.settings.seal_timeout,
        )
        return requests_codec.answer_from_pb(answer)

    def create_tokens(self, items: Sequence[Assignment], *, ttl: timedelta) -> tuple[JoinToken, ...]:
        answer = self._caller.unary(
            methods.CREATE_TOKENS,
            requests_pb2.CreateTokensRequest(
                items=map(requests_codec.assignment_to_pb, items),
                ttl_seconds=seconds_of(ttl, what="a token's life"),
            ),
            requests_pb2.CreateTokensResponse,
            is_idempotent=False,
        )
        return tuple(map(decode_token, answer.tokens))

    def find_participants(self, wanted: InventoryFilter) -> Iterator[InventoryEntry]:
        """Yield the inventory, those that the filter lets through, in the order of their names."""
        answers = self._caller.answers(
            methods.FIND_PARTICIPANTS,
            inventory_codec.filter_to_pb(wanted),
            enrollment_pb2.FindParticipantsResponse,
        )
        for answer in answers:
            yield from map(inventory_codec.entry_from_pb, answer.participants)
