"""What signing and lineage need kept, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fltrust.artifacts.keeping import (
    AggregateRecord,
    ContributionRecord,
    Cosignature,
    ModelRecord,
    Taint,
    TaintedKind,
    TrustMaterial,
)
from fltrust.artifacts.ports import StepOfRun
from fltrust.errors import Conflict
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId
from fltrust.storage import Store, open_store

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
RUN, OTHER = RunId(2**64 - 1), RunId(5)
SITE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")
SIGNER = SpiffeId.of("hospitals.example", Role.SIGNER, "release")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as store:
        yield store


def tensors(text: str) -> Digest:
    return Digest.sha256_of(text.encode())


def model(text: str) -> Digest:
    return Digest("fltrust-model-v1", tensors(text).value)


def aggregate(step: int, *, run: RunId = RUN, log_index: int | None = None) -> AggregateRecord:
    return AggregateRecord(
        run_id=run,
        step=step,
        round=step,
        tensors=tensors(f"t{step}"),
        model=model(f"m{step}"),
        previous=None if step == 0 else model(f"m{step - 1}"),
        log_index=step if log_index is None else log_index,
        bundle=b"bundle %d" % step,
        recorded_at=NOW,
        parent=None if step == 0 else StepOfRun(run, step - 1),
    )


def test_aggregates_are_found_by_step_tensors_and_model(store: Store) -> None:
    with store.writing() as tx:
        for step in (0, 1, 2):
            tx.aggregates.add(aggregate(step))
        tx.aggregates.add(aggregate(1, run=OTHER, log_index=9))
    with store.reading() as tx:
        found = tx.aggregates.get(RUN, 1)
        assert found is not None
        assert replace(found, parent=aggregate(1).parent) == aggregate(1)
        assert tx.aggregates.get(RUN, 7) is None
        assert [a.step for a in tx.aggregates.of_run(RUN)] == [0, 1, 2]
        assert [a.run_id for a in tx.aggregates.by_tensors(tensors("t1"))] == [OTHER, RUN]
        assert [a.log_index for a in tx.aggregates.by_tensors(tensors("t2"), tensors("t1"))] == [9, 2, 1]
        assert tx.aggregates.by_tensors() == ()
        assert [a.run_id for a in tx.aggregates.by_model(model("m1"))] == [OTHER, RUN]
        assert [a.log_index for a in tx.aggregates.made_from(model("m0"))] == [1, 9]
        assert tx.aggregates.made_from(model("m2")) == ()


def test_a_step_has_one_aggregate(store: Store) -> None:
    with store.writing() as tx:
        tx.aggregates.add(aggregate(1))
    with pytest.raises(Conflict), store.writing() as tx:
        tx.aggregates.add(aggregate(1, log_index=2))
    with pytest.raises(Conflict), store.writing() as tx:
        tx.aggregates.add(aggregate(2, log_index=1))


def test_models_are_found_by_subject_tensors_and_aggregate(store: Store) -> None:
    first = ModelRecord(
        name="m.safetensors",
        subject=tensors("subject"),
        tensors=(tensors("t2"), tensors("t1")),
        aggregate=StepOfRun(RUN, 2),
        signer=SIGNER,
        log_index=7,
        bundle=b"bundle",
        recorded_at=NOW,
    )
    second = replace(first, name="other", tensors=(), aggregate=None, log_index=8)
    with store.writing() as tx:
        tx.models.add(first)
        tx.models.add(second)
    with store.reading() as tx:
        assert tx.models.get(7) == first
        assert tx.models.get(9) is None
        assert tx.models.all() == tx.models.by_subject(tensors("subject")) == (first, second)
        assert tx.models.by_tensors(tensors("t1")) == (first,)
        assert tx.models.by_tensors(tensors("t9")) == ()
        assert tx.models.of_aggregate(RUN, 2) == (first,)
        assert tx.models.of_aggregate(OTHER, 2) == ()


def test_contributions_are_found_by_round_and_by_participant_from_a_time_on(store: Store) -> None:
    def contribution(run: RunId, step: int, name: str, minutes: int) -> ContributionRecord:
        return ContributionRecord(
            run_id=run,
            step=step,
            participant=SpiffeId.of("hospitals.example", Role.PARTICIPANT, name),
            signed_at=NOW + timedelta(minutes=minutes),
            update=tensors(f"u{name}"),
            certificate=tensors(f"c{name}"),
            log_index=10 * step,
        )

    with store.writing() as tx:
        tx.contributions.add_all(contribution(RUN, 1, name, 0) for name in ("site-b", "site-a"))
        tx.contributions.add_all([contribution(RUN, 2, "site-a", 5), contribution(RUN, 2, "site-c", 5)])
        tx.contributions.add_all([contribution(OTHER, 3, "site-a", 9)])
        tx.contributions.add_all(())
    with store.reading() as tx:
        assert [c.participant.name for c in tx.contributions.of_round(RUN, 1)] == ["site-b", "site-a"]
        since = NOW + timedelta(minutes=5)
        assert [(c.run_id, c.step) for c in tx.contributions.of(SITE, since=since)] == [(RUN, 2), (OTHER, 3)]
        assert len(tx.contributions.of(SITE, since=NOW)) == 3
        assert tx.contributions.of(SITE, since=NOW + timedelta(minutes=10)) == ()
    with pytest.raises(Conflict), store.writing() as tx:
        tx.contributions.add_all([contribution(RUN, 1, "site-a", 0)])


def test_a_taint_stands_once_for_each_cause_and_epoch(store: Store) -> None:
    taint = Taint(
        what=TaintedKind.AGGREGATE,
        key="7/1",
        cause=SITE,
        epoch=Epoch(4),
        since=NOW,
        is_direct=True,
        log_index=5,
    )
    later = replace(taint, epoch=Epoch(9), since=NOW - timedelta(days=1), log_index=11)
    of_model = replace(taint, what=TaintedKind.MODEL, key="3", is_direct=False)
    with store.writing() as tx:
        assert tx.taints.add(taint)
        assert not tx.taints.add(replace(taint, log_index=6))
        assert tx.taints.add(later)
        assert tx.taints.add(of_model)
    with store.reading() as tx:
        assert tx.taints.of(TaintedKind.AGGREGATE, "7/1") == (taint, later)
        assert tx.taints.of(TaintedKind.MODEL, "7/1") == ()
        assert tx.taints.all() == (taint, of_model, later)


def test_what_was_countersigned_is_remembered_and_never_replaced(store: Store) -> None:
    request = tensors("request")
    with store.writing() as tx:
        assert tx.countersigned.get(request) is None
        tx.countersigned.put(request, b"bundle")
    with pytest.raises(Conflict), store.writing() as tx:
        tx.countersigned.put(request, b"another")
    with store.reading() as tx:
        assert tx.countersigned.get(request) == b"bundle"


def test_cosignatures_are_kept_by_size_and_witness(store: Store) -> None:
    with store.writing() as tx:
        for witness, size in (("w2", 5), ("w1", 5), ("w1", 9)):
            tx.cosignatures.add(Cosignature(witness, size, f"— {witness} {size}"))
        tx.cosignatures.add(Cosignature("w1", 5, "— again"))
    with store.reading() as tx:
        assert tx.cosignatures.at(5) == (Cosignature("w1", 5, "— w1 5"), Cosignature("w2", 5, "— w2 5"))
        assert tx.cosignatures.at(6) == ()
        assert tx.cosignatures.newest_of("w1") == Cosignature("w1", 9, "— w1 9")
        assert tx.cosignatures.newest_of("w3") is None
        assert tx.cosignatures.sizes() == (5, 9)
        assert tx.cosignatures.sizes(after=5) == (9,)


def test_trust_material_stays_and_learns_only_when_it_ended(store: Store) -> None:
    key = TrustMaterial("note-key", tensors("key"), b"der", NOW, None)
    with store.writing() as tx:
        tx.trust_material.put(key)
        tx.trust_material.put(TrustMaterial("ct-key", tensors("ct"), b"der", NOW, None))
        tx.trust_material.put(replace(key, data=b"other", not_after=NOW + timedelta(days=1)))
    with store.reading() as tx:
        first, second = tx.trust_material.all()
    assert first.kind == "ct-key"
    assert second == replace(key, not_after=NOW + timedelta(days=1))
