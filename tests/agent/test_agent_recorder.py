"""The agent's provenance: stated from the sealed round, signed once, the same after a lost answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fltrust.agent.codec import aggregate_from_pb, aggregate_to_pb
from fltrust.agent.leaf import SigningLeaf
from fltrust.agent.ports import AggregateDraft, AggregatorUpstream
from fltrust.agent.recorder import AggregateRecorder, read_provenance
from fltrust.artifacts.inputs import AppVersion
from fltrust.artifacts.ports import EntryKind, RoundFacts, StepOfRun
from fltrust.errors import Conflict, CoordinatorUnavailable, NotFound, Oversized, Revoked
from fltrust.identity import Digest, RunId
from fltrust.testing import FakeClock, LocalFederation

sys.path.append(str(Path(__file__).parents[1] / "flower"))
from app_world import honest, train


class Line(AggregatorUpstream):
    """The way to the coordinator, with what it may lose."""

    def __init__(self, federation: LocalFederation) -> None:
        self._link = federation.coordinator.link(federation.aggregator)
        self.loses_answers = 0
        self.certified = 0
        self.sent: list[bytes] = []

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        self.certified += 1
        return self._link.certify_signer(csr_der)

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        self.sent.append(envelope)
        bundle = self._link.countersign(envelope, certificate, entry_kind=entry_kind)
        if self.loses_answers:
            self.loses_answers -= 1
            raise CoordinatorUnavailable("the answer was lost")
        return bundle

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        return self._link.describe_round(run_id, step)

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        return self._link.find_lineage(query)


class Scene:
    """A run of two sealed rounds of which nothing is recorded yet."""

    def __init__(self) -> None:
        from app_world import QUICK

        from fltrust.flower.policy import TrustPolicy

        self.clock = FakeClock()
        self.federation = LocalFederation(honest(), 2, clock=self.clock)
        train(self.federation, rounds=2, policy=TrustPolicy(waits=QUICK, lineage=False))
        self.line = Line(self.federation)
        self.recorder = AggregateRecorder(self.line, clock=self.clock)
        self.steps = [r.key.step for r in self.federation.rounds()]
        self.first_model = self.line.describe_round(self.federation.run_id, self.steps[0]).trained_from

    def initial(self) -> AggregateDraft:
        return AggregateDraft(
            run_id=self.federation.run_id,
            step=0,
            round=0,
            is_initial=True,
            tensors=Digest.sha256_of(b"0"),
            model=self.first_model,
            previous_step=None,
            app=AppVersion("fltrust/tiny", "1.0.0", "ab" * 32),
            weights=(),
        )

    def round_(self, number: int, previous: int) -> AggregateDraft:
        return replace(
            self.initial(),
            step=self.steps[number - 1],
            round=number,
            is_initial=False,
            tensors=Digest.sha256_of(b"%d" % number),
            model=Digest("fltrust-model-v1", bytes([number]) * 32)
            if number == 2
            else self.line.describe_round(self.federation.run_id, self.steps[1]).trained_from,
            previous_step=previous,
            weights=tuple((p.spiffe_id, "12") for p in self.federation.participants),
        )

    def record(self, draft: AggregateDraft) -> bytes:
        return self.recorder.record(draft, builder=self.federation.aggregator.spiffe_id)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    with made.federation:
        yield made


def test_what_was_sealed_is_stated_and_the_app_is_believed_about_its_own(scene: Scene) -> None:
    scene.record(scene.initial())
    said, index = read_provenance(scene.record(scene.round_(1, 0)))
    facts = scene.line.describe_round(scene.federation.run_id, scene.steps[0])
    assert said.sealed is not None
    assert (said.sealed.receipt, said.sealed.log_index) == (facts.receipt, facts.log_index)
    assert {(u.public_name, u.update, u.certificate, u.examples) for u in said.updates} == {
        (c.public_name, c.update, c.certificate, "12") for c in facts.contributions
    }
    assert said.app == scene.initial().app
    assert index > facts.log_index
    assert said.previous is not None
    assert said.previous.step == 0


def test_one_certificate_signs_until_it_is_about_to_run_out(scene: Scene) -> None:
    scene.record(scene.initial())
    scene.record(scene.round_(1, 0))
    assert scene.line.certified == 1
    scene.clock.advance(timedelta(minutes=9, seconds=30))
    scene.federation.coordinator.beat()
    scene.record(scene.round_(2, scene.steps[0]))
    assert scene.line.certified == 2


def test_after_a_lost_answer_the_same_envelope_is_sent_again(scene: Scene) -> None:
    scene.line.loses_answers = 1
    with pytest.raises(CoordinatorUnavailable):
        scene.record(scene.initial())
    bundle = scene.record(scene.initial())
    assert read_provenance(bundle)[0].is_initial
    assert scene.line.sent[0] == scene.line.sent[1]


def test_after_a_lost_answer_and_a_certificate_that_ran_out_the_recorded_bundle_is_found(
    scene: Scene,
) -> None:
    scene.line.loses_answers = 1
    with pytest.raises(CoordinatorUnavailable):
        scene.record(scene.initial())
    scene.clock.advance(timedelta(minutes=20))
    scene.federation.coordinator.beat()
    bundle = scene.record(scene.initial())
    where = StepOfRun(scene.federation.run_id, 0)
    assert bundle == next(scene.line.find_lineage(where))
    assert scene.line.certified == 2


def test_another_process_finds_what_came_before(scene: Scene) -> None:
    scene.record(scene.initial())
    later = AggregateRecorder(scene.line, clock=scene.clock)
    draft, builder = scene.round_(1, 0), scene.federation.aggregator.spiffe_id
    said, _ = read_provenance(later.record(draft, builder=builder))
    assert said.previous is not None
    assert said.previous.tensors == scene.initial().tensors


def test_another_aggregate_of_a_recorded_step_is_refused(scene: Scene) -> None:
    scene.record(scene.initial())
    with pytest.raises(Conflict) as refusal:
        scene.record(replace(scene.initial(), tensors=Digest.sha256_of(b"another")))
    assert refusal.value.reason == "aggregate-recorded"
    assert scene.record(scene.initial()) == next(
        scene.line.find_lineage(StepOfRun(scene.federation.run_id, 0))
    )


def test_a_round_after_one_that_is_not_recorded_is_refused(scene: Scene) -> None:
    with pytest.raises(NotFound) as refusal:
        scene.record(scene.round_(1, 0))
    assert refusal.value.reason == "lineage-incomplete"


def test_a_step_that_was_never_sealed_is_refused(scene: Scene) -> None:
    scene.record(scene.initial())
    with pytest.raises(NotFound):
        scene.record(replace(scene.round_(1, 0), step=999))


def test_a_revoked_aggregator_records_nothing(scene: Scene) -> None:
    core = scene.federation.grid.aggregator_agent
    core.halt(Revoked("told so"))  # type: ignore[attr-defined]
    with pytest.raises(Revoked):
        core.record_aggregate(scene.initial())


def test_a_draft_survives_the_socket(scene: Scene) -> None:
    for draft in (scene.initial(), scene.round_(1, 0), replace(scene.initial(), app=None)):
        assert aggregate_from_pb(aggregate_to_pb(draft)) == draft
    many = tuple((scene.federation.participants[0].spiffe_id, "1") for _ in range(10_001))
    with pytest.raises(Oversized):
        aggregate_from_pb(aggregate_to_pb(replace(scene.initial(), weights=many)))


def test_a_leaf_for_another_key_is_not_signed_with(scene: Scene) -> None:
    from fltrust.errors import CertificateRefused
    from fltrust.keys import generate
    from fltrust.pki import create_csr

    class Swapped(Line):
        def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
            del csr_der
            return super().certify_signer(create_csr(generate()))

    with pytest.raises(CertificateRefused):
        SigningLeaf(Swapped(scene.federation), clock=scene.clock).current()
