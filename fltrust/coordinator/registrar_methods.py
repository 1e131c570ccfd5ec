"""What the methods of the registration authority do: a part of the table in `fltrust.coordinator.methods`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.message import Message

from fltrust.coordinator.session import Session
from fltrust.enrollment.token import encode_token
from fltrust.wire import inventory as inventory_codec
from fltrust.wire import operations as operations_codec
from fltrust.wire import requests as requests_codec
from fltrust.wire.enrollment import seconds_of
from fltrust.wire.pb import enrollment_pb2, operations_pb2, requests_pb2
from fltrust.wire.requests import MAX_REQUEST_ID, RequestSummary, summary_to_pb
from fltrust.wire.values import text_within


def list_requests(session: Session, request: requests_pb2.ListRequestsRequest) -> Message:
    after = text_within(request.after, limit=MAX_REQUEST_ID, what="a request id")
    found = session.list_requests(open_only=request.open_only, after=after)
    return requests_pb2.ListRequestsResponse(
        requests=[summary_to_pb(RequestSummary.of(view)) for view in found]
    )


def get_request(session: Session, request: requests_pb2.GetRequestRequest) -> Message:
    view = session.get_request(requests_codec.request_id_from_pb(request.request_id))
    return requests_pb2.GetRequestResponse(request=summary_to_pb(RequestSummary.of(view)))


def approve_request(session: Session, request: requests_pb2.ApproveRequestRequest) -> Message:
    request_id, reason, assignment = requests_codec.approve_request_from_pb(request)
    view = session.approve_request(request_id, reason=reason, assignment=assignment)
    return requests_pb2.ApproveRequestResponse(request=summary_to_pb(RequestSummary.of(view)))


def deny_request(session: Session, request: requests_pb2.DenyRequestRequest) -> Message:
    request_id = requests_codec.request_id_from_pb(request.request_id)
    view = session.deny_request(request_id, reason=request.reason)
    return requests_pb2.DenyRequestResponse(request=summary_to_pb(RequestSummary.of(view)))


def enroll_bulk(session: Session, request: requests_pb2.EnrollBulkRequest) -> Message:
    answer = session.enroll_bulk(requests_codec.items_from_pb(request.items), atomic=request.atomic)
    return requests_codec.answer_to_pb(answer, requests_pb2.EnrollBulkResponse)


def renew_bulk(session: Session, request: requests_pb2.RenewBulkRequest) -> Message:
    answer = session.renew_bulk(requests_codec.items_from_pb(request.items), atomic=request.atomic)
    return requests_codec.answer_to_pb(answer, requests_pb2.RenewBulkResponse)


def create_tokens(session: Session, request: requests_pb2.CreateTokensRequest) -> Message:
    ttl = timedelta(seconds=request.ttl_seconds)
    seconds_of(ttl, what="a token's life")
    tokens = session.create_tokens(requests_codec.assignments_from_pb(request.items), ttl=ttl)
    return requests_pb2.CreateTokensResponse(tokens=map(encode_token, tokens))


def propose_operation(session: Session, request: operations_pb2.ProposeOperationRequest) -> Message:
    payload, signed = operations_codec.propose_request_from_pb(request)
    record = session.propose_operation(payload, signed)
    return operations_pb2.ProposeOperationResponse(operation=operations_codec.operation_to_pb(record))


def decide_operation(session: Session, request: operations_pb2.DecideOperationRequest) -> Message:
    operation_id, signed = operations_codec.decide_request_from_pb(request)
    record = session.decide_operation(operation_id, signed)
    return operations_pb2.DecideOperationResponse(operation=operations_codec.operation_to_pb(record))


def list_operations(session: Session, request: operations_pb2.ListOperationsRequest) -> Message:
    after = text_within(request.after, limit=MAX_REQUEST_ID, what="an operation id")
    found = session.list_operations(waiting_only=request.waiting_only, after=after)
    return operations_pb2.ListOperationsResponse(
        operations=[operations_codec.operation_to_pb(record, is_listed=True) for record in found]
    )


def get_operation(session: Session, request: operations_pb2.GetOperationRequest) -> Message:
    record, decisions = session.get_operation(operations_codec.operation_id_from_pb(request.operation_id))
    return operations_pb2.GetOperationResponse(operation=operations_codec.operation_to_pb(record, decisions))


def find_participants(session: Session, request: enrollment_pb2.FindParticipantsRequest) -> Iterator[Message]:
    for page in session.find_participants(inventory_codec.filter_from_pb(request)):
        yield enrollment_pb2.FindParticipantsResponse(participants=map(inventory_codec.entry_to_pb, page))
