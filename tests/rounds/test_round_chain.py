from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import RUN, Authorities, Exchange, World

from fltrust.identity import Epoch, Role, RunId
from fltrust.revocation import TrustEvent
from fltrust.rounds.chain import ChainReport, verify_chain
from fltrust.rounds.types import Candidate, RoundRecord, RoundStatus

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


def test_a_whole_record_verifies_years_later_with_the_roots_alone(
    world: World, records: list[RoundRecord]
) -> None:
    report = verify_chain(records, world.bundle)
    assert report.is_good, report.problems
    assert report.gaps == ()
    assert [len(check.admitted) for check in report.rounds] == [2, 2, 2, 2]


def test_a_run_verifies_alone_and_the_report_names_the_gap(world: World, records: list[RoundRecord]) -> None:
    report = verify_chain([r for r in records if r.key.run_id == RUN], world.bundle)
    assert report.is_good
    assert report.gaps == ((1, 1),)
    assert "receipts 1 to 1 are not in this record" in report.lines()[-1]


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


def test_a_round_left_out_shows_as_a_gap_and_one_repeated_as_a_problem(
    world: World, records: list[RoundRecord]
) -> None:
    assert verify_chain([records[0], *records[2:]], world.bundle).gaps == ((1, 1),)
    assert "stands twice" in _problems(verify_chain([*records, records[3]], world.bundle))


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


def _problems(report: ChainReport) -> str:
    return "\n".join(report.problems)
