from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import RUN, Authorities, Exchange, World, receipt_of

from fltrust.identity import Epoch, Role, RunId
from fltrust.keys.ed25519 import generate_note_key
from fltrust.revocation import TrustEvent
from fltrust.rounds.chain import ChainReport, verify_chain
from fltrust.rounds.logged import LogEvidence, PlaceProof
from fltrust.rounds.types import Candidate, RoundRecord, RoundStatus
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import TreeHead
from fltrust.updates import MAX_SEALED_SIGNED_BYTES, SignedStatement, sign_statement
from fltrust.updates.dsse import Envelope

OTHER_RUN = RunId(5)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Three rounds of one run, one of another in between; then site-b turns out to be compromised."""
    world = World("sqlite://")
    aggregator = world.join("main", Role.AGGREGATOR)
    a, b = world.join("site-a"), world.join("site-b")
    for step, run in ((1, RUN), (1, OTHER_RUN), (2, RUN), (3, RUN)):
        exchange = Exchange(world, aggregator, step=step, run=run)
        exchange.open(a, b)
        world.clock.advance(timedelta(minutes=5))
        exchange.seal(exchange.answer(a), exchange.answer(b))
    world.revoke(b, compromised_since=world.clock.now() - timedelta(minutes=7))
    yield world
    world.close()


@pytest.fixture
def records(world: World) -> list[RoundRecord]:
    return [world.op.get_round(RUN, 1), world.op.get_round(OTHER_RUN, 1)] + [
        world.op.get_round(RUN, step) for step in (2, 3)
    ]


@pytest.fixture
def feed(world: World) -> tuple[TrustEvent, ...]:
    return world.authority.events(Epoch(0), 100, reader=None)


@pytest.fixture
def log(world: World) -> LogEvidence:
    """Proofs for the rounds of both runs, under one checkpoint."""
    one, other = world.op.prove_rounds(RUN), world.op.prove_rounds(OTHER_RUN)
    assert one.checkpoint == other.checkpoint
    return replace(one, proofs={**one.proofs, **other.proofs})


def test_a_whole_record_verifies_years_later_with_the_roots_alone(
    world: World, records: list[RoundRecord], log: LogEvidence
) -> None:
    report = verify_chain(records, world.bundle, log=log)
    assert report.is_good, report.problems
    assert [len(check.admitted) for check in report.rounds] == [2, 2, 2, 2]
    assert report.log is not None
    with world.store.reading() as tx:
        assert report.log.head == tx.tlog.head
    assert "hospitals.example/log" in report.lines()[-1]


def test_a_run_verifies_alone_with_its_own_proofs(world: World, records: list[RoundRecord]) -> None:
    mine = [record for record in records if record.key.run_id == RUN]
    assert verify_chain(mine, world.bundle, log=world.op.prove_rounds(RUN)).is_good
    report = verify_chain(records, world.bundle, log=world.op.prove_rounds(RUN))
    assert len(report.problems) == 1
    assert "expected a proof that entry" in report.problems[0]


def test_without_proofs_the_report_says_that_places_were_not_checked(
    world: World, records: list[RoundRecord]
) -> None:
    report = verify_chain(records, world.bundle)
    assert report.is_good
    assert report.log is None
    assert "not checked" in report.lines()[-1]
    assert report.as_fields()["log"] is None


def test_whoever_was_compromised_when_it_signed_taints_its_rounds(
    world: World, records: list[RoundRecord], feed: tuple[TrustEvent, ...]
) -> None:
    report = verify_chain(records, world.bundle, events=feed)
    assert not report.is_good
    assert report.problems == ()
    assert [len(check.tainted) for check in report.rounds] == [0, 0, 1, 1]
    assert str(report.rounds[2].tainted[0].name) == "site-b"


def test_a_round_abandoned_or_open_has_nothing_to_verify(world: World, records: list[RoundRecord]) -> None:
    record = replace(records[0], status=RoundStatus.ABANDONED, receipt=None, evidence=())
    report = verify_chain([record], world.bundle)
    assert report.is_good
    assert "nothing was sealed" in report.lines()[0]


def test_whatever_is_altered_in_the_record_is_found(world: World, records: list[RoundRecord]) -> None:
    good = records[2]
    assert good.receipt is not None
    one, two = good.evidence
    flipped = bytearray(good.receipt)
    flipped[len(flipped) // 3] ^= 1
    for altered, words in (
        (replace(good, receipt=bytes(flipped)), "receipt"),
        (replace(good, receipt=records[3].receipt), "another round"),
        (replace(good, receipt=None), "found none"),
        (replace(good, receipt=b""), "receipt"),
        (replace(good, status=RoundStatus.OPEN), "expected a sealed round"),
        (replace(good, key=replace(good.key, round=9)), "another round"),
        (replace(good, opened_at=good.opened_at - timedelta(seconds=1)), "another round"),
        (replace(good, evidence=(one,)), "without evidence"),
        (replace(good, evidence=(one, two, one)), "more than one"),
        (replace(good, evidence=(one, Candidate(two.instruction, one.update))), "evidence of"),
        (replace(good, evidence=(one, records[3].evidence[1])), "evidence of"),
        (replace(good, cohort=good.cohort[:1]), "evidence of"),
    ):
        report = verify_chain([records[0], records[1], altered], world.bundle)
        assert not report.is_good, words
        assert any(words in problem for problem in report.problems), (words, report.problems)
        assert "FAILED" in "\n".join(report.lines())


def test_a_round_that_is_repeated_is_a_problem(world: World, records: list[RoundRecord]) -> None:
    assert "stands twice" in _problems(verify_chain([*records, records[3]], world.bundle))


def test_whatever_is_altered_in_the_proofs_is_found(
    world: World, records: list[RoundRecord], log: LogEvidence
) -> None:
    index = min(log.proofs)
    proof = log.proofs[index]
    other = log.proofs[max(log.proofs)]
    size = verify_chain([], world.bundle, log=log).log.head.size
    rewound = sign_checkpoint(TreeHead(size, bytes(32)), world.authority.log_key)
    for altered, words in (
        (replace(log, key="nonsense"), "log: expected a key"),
        (replace(log, checkpoint=log.checkpoint[:-2]), "log: "),
        (replace(log, checkpoint=log.checkpoint.replace(b"hospitals", b"hospitalz")), "log: "),
        (replace(log, checkpoint=rewound), "does not lead to the root"),
        (_another_log(world, size), "the receipt names"),
        (_with(log, index, replace(proof, inclusion=proof.inclusion[:-1])), "does not lead to the root"),
        (_with(log, index, replace(proof, inclusion=(*proof.inclusion, bytes(32)))), "goes on past the root"),
        (_with(log, index, replace(proof, consistency=other.consistency)), "extension"),
        (_with(log, index, other), "does not lead to the root"),
        (replace(log, proofs={}), "expected a proof"),
    ):
        report = verify_chain(records, world.bundle, log=altered)
        assert not report.is_good, words
        assert words in _problems(report), (words, report.problems)
        assert "FAILED" in "\n".join(report.lines())


def test_a_receipt_that_was_never_logged_is_found(world: World, records: list[RoundRecord]) -> None:
    """The coordinator signs another receipt for the same place: the log has but one of them."""
    record, log = records[0], world.op.prove_rounds(RUN)
    forged = replace(receipt_of(record.receipt or b""), refused=())
    forged = replace(forged, admitted=forged.admitted[:1])
    signed = sign_statement(forged, signer=world.identity.signer, chain=world.identity.chain_der)
    report = verify_chain(
        [replace(record, receipt=signed.to_bytes(), evidence=record.evidence[:1])], world.bundle, log=log
    )
    (problem,) = report.problems
    assert "does not lead to the root" in problem


def test_a_receipt_of_the_chain_before_the_log_is_named_as_such(
    world: World, records: list[RoundRecord]
) -> None:
    signed = SignedStatement.from_bytes(records[0].receipt or b"", limit=MAX_SEALED_SIGNED_BYTES)
    old = signed.envelope.payload.replace(b"sealed-round:v2", b"sealed-round:v1")
    envelope = Envelope.sign(old, signer=world.identity.signer).to_json()
    record = replace(records[0], receipt=replace(signed, envelope_json=envelope).to_bytes())
    assert "of version 1" in _problems(verify_chain([record], world.bundle))


def test_a_record_of_another_trust_root_does_not_verify(records: list[RoundRecord]) -> None:
    report = verify_chain(records, Authorities.make().bundle)
    assert len(report.problems) == 4


def test_a_receipt_that_admits_somebody_revoked_before_it_does_not_agree_with_the_feed(
    world: World, records: list[RoundRecord], feed: tuple[TrustEvent, ...]
) -> None:
    revocation = replace(feed[-1], epoch=Epoch(5))
    renumbered = [*feed[:4], revocation, *(replace(e, epoch=Epoch(e.epoch + 1)) for e in feed[4:-1])]
    assert "admitted, but" in _problems(verify_chain(records, world.bundle, events=renumbered))
    assert "ends at" in _problems(verify_chain(records, world.bundle, events=feed[:4]))
    assert "trust feed" in _problems(verify_chain(records, world.bundle, events=feed[1:]))


def test_the_report_is_data_for_programs(world: World, records: list[RoundRecord]) -> None:
    fields = verify_chain(records, world.bundle).as_fields()
    assert fields["good"] is True
    rounds = fields["rounds"]
    assert isinstance(rounds, list)
    assert rounds[0]["run_id"] == str(int(RUN))
    assert len(rounds[0]["admitted"]) == 2


def _with(log: LogEvidence, index: int, proof: PlaceProof) -> LogEvidence:
    return replace(log, proofs={**log.proofs, index: proof})


def _another_log(world: World, size: int) -> LogEvidence:
    """The same name, another key."""
    key = NoteKey(world.authority.log_key.name, generate_note_key())
    return LogEvidence(str(key.verifier), sign_checkpoint(TreeHead(size, bytes(32)), key), {})


def _problems(report: ChainReport) -> str:
    return "\n".join(report.problems)
