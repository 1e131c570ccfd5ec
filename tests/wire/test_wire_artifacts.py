"""Signing, lineage and audit on the wire: the same comes back; the unbounded and unknown is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fltrust.artifacts.ports import (
    BlastRadius,
    Contribution,
    EntryKind,
    RoundFacts,
    SpoiltAggregate,
    SpoiltModel,
    SpoiltRound,
    StepOfRun,
)
from fltrust.errors import EvidenceInvalid, FltrustError, Malformed, Oversized, Refusal
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import CheckpointPolicy, sign_checkpoint
from fltrust.tlog.entries import LogOpened, PublicNames
from fltrust.tlog.merkle import Edge, leaf_hash
from fltrust.tlog.note import NoteKey
from fltrust.wire import artifacts
from fltrust.wire.artifacts import AuditQuery
from fltrust.wire.audit import AuditLine
from fltrust.wire.pb import artifacts_pb2 as pb
from fltrust.wire.rounds import MAX_SEAL
from fltrust.wire.values import parse

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
SITE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")
SHA, MODEL = Digest.sha256_of(b"x"), Digest("fltrust-model-v1", b"m" * 32)
RUN = RunId(2**64 - 1)
FACTS = RoundFacts(
    run_id=RUN,
    step=7,
    round=3,
    epoch=Epoch(9),
    log_index=2**40,
    receipt=SHA,
    trained_from=MODEL,
    opened_at=NOW,
    sealed_at=NOW,
    contributions=(Contribution(SITE, "pseudonym:" + "0" * 32, SHA, SHA),) * 2,
)
RADIUS = BlastRadius(
    participant=SITE,
    since=NOW,
    rounds=(SpoiltRound(RUN, 1, 1, 5, NOW),),
    aggregates=(SpoiltAggregate(RUN, 1, 1, SHA, 6, True), SpoiltAggregate(RUN, 2, 1, SHA, 7, False)),
    models=(SpoiltModel("m", SHA, 8, False),),
)


def radius_from(message: pb.BlastRadiusResponse) -> BlastRadius:
    return artifacts.blast_from_pb(message, who=SITE, since=NOW)


@pytest.mark.parametrize(
    ("value", "to_pb", "from_pb"),
    [
        (FACTS, artifacts.facts_to_pb, artifacts.facts_from_pb),
        (replace(FACTS, contributions=()), artifacts.facts_to_pb, artifacts.facts_from_pb),
        (RADIUS, artifacts.blast_to_pb, radius_from),
        (replace(RADIUS, rounds=(), aggregates=(), models=()), artifacts.blast_to_pb, radius_from),
        (SHA, artifacts.lineage_request_to_pb, artifacts.lineage_request_from_pb),
        (StepOfRun(RUN, 0), artifacts.lineage_request_to_pb, artifacts.lineage_request_from_pb),
        (AuditQuery(), artifacts.audit_request_to_pb, artifacts.audit_request_from_pb),
        (
            AuditQuery(participant=SITE, run_id=RunId(0), since=NOW, until=NOW),
            artifacts.audit_request_to_pb,
            artifacts.audit_request_from_pb,
        ),
        ((b"leaf", b"issuing"), artifacts.chain_to_pb, artifacts.chain_from_pb),
    ],
)
def test_what_is_sent_is_what_arrives(
    value: Any, to_pb: Callable[[Any], Any], from_pb: Callable[[Any], Any]
) -> None:
    message = to_pb(value)
    assert from_pb(parse(type(message), message.SerializeToString())) == value


def test_a_request_to_countersign_arrives_whole_and_without_a_kind_is_the_usual_one() -> None:
    for kind in EntryKind:
        message = artifacts.countersign_request_to_pb(b"envelope", b"leaf", kind)
        assert artifacts.countersign_request_from_pb(message) == (b"envelope", b"leaf", kind)
    bare = pb.CountersignRequest(envelope=b"e", certificate=b"c")
    assert artifacts.countersign_request_from_pb(bare)[2] is EntryKind.HASHEDREKORD
    assert artifacts.blast_request_from_pb(artifacts.blast_request_to_pb(SITE, NOW)) == (SITE, NOW)


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (artifacts.countersign_request_from_pb, pb.CountersignRequest(envelope=b"e", certificate=b"")),
        (artifacts.countersign_request_from_pb, pb.CountersignRequest(envelope=b"", certificate=b"c")),
        (artifacts.certify_request_from_pb, pb.CertifySignerRequest()),
        (artifacts.chain_from_pb, pb.CertifySignerResponse()),
        (artifacts.countersign_response_from_pb, pb.CountersignResponse()),
        (artifacts.facts_from_pb, pb.DescribeRoundResponse(receipt="sha256:00")),
        (artifacts.lineage_request_from_pb, pb.FindLineageRequest(tensors="md5:00")),
        (artifacts.lineage_response_from_pb, pb.FindLineageResponse()),
        (artifacts.blast_request_from_pb, pb.BlastRadiusRequest(participant=str(SITE))),
        (artifacts.blast_request_from_pb, pb.BlastRadiusRequest()),
        (artifacts.trust_response_from_pb, pb.GetTrustResponse()),
        (artifacts.audit_request_from_pb, pb.AuditRequest(participant="https://x")),
        (artifacts.audit_response_from_pb, pb.AuditResponse()),
    ],
)
def test_what_must_be_there_and_is_not_is_malformed(decode: Callable[[Any], Any], message: Any) -> None:
    with pytest.raises(Malformed):
        decode(message)


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            artifacts.countersign_request_from_pb,
            pb.CountersignRequest(envelope=b"e", certificate=b"c", entry_kind="intoto-0.0.1"),
        ),
        (artifacts.lineage_request_from_pb, pb.FindLineageRequest()),
    ],
)
def test_a_word_or_kind_that_is_not_known_is_refused_as_unknown(
    decode: Callable[[Any], Any], message: Any
) -> None:
    with pytest.raises(Malformed) as caught:
        decode(message)
    assert caught.value.reason == Refusal.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (artifacts.certify_request_from_pb, pb.CertifySignerRequest(csr=b"x" * 20_000)),
        (
            artifacts.countersign_request_from_pb,
            pb.CountersignRequest(envelope=b"e" * (artifacts.MAX_SENT_ENVELOPE + 1), certificate=b"c"),
        ),
        (
            artifacts.countersign_request_from_pb,
            pb.CountersignRequest(envelope=b"e", certificate=b"c" * 20_000),
        ),
        (artifacts.chain_from_pb, pb.CertifySignerResponse(chain=[b"x"] * 9)),
        (artifacts.audit_response_from_pb, pb.AuditResponse(line=b"x" * (2**20 + 1))),
        (
            radius_from,
            pb.BlastRadiusResponse(models=[pb.SpoiltModel(name="n" * 5_000, subject=str(SHA))]),
        ),
    ],
)
def test_what_is_too_much_is_refused_before_it_is_read(decode: Callable[[Any], Any], message: Any) -> None:
    with pytest.raises(Oversized):
        decode(message)


def test_the_largest_answers_pass_the_client() -> None:
    assert artifacts.MAX_SENT_ENVELOPE + 2**20 < MAX_SEAL


# Audit lines.


@pytest.fixture(scope="module")
def key() -> NoteKey:
    return NoteKey("hospitals.example/log", generate_note_key())


@pytest.fixture(scope="module")
def line(key: NoteKey) -> AuditLine:
    entry = LogOpened(
        at=NOW,
        domain=TrustDomain("hospitals.example"),
        origin=key.name,
        log_key=str(key.verifier),
        public_names=PublicNames.SPIFFE,
    ).encode()
    edge, _ = Edge().append([leaf_hash(entry), leaf_hash(b"another")])
    return AuditLine(
        index=0,
        at=NOW,
        kind="log-opened",
        subjects=(str(SITE),),
        entry=entry,
        proof=(leaf_hash(b"another"),),
        checkpoint=sign_checkpoint(edge.head, key),
    )


def test_an_audit_line_arrives_as_it_was_and_is_proven(key: NoteKey, line: AuditLine) -> None:
    assert AuditLine.parse(line.encode()) == line
    entry, checkpoint = line.verify(CheckpointPolicy((key.verifier,)))
    assert (entry.encode(), checkpoint.head.size) == (line.entry, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"kind": "taint"},
        {"proof": ()},
        {"proof": (b"\0" * 32,)},
        {"checkpoint": b"x"},
    ],
)
def test_an_audit_line_that_says_something_else_is_refused(
    key: NoteKey, line: AuditLine, change: dict[str, Any]
) -> None:
    with pytest.raises((EvidenceInvalid, Malformed)):
        replace(line, **change).verify(CheckpointPolicy((key.verifier,)))


def test_an_entry_that_was_altered_is_refused(key: NoteKey, line: AuditLine) -> None:
    altered = replace(line, entry=line.entry.replace(b"hospitals", b"hospitalz"))
    with pytest.raises(EvidenceInvalid):
        altered.verify(CheckpointPolicy((key.verifier,)))
    other = NoteKey(key.name, generate_note_key())
    with pytest.raises(FltrustError):
        line.verify(CheckpointPolicy((other.verifier,)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"index":"0"}'])
def test_what_is_no_audit_line_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        AuditLine.parse(data)
