from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import RUN, Exchange, Member, World, admitted, reasons, receipt_of
from second_world import SecondChain

from fltrust.errors import Conflict, FltrustError, Malformed, NotFound, Oversized, PermissionDenied, Revoked
from fltrust.identity import Digest, Epoch, NodeId, Role, RunId, SpiffeId
from fltrust.keys import generate
from fltrust.revocation import EventKind, RevocationReason
from fltrust.rounds.chain import verify_chain
from fltrust.rounds.types import Candidate, RoundStatus
from fltrust.storage import CommitStep
from fltrust.tlog.merkle import tree_head
from fltrust.updates import Phase, SignedStatement
from fltrust.updates.second import SecondSignature


@pytest.fixture
def sites(world: World) -> tuple[Member, Member, Member]:
    return world.join("site-a"), world.join("site-b"), world.join("site-c")


def test_the_first_round_opens_the_run_and_the_seal_admits_what_verifies(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, c = sites
    exchange = Exchange(world, aggregator)
    opened = exchange.open(a, b, c)
    assert opened.refused == ()
    (event,) = world.authority.events(Epoch(5), 10, reader=None)
    assert (event.kind, event.run_id, event.actor) == (EventKind.RUN_OPENED, RUN, aggregator.spiffe_id)
    assert opened.epoch == event.epoch
    receipt = exchange.seal(exchange.answer(a), exchange.answer(b), refused=((c.spiffe_id, "no-reply"),))
    assert admitted(receipt) == {"site-a", "site-b"}
    assert reasons(receipt) == {"site-c": "no-reply"}
    with world.store.reading() as tx:
        (entry,) = tx.tlog.find(kinds=("sealed-round",))
        head = tree_head(tx.tlog, receipt.index)
    assert (receipt.index, receipt.epoch) == (entry.index, opened.epoch)
    assert receipt.root == Digest("sha256", head.root)
    assert receipt.log == world.notary.note.key_id
    assert world.authority.counters.get("updates.admitted") == 2
    assert world.authority.counters.get("refused.no-reply") == 1


def test_an_aggregators_own_words_make_no_counters(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    exchange.seal(refused=tuple((site.spiffe_id, f"word-{i}") for i, site in enumerate(sites)))
    assert world.authority.counters.get("refused.other") == len(sites)
    assert not [name for name in world.authority.counters.snapshot() if "word" in name]


def test_receipts_stand_in_the_log_and_verify_outside(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    for step in (1, 2, 3):
        exchange = Exchange(world, aggregator, step=step)
        exchange.open(*sites)
        exchange.seal(*map(exchange.answer, sites))
    records = tuple(world.op.get_round(RUN, step) for step in (1, 2, 3))
    events = world.authority.events(Epoch(0), 100, reader=None)
    report = verify_chain(records, world.bundle, log=world.op.prove_rounds(RUN), events=events)
    assert report.is_good, report.problems
    with world.store.reading() as tx:
        entries = tx.tlog.find(kinds=("sealed-round",))
    assert [check.index for check in report.rounds] == [entry.index for entry in entries]
    assert all(len(check.admitted) == 3 for check in report.rounds)
    assert [r.evidence for r in world.op.list_rounds(RUN)] == [()] * 3


def test_a_participant_revoked_after_it_answered_is_not_admitted(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, _ = sites
    exchange = Exchange(world, aggregator)
    exchange.open(a, b)
    answers = exchange.answer(a), exchange.answer(b)
    event = world.revoke(b)
    receipt = exchange.seal(*answers)
    assert admitted(receipt) == {"site-a"}
    assert reasons(receipt) == {"site-b": "revoked"}
    assert receipt.epoch == event.epoch


def test_whoever_does_not_stand_well_is_left_out_when_the_round_opens(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, c = sites
    world.revoke(a)
    world.op.hold(b.target, reason=RevocationReason.UNSPECIFIED)
    exchange = Exchange(world, aggregator)
    stranger = replace(
        c, spiffe_id=SpiffeId.of(c.spiffe_id.domain, Role.PARTICIPANT, "stranger"), node=generate()
    )
    stranger.node_id = NodeId(7)
    opened = exchange.open(a, b, c, stranger)
    assert opened.refused == (
        (a.spiffe_id, "revoked"),
        (b.spiffe_id, "held"),
        (stranger.spiffe_id, "unknown-identity"),
    )
    assert [m.participant for m in world.op.get_round(RUN, 1).cohort] == [c.spiffe_id]
    assert reasons(exchange.seal(exchange.answer(a), exchange.answer(c))) == {"site-a": "wrong-participant"}


def test_a_node_key_that_is_not_the_enrolled_one_is_left_out(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    imposter = replace(sites[0], node=generate())
    opened = Exchange(world, aggregator).open(imposter, sites[1])
    assert opened.refused == ((imposter.spiffe_id, "wrong-node"),)


def test_a_participant_enrolled_anew_during_the_round_is_not_admitted_with_either_certificate(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    old = sites[0]
    exchange = Exchange(world, aggregator)
    exchange.open(old)
    new = world.join("site-a", token=world.token("site-a", replace=True))
    receipt = exchange.seal(exchange.answer(old), exchange.answer(new))
    assert receipt.admitted == ()
    assert sorted(reason for _, reason in receipt.refused) == ["revoked", "wrong-node"]


def test_a_step_is_opened_once_and_a_cohort_names_nobody_twice(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, _ = sites
    exchange = Exchange(world, aggregator)
    exchange.open(a)
    with pytest.raises(Conflict, match="opened before"):
        exchange.open(a)
    again = Exchange(world, aggregator, step=2)
    one, other = again.instruct(a), again.instruct(b)
    for cohort in (
        (one, one),
        (one, replace(other, node_id=one.node_id)),
        (one, replace(other, node_key=one.node_key)),
        (one, replace(other, instruction=one.instruction)),
        (replace(one, instruction=Digest("sha512", b"x" * 64)),),
        (replace(one, participant=aggregator.spiffe_id),),
    ):
        with pytest.raises(Malformed):
            again.session.open_round(again.key, cohort)
    with pytest.raises(Oversized):
        again.session.open_round(again.key, ())
    assert len(world.op.list_rounds(RUN)) == 1


def test_a_run_belongs_to_the_aggregator_that_opened_it(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    other = world.join("other", Role.AGGREGATOR)
    candidate = exchange.answer(sites[0])
    for call in (
        lambda: Exchange(world, other, step=2).open(*sites),
        lambda: world.session(other).seal_round(exchange.key, (candidate,), ()),
        lambda: world.session(other).close_run(RUN),
    ):
        with pytest.raises(PermissionDenied, match="belongs"):
            call()
    for member in (sites[0], world.operator):
        with pytest.raises(PermissionDenied):
            world.session(member).seal_round(exchange.key, (candidate,), ())


def test_sealing_again_gives_the_same_receipt_for_the_same_candidates_only(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    candidates = tuple(map(exchange.answer, sites))
    first = exchange.session.seal_round(exchange.key, candidates, ())
    assert exchange.session.seal_round(exchange.key, candidates[::-1], ()) == first
    world.revoke(sites[0])  # what was sealed stays sealed
    assert exchange.session.seal_round(exchange.key, candidates, ()) == first
    with pytest.raises(Conflict) as refusal:
        exchange.session.seal_round(exchange.key, candidates[:1], ())
    assert refusal.value.reason == "late"


def test_a_seal_that_was_persisted_and_then_failed_is_answered_from_the_record(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    candidates = tuple(map(exchange.answer, sites))

    def crash(step: CommitStep) -> None:
        if step is CommitStep.AFTER:
            raise OSError("crash")

    world.store.on_commit = crash
    with pytest.raises(OSError, match="crash"):
        exchange.seal(*candidates)
    world.reopen()
    world.revoke(sites[1])
    receipt = exchange.seal(*candidates)
    assert admitted(receipt) == {"site-a", "site-b", "site-c"}
    assert receipt.epoch < world.authority.head
    with world.store.reading() as tx:
        assert [entry.index for entry in tx.tlog.find(kinds=("sealed-round",))] == [receipt.index]


def test_a_seal_that_failed_before_the_commit_is_decided_anew(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    candidates = tuple(map(exchange.answer, sites))

    def crash(step: CommitStep) -> None:
        if step is CommitStep.BEFORE:
            raise OSError("crash")

    world.store.on_commit = crash
    with pytest.raises(OSError, match="crash"):
        exchange.seal(*candidates)
    world.reopen()
    world.revoke(sites[1])
    assert admitted(exchange.seal(*candidates)) == {"site-a", "site-c"}


def test_every_field_of_an_update_that_is_not_the_instructions_is_refused_by_name(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    member = sites[0]
    for step, (changes, reason) in enumerate(
        (
            ({"run_id": RunId(5)}, "wrong-run"),
            ({"round": 99}, "wrong-round"),
            ({"step": 99}, "wrong-round"),
            ({"phase": Phase.EVALUATE, "message_type": "evaluate"}, "wrong-phase"),
            ({"node_id": NodeId(1)}, "wrong-node"),
            ({"node_key": sites[1].node_key}, "wrong-node"),
            ({"instruction_id": "0" * 32}, "wrong-instruction"),
            ({"instruction": Digest("sha256", b"\x00" * 32)}, "wrong-instruction"),
            ({"model": Digest("fltrust-model-v1", b"\x00" * 32)}, "wrong-model"),
            ({"signed_at": world.clock.now() - timedelta(minutes=30)}, "expired"),
            ({"signed_at": world.clock.now() + timedelta(minutes=1)}, "expired"),
        ),
        start=1,
    ):
        exchange = Exchange(world, aggregator, step=step)
        exchange.open(member)
        receipt = exchange.seal(exchange.answer(member, **changes))
        assert receipt.admitted == ()
        assert reasons(receipt) == {"site-a": reason}, changes


def test_an_update_signed_by_another_participant_or_replayed_from_another_step_is_refused(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, _ = sites
    first = Exchange(world, aggregator, step=1)
    first.open(a, b)
    old = first.answer(a)
    forged = Candidate(first.answer(a).instruction, first.answer(b).update)
    assert reasons(first.seal(forged)) == {"site-a": "wrong-participant"}
    second = Exchange(world, aggregator, step=2)
    second.open(a, b)
    replayed = Candidate(second.answer(a).instruction, old.update)
    assert reasons(second.seal(replayed)) == {"site-a": "wrong-round"}


def test_a_second_signature_is_kept_with_the_evidence_and_one_over_something_else_is_refused(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    """The coordinator has no root for it: it keeps what the aggregator verified, and nothing else."""
    a, b, c = sites
    exchange = Exchange(world, aggregator)
    exchange.open(a, b, c)
    pair = SecondChain(a.spiffe_id.domain, now=world.clock.now()).pair(a.spiffe_id)

    def twice(payload: bytes) -> bytes:
        return SecondSignature.sign(payload, signer=pair.signer, chain=pair.chain_der).to_json()

    good, other, junk = exchange.answer(a), exchange.answer(b), exchange.answer(c)
    good = replace(good, second=twice(SignedStatement.from_bytes(good.update).envelope.payload))
    other = replace(other, second=good.second)
    receipt = exchange.seal(good, other, replace(junk, second=b"junk"))
    assert admitted(receipt) == {"site-a"}
    assert reasons(receipt) == {"site-b": "digest-mismatch", "site-c": "malformed"}
    assert world.op.get_round(RUN, 1).evidence == (good,)


def test_a_candidate_that_cannot_be_laid_at_anybodys_door_is_counted_and_ends_nothing(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    good = exchange.answer(sites[0])
    receipt = exchange.seal(Candidate(b"junk", b"junk"), Candidate(good.instruction, b"x" * 200_000), good)
    assert admitted(receipt) == {"site-a"}
    assert reasons(receipt) == {"site-a": "oversized"}
    assert world.authority.counters.get("refused.malformed") == 1


def test_a_second_different_update_of_one_participant_is_a_duplicate_and_the_same_one_is_not(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    one, two = exchange.answer(sites[0]), exchange.answer(sites[0])
    receipt = exchange.seal(one, one, two)
    assert admitted(receipt) == {"site-a"}
    assert receipt.refused == ((sites[0].spiffe_id, "duplicate"),)
    assert world.op.get_round(RUN, 1).evidence == (one,)


def test_an_update_outlives_its_certificate_within_the_round_but_is_not_dated_back(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    a, b, _ = sites
    exchange = Exchange(world, aggregator)
    exchange.open(a, b)
    early = exchange.answer(a)
    renewed, aggregators_next = world.renew(b), world.renew(aggregator)
    world.clock.advance(timedelta(minutes=59))
    renewed = world.renew(renewed)
    exchange.aggregator = world.renew(aggregators_next)
    world.clock.advance(timedelta(minutes=2))
    late = exchange.answer(b)  # with the first certificate, which has run out
    receipt = exchange.seal(early, late)
    assert admitted(receipt) == {"site-a"}
    assert reasons(receipt) == {"site-b": "certificate-expired"}


def test_closing_a_run_abandons_what_is_open_and_is_idempotent(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    exchange.session.close_run(RUN)
    head = world.authority.head
    world.op.close_run(RUN)
    assert world.authority.head == head
    assert world.op.get_round(RUN, 1).status is RoundStatus.ABANDONED
    for call in (lambda: exchange.seal(exchange.answer(sites[0])), lambda: _next(exchange).open(*sites)):
        with pytest.raises(Conflict) as refusal:
            call()
        assert refusal.value.reason == "run-not-open"
    with pytest.raises(NotFound):
        world.op.close_run(RunId(1))


def test_a_round_that_was_never_opened_or_goes_by_another_name_is_not_sealed(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    candidate = exchange.answer(sites[0])
    for key in (replace(exchange.key, step=9), replace(exchange.key, round=9)):
        with pytest.raises(Conflict, match="there is none"):
            exchange.session.seal_round(key, (candidate,), ())
    with pytest.raises(NotFound):
        world.op.get_round(RUN, 9)


def test_a_revoked_aggregator_neither_opens_nor_seals(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    candidate = exchange.answer(sites[0])
    world.revoke(aggregator)
    for call in (lambda: exchange.seal(candidate), lambda: _next(exchange).open(*sites)):
        with pytest.raises(Revoked):
            call()


def test_seal_and_revoke_in_a_race_agree_on_who_was_first(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    victim = sites[0]
    for step in range(1, 11):
        exchange = Exchange(world, aggregator, step=step)
        exchange.open(victim, sites[1])
        candidates = exchange.answer(victim), exchange.answer(sites[1])
        start, results = threading.Barrier(2), {}

        def seal(e=exchange, c=candidates, b=start, r=results) -> None:
            b.wait()
            r["receipt"] = receipt_of(e.session.seal_round(e.key, c, ()))

        def revoke(v=victim, b=start, r=results) -> None:
            b.wait()
            r["event"] = world.revoke(v)

        threads = [threading.Thread(target=seal), threading.Thread(target=revoke)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        receipt, event = results["receipt"], results["event"]
        assert ("site-a" in admitted(receipt)) == (event.epoch > receipt.epoch)
        victim = world.join("site-a", token=world.token("site-a", replace=True))


def test_a_seal_that_is_refused_is_counted_by_reason(
    world: World, aggregator: Member, sites: tuple[Member, ...]
) -> None:
    exchange = Exchange(world, aggregator)
    exchange.open(*sites)
    with pytest.raises(FltrustError):
        exchange.seal(refused=((sites[0].spiffe_id, "Not A Reason"),))
    with pytest.raises(Malformed):
        exchange.seal(refused=((aggregator.spiffe_id, "revoked"),))
    assert world.authority.counters.get("refused.malformed") == 2
    assert world.op.get_round(RUN, 1).status is RoundStatus.OPEN
    with pytest.raises(Oversized):
        exchange.session.seal_round(exchange.key, (Candidate(b"", b""),) * 10_001, ())


def _next(exchange: Exchange) -> Exchange:
    return Exchange(exchange.world, exchange.aggregator, step=exchange.key.step + 1)


def test_an_update_under_a_certificate_that_nobody_was_issued_is_not_sealed(world: World) -> None:
    aggregator, honest, robbed = (
        world.join("main", Role.AGGREGATOR),
        world.join("site-a"),
        world.join("site-b"),
    )
    exchange = Exchange(world, aggregator)
    exchange.open(honest, robbed)
    forged = exchange.answer(world.mint(robbed))
    receipt = receipt_of(exchange.session.seal_round(exchange.key, (exchange.answer(honest), forged), ()))
    assert [entry.participant for entry in receipt.admitted] == [honest.spiffe_id]
    assert world.authority.counters.snapshot()["refused.unknown-certificate"] == 1
