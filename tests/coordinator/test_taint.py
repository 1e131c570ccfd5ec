"""Blast radius and taint: what holds a participant's updates, found at once and for good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from artifact_world import Recorded, Studio, model_payload, tensors_of
from authority_world import Authorities, Member, World

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.evidence import Trust
from fltrust.artifacts.judgement import verify_status
from fltrust.artifacts.keeping import TaintedKind
from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.status import Status
from fltrust.artifacts.trustfile import TrustFile
from fltrust.coordinator.public_names import PublicNaming
from fltrust.errors import NotFound
from fltrust.identity import Digest, Name, Role, RunId, SpiffeId
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.tlog.entries import LogKind, Taint, TrustEventEntry, parse_entry
from fltrust.wire.artifacts import AuditQuery

ONE, TWO = RunId(1), RunId(2)
HOUR = timedelta(hours=1)


@pytest.fixture
def world(ca: Authorities) -> Iterator[World]:
    """In memory; each way to taint runs on both databases in `test_both_databases_find_the_same`."""
    world = World("sqlite://", ca=ca)
    yield world
    world.close()


@pytest.fixture
def aggregator(world: World) -> Member:
    return world.join("main", Role.AGGREGATOR)


@pytest.fixture
def studio(world: World, aggregator: Member) -> Studio:
    return Studio(world, aggregator, world.join("release", Role.SIGNER))


@pytest.fixture
def good(world: World) -> Member:
    return world.join("good")


@pytest.fixture
def bad(world: World) -> Member:
    return world.join("bad")


def places(world: World, *, direct: bool | None = None) -> set[tuple[int, int]]:
    """Where the store says that aggregates are tainted."""
    with world.authority.ledger.reading() as tx:
        found = [t for t in tx.taints.all() if t.what is TaintedKind.AGGREGATE]
    keys = {t.key for t in found if direct is None or t.is_direct is direct}
    return {(int(run), int(step)) for run, step in (key.split("/") for key in keys)}


def tainted_models(world: World) -> set[int]:
    with world.authority.ledger.reading() as tx:
        return {int(t.key) for t in tx.taints.all() if t.what is TaintedKind.MODEL}


def logged(world: World) -> list[Taint]:
    with world.authority.ledger.reading() as tx:
        entries = [parse_entry(entry.data) for entry in tx.tlog.find(kinds=(LogKind.TAINT,), limit=1_000)]
    return [entry for entry in entries if isinstance(entry, Taint)]


def status_of(world: World) -> Status:
    file = TrustFile.parse(world.op.trust_file())
    assert file.status is not None
    return verify_status(file.status, trust=Trust.of(file))


def two_runs(studio: Studio, good: Member, bad: Member) -> dict[str, Recorded]:
    """Run 1: bad is in steps 2 and 4. Run 2 goes on from step 3 of run 1, without bad."""
    made = {"1/0": studio.start(ONE)}
    for step, sites in enumerate(([good], [good, bad], [good], [good, bad]), 1):
        studio.world.clock.advance(timedelta(minutes=5))
        made[f"1/{step}"] = studio.train(ONE, step, sites, made[f"1/{step - 1}"])
    third = made["1/3"].as_input
    made["2/0"] = studio.start(TWO, previous=third, tensors=third.tensors, model=third.model)
    made["2/1"] = studio.train(TWO, 1, [good], made["2/0"])
    return made


def test_a_revocation_says_at_once_what_it_taints_across_runs(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    made = two_runs(studio, good, bad)
    clean, spoilt, far = studio.release(made["1/1"]), studio.release(made["1/2"]), studio.release(made["2/1"])
    since = world.clock.now() - timedelta(days=1)
    found = world.op.blast_radius(bad.spiffe_id, since)
    assert [(r.run_id, r.step, r.round) for r in found.rounds] == [(ONE, 2, 2), (ONE, 4, 4)]
    assert {(int(a.run_id), a.step): a.is_direct for a in found.aggregates} == {
        (1, 2): True,
        (1, 3): False,
        (1, 4): True,
        (2, 0): False,
        (2, 1): False,
    }
    assert {m.log_index: m.is_direct for m in found.models} == {spoilt: True, far: False}
    assert places(world) == set()  # asking changes nothing

    world.revoke(bad, compromised_since=since)
    assert places(world, direct=True) == {(1, 2), (1, 4)}
    assert places(world, direct=False) == {(1, 3), (2, 0), (2, 1)}
    assert tainted_models(world) == {spoilt, far}
    assert clean not in tainted_models(world)
    (entry,) = logged(world)
    assert (entry.participant, entry.since, len(entry.aggregates)) == (str(bad.spiffe_id), since, 5)
    status = status_of(world)
    assert {(int(t.run_id), t.step, t.is_direct) for t in status.tainted_aggregates} == {
        (int(a.run_id), a.step, a.is_direct) for a in found.aggregates
    }
    assert {t.subject for t in status.tainted_models} == {m.subject for m in found.models}


def test_both_databases_find_the_same(database_url: str, ca: Authorities) -> None:
    world = World(database_url, ca=ca)
    good, bad = world.join("good"), world.join("bad")
    studio = Studio(world, world.join("main", Role.AGGREGATOR), world.join("release", Role.SIGNER))
    made = two_runs(studio, good, bad)
    released = studio.release(made["1/2"])
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    later = studio.release(studio.train(TWO, 2, [good], made["2/1"]))
    assert places(world, direct=True) == {(1, 2), (1, 4)}
    assert places(world, direct=False) == {(1, 3), (2, 0), (2, 1), (2, 2)}
    assert tainted_models(world) == {released, later}
    status = status_of(world)
    assert (len(status.tainted_aggregates), len(status.tainted_models)) == (6, 2)
    assert len(list(world.op.audit(AuditQuery(participant=bad.spiffe_id)))) > 5
    world.close()


def test_only_what_was_signed_since_then_counts(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    two_runs(studio, good, bad)
    since = world.clock.now() - timedelta(minutes=2)  # after step 3
    assert [r.step for r in world.op.blast_radius(bad.spiffe_id, since).rounds] == [4]
    world.revoke(bad, compromised_since=since)
    assert places(world) == {(1, 4)}


def test_an_earlier_time_widens_and_the_same_again_changes_nothing(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    two_runs(studio, good, bad)
    late, early = world.clock.now() - timedelta(minutes=2), world.clock.now() - timedelta(days=1)
    world.revoke(bad, compromised_since=late)
    world.revoke(bad, compromised_since=late)
    assert len(logged(world)) == 1
    world.revoke(bad, compromised_since=early)
    assert places(world) == {(1, 2), (1, 3), (1, 4), (2, 0), (2, 1)}
    first, second = logged(world)
    assert {(int(a.run_id), a.step) for a in first.aggregates} == {(1, 4)}
    assert {(int(a.run_id), a.step) for a in second.aggregates} == {(1, 2), (1, 3), (2, 0), (2, 1)}
    world.revoke(bad, compromised_since=early)
    world.revoke(bad, compromised_since=late)
    assert len(logged(world)) == 2


def test_a_revocation_without_a_time_taints_nothing(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    two_runs(studio, good, bad)
    world.revoke(bad)
    assert (places(world), logged(world)) == (set(), [])


def test_a_revocation_that_takes_back_nothing_is_logged_as_such(world: World, bad: Member) -> None:
    world.revoke(bad, compromised_since=world.clock.now())
    (entry,) = logged(world)
    assert (entry.rounds, entry.aggregates, entry.models) == ((), (), ())


def test_what_is_recorded_later_and_holds_the_updates_is_tainted_as_it_is_recorded(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    start = studio.start(ONE)
    facts = studio.seal(ONE, 1, [good, bad], start.as_input.model)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    assert places(world) == set()
    first = studio.record(studio.round_of(facts, start.as_input))
    assert places(world, direct=True) == {(1, 1)}
    second = studio.train(ONE, 2, [good], first)
    assert places(world, direct=False) == {(1, 2)}
    index = studio.release(second)
    assert tainted_models(world) == {index}
    assert {(int(t.run_id), t.step) for t in status_of(world).tainted_aggregates} == {(1, 1), (1, 2)}


def test_an_initial_model_is_tainted_by_its_tensors_whatever_it_says(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    """A run that starts from a tainted aggregate and does not say so."""
    first = studio.train(ONE, 1, [good, bad], studio.start(ONE))
    silent = studio.start(TWO, tensors=first.as_input.tensors, model=first.as_input.model)
    studio.train(TWO, 1, [good], silent)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    assert places(world) == {(1, 1), (2, 0), (2, 1)}


def test_a_model_is_tainted_by_its_tensors_whatever_it_says(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    weights = b"the very weights"
    studio.train(ONE, 1, [good, bad], studio.start(ONE), tensors=tensors_of(weights).set)
    before = studio.release(weights=weights)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    after = studio.release(weights=weights)
    other = studio.release(weights=b"other weights")
    assert tainted_models(world) == {before, after}
    assert other not in tainted_models(world)


def test_a_model_that_was_signed_before_its_aggregate_was_recorded_is_tainted_with_it(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    weights, start = b"the very weights", studio.start(ONE)
    early = studio.release(weights=weights)
    facts = studio.seal(ONE, 1, [good, bad], start.as_input.model)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    studio.record(studio.round_of(facts, start.as_input, tensors=tensors_of(weights).set))
    assert tainted_models(world) == {early}
    assert [len(entry.models) for entry in logged(world)] == [0, 1]


def test_a_replay_that_comes_out_as_the_tainted_aggregate_is_tainted(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    """Whatever it says that it left out."""
    start = studio.start(ONE)
    facts = studio.seal(ONE, 1, [good, bad], start.as_input.model)
    tainted = studio.record(studio.round_of(facts, start.as_input))
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    same = studio.replay_of(facts, tainted.as_input, start.as_input, bad, tensors=tainted.as_input.tensors)
    studio.record(same)
    assert (int(same.run_id), 1) in places(world, direct=False)


def test_a_replay_without_the_participant_is_clean_and_one_that_keeps_another_is_not(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    worse = world.join("worse")
    start = studio.start(ONE)
    facts = studio.seal(ONE, 1, [good, bad, worse], start.as_input.model)
    tainted = studio.record(studio.round_of(facts, start.as_input))
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    repaired = studio.record(studio.replay_of(facts, tainted.as_input, start.as_input, bad))
    place = (int(repaired.as_input.run_id), repaired.as_input.step)
    assert place not in places(world)
    later = studio.release(repaired)
    assert tainted_models(world) == set()
    world.revoke(worse, compromised_since=world.clock.now() - HOUR)
    assert place in places(world, direct=True)
    assert tainted_models(world) == {later}
    rounds = world.op.blast_radius(worse.spiffe_id, world.clock.now() - HOUR).rounds
    assert [(r.run_id, r.step) for r in rounds] == [(ONE, 1)]  # the replay is no round


def test_a_compromised_certificate_takes_back_what_it_signed_alone(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    start = studio.start(ONE)
    first = studio.train(ONE, 1, [good, bad], start)
    renewed = world.renew(bad)
    studio.train(ONE, 2, [good, renewed], first)
    since = world.clock.now() - HOUR
    world.op.revoke(
        RevocationTarget(serial=renewed.certificate.serial),
        reason=RevocationReason.KEY_COMPROMISE,
        compromised_since=since,
    )
    assert places(world) == {(1, 2)}
    third = studio.train(ONE, 3, [good, bad], studio_recorded(studio, ONE, 2))
    assert places(world, direct=True) == {(1, 2)}
    assert (1, 3) in places(world, direct=False)
    assert third.as_input.step == 3


def studio_recorded(studio: Studio, run: RunId, step: int) -> Recorded:
    bundle = next(iter(studio.world.session(studio.signer).find_lineage(StepOfRun(run, step))))
    parsed = SigstoreBundle.parse(bundle)
    said = Provenance.from_payload(parsed.envelope.payload)
    return Recorded(said.as_input(log_index=parsed.entries[0].index), bundle)


def test_a_long_finding_takes_several_entries(
    world: World, studio: Studio, good: Member, bad: Member
) -> None:
    last = studio.train(ONE, 1, [good, bad], studio.start(ONE))
    for step in range(2, Taint.MAX_ITEMS + 4):
        last = studio.train(ONE, step, [good], last)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    first, second = logged(world)
    assert len(first.aggregates) == Taint.MAX_ITEMS
    assert len(first.aggregates) + len(second.aggregates) == len(places(world)) == Taint.MAX_ITEMS + 3
    with world.authority.ledger.reading() as tx:
        positions = {taint.log_index for taint in tx.taints.all()}
    assert len(positions) == 2


def test_taint_survives_a_restart(tmp_path: Path, ca: Authorities) -> None:
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 'state.db'}", ca=ca)
    good, bad = world.join("good"), world.join("bad")
    studio = Studio(world, world.join("main", Role.AGGREGATOR), world.join("release", Role.SIGNER))
    first = studio.train(ONE, 1, [good, bad], studio.start(ONE))
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    world.reopen()
    studio.train(ONE, 2, [good], first)
    assert places(world) == {(1, 1), (1, 2)}
    world.close()


def test_the_radius_of_nobody_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world.op.blast_radius(
            SpiffeId(world.bundle.domain, Role.PARTICIPANT, Name("nobody")), world.clock.now()
        )


# Status.


def test_a_status_stays_until_it_says_something_else_or_is_old(
    world: World, studio: Studio, good: Member
) -> None:
    first = world.op.trust_file()
    world.join("newcomer")  # an epoch that changes nothing of who is trusted
    assert world.op.trust_file() == first
    world.clock.advance(timedelta(minutes=9))
    assert world.op.trust_file() == first
    world.revoke(good)
    second = world.op.trust_file()
    assert second != first
    assert [item.name for item in status_of(world).revoked] == [str(good.spiffe_id)]
    world.clock.advance(timedelta(minutes=11))
    assert json.loads(world.op.trust_file())["created"] > json.loads(second)["created"]


def test_the_sequence_grows_with_what_is_trusted_and_survives_a_restart(
    tmp_path: Path, ca: Authorities
) -> None:
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 'state.db'}", ca=ca)
    first = TrustFile.parse(world.op.trust_file()).sequence
    world.reopen()
    assert TrustFile.parse(world.op.trust_file()).sequence == first
    world.clock.advance(timedelta(days=70))  # the timestamp authority's certificate is renewed
    operator = world.authority.bootstrap_operator(Name("root"), replace=True)[1]
    assert operator.chain_der
    data = world.authority.desks.trust.trust_file()
    assert (TrustFile.parse(data).sequence or 0) > (first or 0)
    world.close()


def test_who_was_enrolled_anew_is_revoked_for_the_past_alone(world: World, studio: Studio) -> None:
    old = studio.leaf(studio.signer)
    studio.sign(studio.signer, model_payload(), leaf=old)
    world.clock.advance(timedelta(minutes=30))  # the signing certificate ran out
    world.revoke(studio.signer, compromised_since=world.clock.now() - HOUR)
    world.join("release", Role.SIGNER, token=world.token("release", Role.SIGNER, replace=True))
    (revoked, *superseded) = [item for item in status_of(world).revoked if item.compromised_since]
    assert superseded == []
    assert not revoked.is_identity_wide
    status, name = status_of(world), str(studio.signer.spiffe_id)
    signed_at = world.clock.now() - timedelta(minutes=30)
    assert status.revocation_of(name, Digest.sha256_of(old.certificate), signed_at=signed_at)
    assert status.revocation_of(name, Digest.sha256_of(b"new"), signed_at=world.clock.now()) is None


@pytest.mark.parametrize("again", [False, True])
def test_pseudonyms_stand_in_taint_provenance_and_status(
    tmp_path: Path, ca: Authorities, again: bool
) -> None:
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 's.db'}", ca=ca, names=PublicNaming(b"k" * 32))
    studio = Studio(world, world.join("main", Role.AGGREGATOR), world.join("release", Role.SIGNER))
    bad = world.join("bad")
    first = studio.train(ONE, 1, [bad], studio.start(ONE))
    if again:
        studio.train(ONE, 2, [bad], first)
    world.revoke(bad, compromised_since=world.clock.now() - HOUR)
    assert places(world) == ({(1, 1), (1, 2)} if again else {(1, 1)})
    (entry,) = logged(world)
    assert entry.participant.is_pseudonym
    assert [item.name for item in status_of(world).revoked] == [entry.participant]
    assert b"participant/bad" not in SigstoreBundle.parse(first.bundle).envelope.payload
    with world.authority.ledger.reading() as tx:
        log = [parse_entry(entry.data) for entry in tx.tlog.read(0, tx.tlog.head.size)]
    keys = [entry.node_key for entry in log if isinstance(entry, TrustEventEntry) and entry.subject]
    assert len(keys) > 3
    assert not any(keys)  # a Flower node's key is known to whoever runs a SuperLink
    assert world.op.blast_radius(bad.spiffe_id, world.clock.now() - HOUR).rounds
    world.close()


def test_facts_are_the_receipts(world: World, studio: Studio, good: Member, bad: Member) -> None:
    start = studio.start(ONE)
    facts = studio.seal(ONE, 1, [good, bad], start.as_input.model)
    assert facts.trained_from == start.as_input.model
    assert {c.participant for c in facts.contributions} == {good.spiffe_id, bad.spiffe_id}
    assert replace(facts, contributions=()) == replace(
        world.session(studio.aggregator).describe_round(ONE, 1), contributions=()
    )
    with pytest.raises(NotFound):
        world.session(studio.aggregator).describe_round(ONE, 2)
    with pytest.raises(NotFound):
        next(iter(world.session(studio.signer).find_lineage(StepOfRun(ONE, 1))))
