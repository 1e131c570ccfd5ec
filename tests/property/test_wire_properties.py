"""Whatever arrives, a codec answers with a value that is well formed or with an error of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import FltrustError
from fltrust.identity import CaKeyId, Epoch, KeyId, Name, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.wire import enrollment, federation, inventory, operations, requests, rounds, trust
from fltrust.wire.pb import (
    enrollment_pb2,
    federation_pb2,
    operations_pb2,
    requests_pb2,
    rounds_pb2,
    trust_pb2,
)
from fltrust.wire.values import parse

DECODERS: list[tuple[Any, Callable[[Any], Any]]] = [
    (enrollment_pb2.EnrollRequest, enrollment.enroll_request_from_pb),
    (enrollment_pb2.RenewRequest, enrollment.renew_request_from_pb),
    (enrollment_pb2.IssuedCertificate, enrollment.issued_from_pb),
    (enrollment_pb2.CreateTokenRequest, enrollment.create_token_request_from_pb),
    (enrollment_pb2.CancelTokenRequest, enrollment.cancel_token_request_from_pb),
    (enrollment_pb2.GetParticipantRequest, enrollment.get_participant_request_from_pb),
    (enrollment_pb2.Token, enrollment.token_record_from_pb),
    (enrollment_pb2.Participant, enrollment.participant_from_pb),
    (federation_pb2.ListForeignDomainsResponse, federation.domains_from_pb),
    (trust_pb2.WatchResponse, trust.item_from_pb),
    (trust_pb2.RevokeRequest, trust.revoke_request_from_pb),
    (trust_pb2.HoldRequest, trust.hold_request_from_pb),
    (trust_pb2.ReleaseRequest, trust.release_request_from_pb),
    (rounds_pb2.OpenRoundRequest, rounds.open_request_from_pb),
    (rounds_pb2.OpenRoundResponse, rounds.opened_from_pb),
    (rounds_pb2.SealRoundRequest, rounds.seal_request_from_pb),
    (rounds_pb2.Round, rounds.record_from_pb),
    (enrollment_pb2.EnrollResponse, requests.outcome_from_pb),
    (enrollment_pb2.FindParticipantsRequest, inventory.filter_from_pb),
    (enrollment_pb2.Participant, inventory.entry_from_pb),
    (requests_pb2.EnrollmentRequest, requests.summary_from_pb),
    (requests_pb2.ApproveRequestRequest, requests.approve_request_from_pb),
    (requests_pb2.EnrollBulkRequest, lambda message: requests.items_from_pb(message.items)),
    (requests_pb2.EnrollBulkResponse, requests.answer_from_pb),
    (operations_pb2.ProposeOperationRequest, operations.propose_request_from_pb),
    (operations_pb2.DecideOperationRequest, operations.decide_request_from_pb),
    (operations_pb2.Operation, operations.operation_from_pb),
]


@pytest.mark.parametrize(("kind", "decode"), DECODERS)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_with_an_error_of_ours(
    kind: Any, decode: Callable[[Any], Any], data: bytes
) -> None:
    with contextlib.suppress(FltrustError):
        decode(parse(kind, data))


texts = st.text(max_size=40)


@st.composite
def _fields(draw: st.DrawFn, kind: Any) -> Any:
    """A message of this kind with arbitrary values in arbitrary fields, nested ones too."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        of_kind = {
            field.CPPTYPE_STRING: st.text(max_size=40)
            if field.type == field.TYPE_STRING
            else st.binary(max_size=40),
            field.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
            field.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
            field.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
            field.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
            field.CPPTYPE_BOOL: st.booleans(),
        }
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            nested = _fields(field.message_type._concrete_class)
        else:
            nested = of_kind[field.cpp_type]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(draw(st.dictionaries(texts, texts, max_size=3)))
        elif field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
            getattr(message, field.name).extend(draw(st.lists(nested, max_size=3)))
        elif field.cpp_type == field.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(draw(nested))
        else:
            setattr(message, field.name, draw(nested))
    return message


@pytest.mark.parametrize(("kind", "decode"), DECODERS)
@given(data=st.data())
def test_arbitrary_fields_are_refused_with_an_error_of_ours(
    kind: Any, decode: Callable[[Any], Any], data: st.DataObject
) -> None:
    with contextlib.suppress(FltrustError):
        decode(data.draw(_fields(kind)))


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
identities = st.builds(
    lambda role, name: SpiffeId.of("hospitals.example", role, name),
    st.sampled_from([Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR]),
    names,
)
times = st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1))  # noqa: DTZ001
events = st.builds(
    TrustEvent,
    epoch=st.integers(0, 2**63 - 1).map(Epoch),
    kind=st.sampled_from(EventKind),
    at=times,
    actor=st.none() | identities,
    subject=identities,
    identity_wide=st.booleans(),
    serials=st.lists(st.integers(1, 2**159 - 1).map(Serial), max_size=4).map(tuple),
    keys=st.lists(st.binary(min_size=32, max_size=32).map(lambda b: KeyId(b.hex())), max_size=4).map(tuple),
    node_key=st.none() | st.binary(min_size=1, max_size=200),
    run_id=st.integers(0, 2**64 - 1).map(RunId),
    reason=st.none() | st.sampled_from(RevocationReason),
    compromised_since=st.none() | times,
    domain=st.just(TrustDomain("clinic.example")),
    sequence=st.integers(0, 2**63 - 1),
    issuer=st.binary(min_size=20, max_size=20).map(lambda b: CaKeyId(b.hex())),
)


@given(event=events)
def test_every_event_crosses_the_wire_unchanged(event: TrustEvent) -> None:
    data = trust.item_to_pb(event).SerializeToString()
    assert trust.item_from_pb(parse(trust_pb2.WatchResponse, data)) == event


@given(name=names)
def test_every_name_is_a_target_and_comes_back(name: str) -> None:
    from fltrust.revocation.ports import RevocationTarget

    target = RevocationTarget(name=(Role.PARTICIPANT, Name(name)))
    assert trust.target_from_pb(trust.target_to_pb(target)) == target
