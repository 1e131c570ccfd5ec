"""Codecs: what goes over the wire comes back the same, and what is unknown or unbounded is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fltrust.enrollment.types import (
    Enrollment,
    EnrollRequest,
    Issued,
    JoinTokenEvidence,
    TokenRecord,
    TokenStatus,
)
from fltrust.errors import Malformed, Oversized, Refusal
from fltrust.identity import (
    CaKeyId,
    Digest,
    Epoch,
    KeyId,
    Name,
    NodeId,
    Role,
    RunId,
    Serial,
    SpiffeId,
    TrustDomain,
)
from fltrust.keys import generate
from fltrust.pki import create_root, make_bundle
from fltrust.revocation.events import EventKind, FeedHeartbeat, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord, RoundStatus
from fltrust.updates import Phase
from fltrust.wire import enrollment, rounds, trust
from fltrust.wire.pb import enrollment_pb2, rounds_pb2, trust_pb2
from fltrust.wire.values import MAX_MESSAGE, parse, time_from_pb, time_to_pb

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")
SITE = SpiffeId(DOMAIN, Role.PARTICIPANT, Name("site-a"))
MAIN = SpiffeId(DOMAIN, Role.AGGREGATOR, Name("main"))
KEY = KeyId("ab" * 32)
ROUND = RoundKey(RunId(2**64 - 1), 7, 3, Phase.EVALUATE)
MEMBER = CohortMember(SITE, NodeId(2**64 - 2), KEY, Digest.sha256_of(b"i"))
EVENT = TrustEvent(
    epoch=Epoch(2**63 - 1),
    kind=EventKind.REVOKED,
    at=NOW,
    actor=MAIN,
    subject=SITE,
    identity_wide=True,
    serials=(Serial(1), Serial(2**159 - 1)),
    keys=(KEY,),
    node_key=b"spki",
    run_id=RunId(0),
    reason=RevocationReason.KEY_COMPROMISE,
    compromised_since=NOW - timedelta(days=1),
)
TOKEN = TokenRecord("0123456789abcdef", Role.OPERATOR, Name("op"), NOW, NOW, MAIN, True, TokenStatus.USED)
ENROLLMENT = Enrollment(SITE, NOW, MAIN, "join-token", b"spki", "active", 9, Serial(5).hex, NOW)
RECORD = RoundRecord(
    ROUND, RoundStatus.SEALED, MAIN, NOW, Epoch(4), (MEMBER,), b"receipt", (Candidate(b"i", b"u"),)
)
BUNDLE = make_bundle(DOMAIN, [create_root(DOMAIN, signer=generate(), now=NOW)], sequence=3)
ISSUED = Issued(SITE, (b"leaf", b"issuing"), BUNDLE)
REQUEST = EnrollRequest(JoinTokenEvidence(b"s" * 32), b"csr", b"node", b"proof")


@pytest.mark.parametrize(
    ("value", "to_pb", "from_pb"),
    [
        (EVENT, trust.event_to_pb, trust.event_from_pb),
        (replace(EVENT, run_id=None), trust.event_to_pb, trust.event_from_pb),
        (TrustEvent(Epoch(1), EventKind.REDACTED, NOW), trust.event_to_pb, trust.event_from_pb),
        (
            TrustEvent(
                Epoch(1),
                EventKind.ISSUER_REVOKED,
                NOW,
                domain=TrustDomain("a.example"),
                issuer=CaKeyId("0a" * 20),
            ),
            trust.event_to_pb,
            trust.event_from_pb,
        ),
        (
            TrustEvent(Epoch(1), EventKind.BUNDLE_CHANGED, NOW, domain=TrustDomain("a.example"), sequence=0),
            trust.event_to_pb,
            trust.event_from_pb,
        ),
        (EVENT, trust.item_to_pb, trust.item_from_pb),
        (FeedHeartbeat(Epoch(0), NOW), trust.item_to_pb, trust.item_from_pb),
        (RevocationTarget(name=(Role.PARTICIPANT, Name("a"))), trust.target_to_pb, trust.target_from_pb),
        (RevocationTarget(serial=Serial(77)), trust.target_to_pb, trust.target_from_pb),
        (RevocationTarget(key=KEY), trust.target_to_pb, trust.target_from_pb),
        (RevocationTarget(run=RunId(0)), trust.target_to_pb, trust.target_from_pb),
        (TOKEN, enrollment.token_record_to_pb, enrollment.token_record_from_pb),
        (replace(TOKEN, created_by=None), enrollment.token_record_to_pb, enrollment.token_record_from_pb),
        (ENROLLMENT, enrollment.participant_to_pb, enrollment.participant_from_pb),
        (
            replace(ENROLLMENT, node_key=None, certificate_serial=None, certificate_not_after=None),
            enrollment.participant_to_pb,
            enrollment.participant_from_pb,
        ),
        (BUNDLE, enrollment.bundle_to_pb, enrollment.bundle_from_pb),
        (ISSUED, enrollment.issued_to_pb, enrollment.issued_from_pb),
        (REQUEST, enrollment.enroll_request_to_pb, enrollment.enroll_request_from_pb),
        (ROUND, rounds.key_to_pb, rounds.key_from_pb),
        (MEMBER, rounds.member_to_pb, rounds.member_from_pb),
        (Candidate(b"i", b"u"), rounds.candidate_to_pb, rounds.candidate_from_pb),
        (Candidate(b"i", b"u", b"second"), rounds.candidate_to_pb, rounds.candidate_from_pb),
        (Opened(Epoch(3), ((SITE, "revoked"),)), rounds.opened_to_pb, rounds.opened_from_pb),
        (RECORD, rounds.record_to_pb, rounds.record_from_pb),
        (
            replace(RECORD, status=RoundStatus.OPEN, receipt=None, evidence=()),
            rounds.record_to_pb,
            rounds.record_from_pb,
        ),
    ],
)
def test_what_is_sent_is_what_arrives(
    value: Any, to_pb: Callable[[Any], Any], from_pb: Callable[[Any], Any]
) -> None:
    message = to_pb(value)
    assert from_pb(parse(type(message), message.SerializeToString())) == value


def test_requests_with_several_parts_arrive_whole() -> None:
    revoke = trust.revoke_request_to_pb(
        RevocationTarget(key=KEY), reason=RevocationReason.SUPERSEDED, compromised_since=NOW
    )
    assert trust.revoke_request_from_pb(revoke) == (
        RevocationTarget(key=KEY),
        RevocationReason.SUPERSEDED,
        NOW,
    )
    create = enrollment.create_token_request_to_pb(
        Role.AGGREGATOR, Name("main"), ttl=timedelta(minutes=15), replace=True
    )
    assert enrollment.create_token_request_from_pb(create) == (
        Role.AGGREGATOR,
        Name("main"),
        timedelta(minutes=15),
        True,
        (),
    )
    opened = rounds.open_request_to_pb(ROUND, (MEMBER, MEMBER))
    assert rounds.open_request_from_pb(opened) == (ROUND, (MEMBER, MEMBER))


def _changed(message: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def _without(message: Any, field: str) -> Any:
    message.ClearField(field)
    return message


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (trust.event_from_pb, lambda: _changed(trust.event_to_pb(EVENT), kind="promoted")),
        (trust.event_from_pb, lambda: _changed(trust.event_to_pb(EVENT), reason="a-whim")),
        (trust.item_from_pb, lambda: trust_pb2.WatchResponse()),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget()),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget(name="emperor/a")),
        (enrollment.token_record_from_pb, lambda: _changed(enrollment.token_record_to_pb(TOKEN), role="x")),
        (enrollment.token_record_from_pb, lambda: _changed(enrollment.token_record_to_pb(TOKEN), status="x")),
        (
            enrollment.enroll_request_from_pb,
            lambda: _without(enrollment.enroll_request_to_pb(REQUEST), "join_token"),
        ),
        (rounds.key_from_pb, lambda: _changed(rounds.key_to_pb(ROUND), phase="dance")),
        (rounds.record_from_pb, lambda: _changed(rounds.record_to_pb(RECORD), status="half-open")),
    ],
)
def test_a_word_or_kind_that_is_not_known_is_refused_as_unknown(
    decode: Callable[[Any], Any], message: Callable[[], Any]
) -> None:
    with pytest.raises(Malformed) as caught:
        decode(message())
    assert caught.value.reason == Refusal.UNKNOWN_TYPE


def test_evidence_of_a_kind_from_the_future_is_refused_not_ignored() -> None:
    # Field 9 is none of ours: an arm of the oneof that a later version may add.
    later = enrollment_pb2.EnrollRequest(csr=b"csr").SerializeToString() + b"\x4a\x03abc"
    with pytest.raises(Malformed) as caught:
        enrollment.enroll_request_from_pb(parse(enrollment_pb2.EnrollRequest, later))
    assert caught.value.reason == Refusal.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (trust.event_from_pb, lambda: _without(trust.event_to_pb(EVENT), "at")),
        (trust.event_from_pb, lambda: _without(trust.event_to_pb(EVENT), "subject")),
        (
            trust.event_from_pb,
            lambda: _changed(trust.event_to_pb(replace(EVENT, run_id=None)), kind="run-opened"),
        ),
        (trust.event_from_pb, lambda: _changed(trust.event_to_pb(EVENT), subject="https://x")),
        (trust.event_from_pb, lambda: _changed(trust.event_to_pb(EVENT), epoch=2**63)),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget(name="site-a")),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget(name="participant/a/b")),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget(serial="zz")),
        (trust.target_from_pb, lambda: trust_pb2.RevocationTarget(key="AB" * 32)),
        (trust.revoke_request_from_pb, lambda: trust_pb2.RevokeRequest(reason="unspecified")),
        (
            enrollment.enroll_request_from_pb,
            lambda: _without(enrollment.enroll_request_to_pb(REQUEST), "csr"),
        ),
        (enrollment.issued_from_pb, lambda: _without(enrollment.issued_to_pb(ISSUED), "chain")),
        (enrollment.issued_from_pb, lambda: _without(enrollment.issued_to_pb(ISSUED), "bundle")),
        (
            enrollment.bundle_from_pb,
            lambda: enrollment_pb2.TrustBundle(trust_domain="a.example", roots=[b"x"]),
        ),
        (enrollment.bundle_from_pb, lambda: enrollment_pb2.TrustBundle(trust_domain="a.example")),
        (
            enrollment.create_token_request_from_pb,
            lambda: enrollment_pb2.CreateTokenRequest(role="operator", name="a"),
        ),
        (enrollment.cancel_token_request_from_pb, lambda: enrollment_pb2.CancelTokenRequest()),
        (rounds.key_from_pb, lambda: _changed(rounds.key_to_pb(ROUND), step=0)),
        (rounds.open_request_from_pb, lambda: rounds_pb2.OpenRoundRequest()),
        (rounds.member_from_pb, lambda: _changed(rounds.member_to_pb(MEMBER), instruction="md5:00")),
        (rounds.candidate_from_pb, lambda: rounds_pb2.Candidate(instruction=b"i")),
        (rounds.seal_response_from_pb, lambda: rounds_pb2.SealRoundResponse()),
    ],
)
def test_what_must_be_there_and_is_not_is_malformed(
    decode: Callable[[Any], Any], message: Callable[[], Any]
) -> None:
    with pytest.raises(Malformed):
        decode(message())


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            enrollment.enroll_request_from_pb,
            lambda: _changed(enrollment.enroll_request_to_pb(REQUEST), csr=b"x" * 20_000),
        ),
        (
            enrollment.enroll_request_from_pb,
            lambda: _changed(enrollment.enroll_request_to_pb(REQUEST), node_key=b"x" * 1_000),
        ),
        (
            enrollment.enroll_request_from_pb,
            lambda: _changed(enrollment.enroll_request_to_pb(REQUEST), node_key_proof=b"x" * 1_000),
        ),
        (enrollment.bundle_from_pb, lambda: enrollment_pb2.TrustBundle(trust_domain="a", roots=[b"x"] * 99)),
        (
            enrollment.cancel_token_request_from_pb,
            lambda: enrollment_pb2.CancelTokenRequest(token_id="a" * 99),
        ),
        (rounds.candidate_from_pb, lambda: rounds_pb2.Candidate(instruction=b"i" * 200_000, update=b"u")),
        (
            rounds.candidate_from_pb,
            lambda: rounds_pb2.Candidate(instruction=b"i", update=b"u", second=b"s" * 200_000),
        ),
        (
            rounds.open_request_from_pb,
            lambda: rounds_pb2.OpenRoundRequest(
                key=rounds.key_to_pb(ROUND), cohort=[rounds.member_to_pb(MEMBER)] * 10_001
            ),
        ),
        (
            trust.event_from_pb,
            lambda: trust_pb2.TrustEvent(kind="revoked", serials=["01"] * 10_001),
        ),
    ],
)
def test_what_is_too_much_is_refused_before_it_is_read(
    decode: Callable[[Any], Any], message: Callable[[], Any]
) -> None:
    with pytest.raises(Oversized):
        decode(message())


def test_a_message_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(Oversized):
        parse(trust_pb2.WatchRequest, b"\xff" * 11, limit=10)
    with pytest.raises(Malformed):
        parse(trust_pb2.WatchRequest, b"\xff" * 10, limit=10)


def test_text_that_is_not_utf_8_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse(enrollment_pb2.GetParticipantRequest, b"\x0a\x02\xff\xfe")


@pytest.mark.parametrize(
    "at", [NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
)
def test_times_are_exact_to_the_microsecond(at: datetime) -> None:
    assert time_from_pb(time_to_pb(at)) == at


def test_times_that_a_datetime_cannot_hold_are_malformed() -> None:
    for seconds, nanos in ((2**62, 0), (-(2**62), 0), (0, -1), (0, 10**9)):
        stamp = time_to_pb(NOW)
        stamp.seconds, stamp.nanos = seconds, nanos
        with pytest.raises(Malformed):
            time_from_pb(stamp)


# A seal in many messages.


def test_a_seal_in_many_messages_is_one_seal() -> None:
    candidates = tuple(Candidate(bytes([i]) * 60_000, b"u" * 50_000) for i in range(40))
    refused = tuple((SITE, f"reason-{i}") for i in range(100))
    chunks = list(rounds.seal_chunks(ROUND, candidates, refused))
    assert len(chunks) > 3
    assert all(chunk.ByteSize() <= MAX_MESSAGE for chunk in chunks)
    parts = rounds.SealParts()
    for chunk in chunks:
        parts.add(parse(rounds_pb2.SealRoundRequest, chunk.SerializeToString()))
    assert parts.finish() == (ROUND, candidates, refused)


def test_candidates_of_the_largest_size_fit_one_message_each() -> None:
    most = rounds.MAX_SIGNED_BYTES
    largest = Candidate(b"i" * most, b"u" * most, b"s" * rounds.MAX_SECOND_OF_UPDATE)
    chunks = list(rounds.seal_chunks(ROUND, (largest,) * 9, ()))
    assert all(chunk.ByteSize() <= MAX_MESSAGE for chunk in chunks)
    parts = rounds.SealParts()
    for chunk in chunks:
        parts.add(chunk)
    assert parts.finish()[1] == (largest,) * 9


def test_an_empty_seal_is_one_message() -> None:
    (chunk,) = rounds.seal_chunks(ROUND, (), ())
    assert rounds.seal_request_from_pb(chunk) == (ROUND, (), ())
    assert rounds.seal_request_from_pb(rounds.seal_request_to_pb(ROUND, (), ())) == (ROUND, (), ())


def test_a_seal_for_two_rounds_is_malformed_and_one_of_no_message_too() -> None:
    parts = rounds.SealParts()
    with pytest.raises(Malformed):
        parts.finish()
    parts.add(rounds_pb2.SealRoundRequest(key=rounds.key_to_pb(ROUND)))
    with pytest.raises(Malformed):
        parts.add(rounds_pb2.SealRoundRequest(key=rounds.key_to_pb(replace(ROUND, step=8))))


def test_a_seal_is_bounded_in_all() -> None:
    parts = rounds.SealParts(limit=1_000)
    chunk = rounds.seal_request_to_pb(ROUND, (Candidate(b"i" * 400, b"u"),), ())
    parts.add(chunk)
    parts.add(chunk)
    with pytest.raises(Oversized):
        parts.add(chunk)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "bundle-changed"},
        {"kind": "bundle-changed", "domain": "a.example"},
        {"kind": "bundle-changed", "sequence": 2},
        {"kind": "issuer-revoked", "domain": "a.example"},
        {"kind": "issuer-revoked", "issuer": "0a" * 20},
        {"kind": "issuer-revoked", "domain": "a.example", "issuer": "0a" * 19},
    ],
)
def test_an_event_about_a_ca_that_leaves_out_which_is_refused(changes: dict[str, Any]) -> None:
    message = trust_pb2.TrustEvent(epoch=1, at=time_to_pb(NOW), **changes)
    with pytest.raises(Malformed):
        trust.event_from_pb(message)
