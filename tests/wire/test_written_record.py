"""The written record: whole though the run goes on meanwhile, and strict about its form."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fltrust.errors import FltrustError, Malformed, NotFound, Oversized
from fltrust.identity import Digest, Epoch, NodeId, Role, RunId
from fltrust.pki import root_fingerprint
from fltrust.revocation.events import FeedItem
from fltrust.rounds.chain import ChainReport
from fltrust.rounds.logged import LogEvidence, PlaceProof
from fltrust.rounds.types import CohortMember, RoundKey, RoundRecord
from fltrust.testing import ScratchCoordinator
from fltrust.testing.identities import ScratchIdentity
from fltrust.updates import Phase
from fltrust.wire import rounds
from fltrust.wire.pb import rounds_pb2
from fltrust.wire.record import export_record, read_record, verify_record

RUN, OTHER = RunId(7), RunId(8)


class Seals:
    """A coordinator whose run goes on; `step` seals one more round of it."""

    def __init__(self, coordinator: ScratchCoordinator) -> None:
        self.coordinator = coordinator
        self.site = coordinator.enroll("site-a")
        self.main = coordinator.enroll("main", Role.AGGREGATOR)
        self.steps: dict[RunId, int] = {}

    def open(self, run: RunId = RUN) -> RoundKey:
        step = self.steps[run] = self.steps.get(run, 0) + 1
        member = CohortMember(
            self.site.spiffe_id, NodeId(2), self.site.node_key, Digest.sha256_of(b"%d" % step)
        )
        key = RoundKey(run, step, step, Phase.TRAIN)
        self.coordinator.session(self.main).open_round(key, (member,))
        return key

    def seal(self, key: RoundKey) -> None:
        self.coordinator.session(self.main).seal_round(key, (), ())

    def step(self, run: RunId = RUN) -> None:
        self.seal(self.open(run))

    def verify(self, data: bytes) -> ChainReport:
        return verify_record(data, RUN, roots=[root_fingerprint(self.coordinator.bundle.roots[0])])


@pytest.fixture(scope="module")
def seals() -> Iterator[Seals]:
    with ScratchCoordinator() as coordinator:
        seals = Seals(coordinator)
        for run in (RUN, OTHER, RUN):
            seals.step(run)
        yield seals


@pytest.fixture
def lines(seals: Seals) -> list[dict[str, Any]]:
    data = export_record(seals.coordinator.as_operator(), seals.coordinator.bundle, RUN)
    return [json.loads(line) for line in data.splitlines()]


def written(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_a_record_holds_roots_feed_rounds_and_their_places_and_verifies(
    seals: Seals, lines: list[dict[str, Any]]
) -> None:
    kinds = [next(iter(line)) for line in lines]
    assert kinds == ["header", *["event"] * 5, "round", "round", "tree", "place", "place"]
    report = seals.verify(written(lines))
    assert report.is_good, report.problems
    assert report.log is not None
    assert str(report.log.key_id) == seals.coordinator.notary.note.key_id


class Busy:
    """An archive in which, at every question, one more round is sealed and somebody else is enrolled."""

    def __init__(self, seals: Seals) -> None:
        self.seals = seals
        self.waiting = seals.open()
        self.count = 0

    def _meanwhile(self) -> None:
        self.seals.seal(self.waiting)
        self.count += 1
        self.seals.coordinator.enroll(f"busy-{self.count}")
        self.waiting = self.seals.open()

    def list_rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]:
        found = self.seals.coordinator.as_operator().list_rounds(run_id)
        self._meanwhile()
        return found

    def get_round(self, run_id: RunId, step: int) -> RoundRecord:
        self._meanwhile()
        return self.seals.coordinator.as_operator().get_round(run_id, step)

    def prove_rounds(self, run_id: RunId) -> LogEvidence:
        self._meanwhile()
        found = self.seals.coordinator.as_operator().prove_rounds(run_id)
        self._meanwhile()
        return found

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        self._meanwhile()
        return self.seals.coordinator.as_operator().watch(after)


def test_a_record_is_whole_though_rounds_are_sealed_while_it_is_written() -> None:
    with ScratchCoordinator() as coordinator:
        seals = Seals(coordinator)
        seals.step()
        seals.step()
        report = seals.verify(export_record(Busy(seals), coordinator.bundle, RUN))
    assert report.problems == ()
    assert len(report.rounds) == 3
    assert report.rounds[-1].index is not None  # it was open when the rounds were listed


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [line for line in lines if "tree" not in line],
        lambda lines: [*lines, next(line for line in lines if "tree" in line)],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, {"place": {"index": "9", "inclusion": [""] * 64}}],
        lambda lines: [{"header": {**lines[0]["header"], "format": "fltrust-record-v1"}}, *lines[1:]],
        lambda lines: [*lines, {"tree": {}}],
        lambda lines: [{**line, "tree": {"key": "x" * 2_000}} if "tree" in line else line for line in lines],
    ],
)
def test_a_record_in_another_form_is_refused(
    lines: list[dict[str, Any]], change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    with pytest.raises((Malformed, Oversized)):
        read_record(written(change(lines)))


def test_a_checkpoint_of_another_log_is_a_problem_of_the_record(
    seals: Seals, lines: list[dict[str, Any]]
) -> None:
    with ScratchCoordinator() as other:
        strange = Seals(other)
        strange.step()
        evidence = other.as_operator().prove_rounds(RUN)
    for line in lines:
        if "tree" in line:
            line["tree"] = {"key": evidence.key, "checkpoint": b64encode(evidence.checkpoint).decode()}
    report = seals.verify(written(lines))
    assert not report.is_good
    assert any("the receipt names" in problem for problem in report.problems)


def test_only_who_watches_runs_may_ask_for_proofs(seals: Seals) -> None:
    def ask(who: ScratchIdentity) -> LogEvidence:
        return seals.coordinator.session(who).prove_rounds(RUN)

    assert len(ask(seals.main).proofs) == 2
    with pytest.raises(FltrustError) as refusal:
        ask(seals.site)
    assert refusal.value.reason == "permission-denied"
    with pytest.raises(NotFound):
        seals.coordinator.as_operator().prove_rounds(RunId(99))


# --- on the wire -------------------------------------------------------------------------------------

EVIDENCE = LogEvidence(
    "hospitals.example/log+00000000+AA==",
    b"checkpoint",
    {3: PlaceProof((bytes(32), b"\x01" * 32), ()), 2**40: PlaceProof((), (b"\x02" * 32,))},
)


def test_evidence_comes_back_as_it_was_sent() -> None:
    assert rounds.evidence_from_pb(rounds.evidence_to_pb(EVIDENCE)) == EVIDENCE


@pytest.mark.parametrize(
    "order", [(), (1,), (1, 0), (0, 0), (0, 1, 1), (0, 1, 0)], ids=lambda order: "".join(map(str, order))
)
def test_evidence_in_another_order_is_refused(order: tuple[int, ...]) -> None:
    messages = list(rounds.evidence_to_pb(EVIDENCE))
    with pytest.raises(Malformed):
        rounds.evidence_from_pb(messages[number] for number in order)


def test_a_proof_with_more_hashes_than_any_tree_needs_is_refused() -> None:
    tree, place, _ = rounds.evidence_to_pb(EVIDENCE)
    for field in ("inclusion", "consistency"):
        long = rounds_pb2.PlaceProof(index=3)
        getattr(long, field).extend([bytes(32)] * 64)
        with pytest.raises(Oversized):
            rounds.evidence_from_pb([tree, rounds_pb2.ProveRoundsResponse(place=long)])
    assert rounds.evidence_from_pb([tree, place]).proofs.keys() == {3}
