from __future__ import annotations

from datetime import timedelta

import pytest
from authority_world import Exchange, Member, World

from fltrust.errors import CertificateRefused, Conflict, Malformed, NotFound, PermissionDenied, Revoked
from fltrust.identity import Epoch, KeyId, Name, Role, RunId, Serial
from fltrust.revocation import (
    EventKind,
    FeedHeartbeat,
    RevocationReason,
    RevocationTarget,
    Standing,
    TrustState,
)
from fltrust.storage import CommitStep


def test_revoking_a_name_is_one_event_with_every_unexpired_serial(world: World) -> None:
    first = world.join("site-a")
    world.clock.advance(timedelta(minutes=50))
    second = world.renew(first)
    world.clock.advance(timedelta(minutes=20))
    third = world.renew(second)
    event = world.revoke(third)
    assert (event.kind, event.identity_wide, event.epoch) == (EventKind.REVOKED, True, 3)
    assert set(event.serials) == {second.certificate.serial, third.certificate.serial}
    assert (event.actor, event.subject) == (world.operator.spiffe_id, first.spiffe_id)


def test_revoking_again_gives_the_same_event_and_no_epoch(world: World) -> None:
    member = world.join("site-a")
    event = world.revoke(member)
    assert world.revoke(member) == event
    assert world.authority.head == event.epoch


def test_an_earlier_compromise_is_a_new_event_and_a_later_one_is_not(world: World) -> None:
    member = world.join("site-a")
    now = world.clock.now()
    first = world.revoke(member, compromised_since=now - timedelta(minutes=1))
    assert world.revoke(member, compromised_since=now) == first
    earlier = world.revoke(member, compromised_since=now - timedelta(hours=1))
    assert earlier.epoch == first.epoch + 1
    assert earlier.compromised_since == now - timedelta(hours=1)


def test_a_compromise_in_the_future_is_refused(world: World) -> None:
    member = world.join("site-a")
    with pytest.raises(Malformed, match="future"):
        world.revoke(member, compromised_since=world.clock.now() + timedelta(seconds=1))
    world.authority.judge(member.certificate)


def test_revoking_by_serial_bars_that_certificate_alone(world: World) -> None:
    old = world.join("site-a")
    new = world.renew(old)
    target = RevocationTarget(serial=old.certificate.serial)
    (event,) = world.op.revoke(target, reason=RevocationReason.SUPERSEDED)
    assert (event.serials, event.identity_wide) == ((old.certificate.serial,), False)
    with pytest.raises(Revoked):
        world.authority.judge(old.certificate)
    world.authority.judge(new.certificate)
    assert world.op.revoke(target, reason=RevocationReason.SUPERSEDED) == (event,)


def test_revoking_by_certificate_key_bars_that_key_and_by_node_key_the_participant(world: World) -> None:
    member = world.join("site-a")
    (event,) = world.op.revoke(
        RevocationTarget(key=member.certificate.key_id), reason=RevocationReason.KEY_COMPROMISE
    )
    assert (event.keys, event.identity_wide) == ((member.certificate.key_id,), False)
    with pytest.raises(Revoked):
        world.authority.judge(member.certificate)
    (event,) = world.op.revoke(RevocationTarget(key=member.node_key), reason=RevocationReason.KEY_COMPROMISE)
    assert (event.identity_wide, event.subject) == (True, member.spiffe_id)


def test_revoking_a_run_is_one_event_for_each_of_its_participants(world: World, aggregator: Member) -> None:
    a, b, c = (world.join(f"site-{x}") for x in "abc")
    Exchange(world, aggregator, step=1).open(a, b)
    Exchange(world, aggregator, step=2).open(b)
    exchange = Exchange(world, aggregator)
    events = world.op.revoke(
        RevocationTarget(run=exchange.key.run_id), reason=RevocationReason.PRIVILEGE_WITHDRAWN
    )
    assert [event.subject for event in events] == [a.spiffe_id, b.spiffe_id]
    assert all(event.identity_wide for event in events)
    assert [event.epoch for event in events] == [Epoch(7), Epoch(8)]
    world.authority.judge(c.certificate)


def test_targets_that_nobody_knows_are_not_found(world: World) -> None:
    for target in (
        RevocationTarget(name=(Role.PARTICIPANT, Name("nobody"))),
        RevocationTarget(serial=Serial(12345)),
        RevocationTarget(key=KeyId("ab" * 32)),
        RevocationTarget(run=RunId(1)),
    ):
        for act in (
            lambda t: world.op.revoke(t, reason=RevocationReason.UNSPECIFIED),
            lambda t: world.op.hold(t, reason=RevocationReason.UNSPECIFIED),
            world.op.release,
        ):
            with pytest.raises(NotFound):
                act(target)
    assert world.authority.head == 1


def test_the_coordinators_own_certificate_is_not_revoked_through_itself(world: World) -> None:
    target = RevocationTarget(serial=world.identity.certificate.serial)
    with pytest.raises(Conflict, match="coordinator"):
        world.op.revoke(target, reason=RevocationReason.UNSPECIFIED)


def test_a_hold_keeps_out_until_it_is_released(world: World) -> None:
    member = world.join("site-a")
    (held,) = world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    with pytest.raises(Revoked) as refusal:
        world.renew(member)
    assert refusal.value.reason == "held"
    assert world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED) == (held,)
    (released,) = world.op.release(member.target)
    assert released.serials == (member.certificate.serial,)
    assert world.op.release(member.target) == (released,)
    world.renew(member)


def test_a_release_does_not_undo_a_revocation_and_a_hold_does_not_soften_one(world: World) -> None:
    member = world.join("site-a")
    world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    world.revoke(member)
    for act in (lambda: world.op.release(member.target), lambda: _hold(world, member)):
        with pytest.raises(Conflict, match="revoked"):
            act()
    with pytest.raises(Revoked):
        world.authority.judge(member.certificate)


def test_releasing_what_was_never_held_is_a_conflict(world: World) -> None:
    member = world.join("site-a")
    with pytest.raises(Conflict, match="not on hold"):
        world.op.release(member.target)


def test_releasing_an_identity_releases_its_held_certificates_and_not_its_revoked_ones(world: World) -> None:
    old = world.join("site-a")
    new = world.renew(old)
    world.op.revoke(RevocationTarget(serial=old.certificate.serial), reason=RevocationReason.KEY_COMPROMISE)
    world.op.hold(RevocationTarget(serial=new.certificate.serial), reason=RevocationReason.UNSPECIFIED)
    world.op.hold(new.target, reason=RevocationReason.UNSPECIFIED)
    world.op.release(new.target)
    world.authority.judge(new.certificate)
    with pytest.raises(Revoked):
        world.authority.judge(old.certificate)


def test_only_operators_change_standing_and_a_revoked_operator_does_not(world: World) -> None:
    member, aggregator = world.join("site-a"), world.join("main", Role.AGGREGATOR)
    for who in (member, aggregator):
        with pytest.raises(PermissionDenied):
            world.session(who).revoke(member.target, reason=RevocationReason.UNSPECIFIED)
    second = world.join("second", Role.OPERATOR)
    session = world.session(second)
    world.revoke(second)
    with pytest.raises(Revoked):
        session.revoke(member.target, reason=RevocationReason.UNSPECIFIED)
    world.authority.judge(member.certificate)


def test_a_revocation_survives_a_restart_and_a_lost_acknowledgement(world: World) -> None:
    member = world.join("site-a")

    def crash(step: CommitStep) -> None:
        if step is CommitStep.AFTER:
            raise OSError("crash")

    world.store.on_commit = crash
    with pytest.raises(OSError, match="crash"):
        world.revoke(member)
    world.store.on_commit = None
    with pytest.raises(Revoked):  # in this process, which does not know that the commit took place
        world.authority.judge(member.certificate)
    world.reopen()
    with pytest.raises(Revoked):
        world.authority.judge(member.certificate)
    assert world.revoke(member).epoch == world.authority.head


def test_a_participant_reads_its_own_events_and_nobody_elses(world: World, aggregator: Member) -> None:
    a, b = world.join("site-a"), world.join("site-b")
    Exchange(world, aggregator).open(a, b)
    world.revoke(b)
    seen = world.authority.events(Epoch(0), 100, reader=a.spiffe_id)
    assert [event.epoch for event in seen] == [1, 2, 3, 4, 5, 6]
    kinds = [event.kind for event in seen]
    assert kinds == ["enrolled", "enrolled", "enrolled", "redacted", "run-opened", "redacted"]
    for event in seen:
        if event.kind is EventKind.REDACTED:
            assert (event.subject, event.actor, event.serials, event.node_key) == (None, None, (), None)
    for reader in (aggregator.spiffe_id, world.operator.spiffe_id, None):
        assert [event.kind for event in world.authority.events(Epoch(3), 100, reader=reader)] == [
            "enrolled",
            "run-opened",
            "revoked",
        ]


def test_events_come_from_the_table_in_pages_and_fold_into_the_authoritys_own_state(world: World) -> None:
    for number in range(5):
        world.revoke(world.join(f"site-{number}"))
    state, after = TrustState(), Epoch(0)
    while page := world.authority.events(after, 3, reader=None):
        assert len(page) <= 3
        for event in page:
            state.apply(event)
        after = page[-1].epoch
    assert state.epoch == world.authority.head == 11
    standing = [known.standing for who, known in state.identities.items() if who.role is Role.PARTICIPANT]
    assert standing == [Standing.REVOKED] * 5


def test_a_watch_ahead_of_the_feed_is_refused(world: World) -> None:
    with pytest.raises(Conflict) as refusal:
        world.op.watch(Epoch(2))
    assert refusal.value.reason == "epoch-ahead"


def test_a_watcher_sees_its_own_revocation_and_then_nothing(world: World) -> None:
    member = world.join("site-a")
    watch = world.session(member).watch(Epoch(1))
    assert next(watch).epoch == 2
    world.revoke(member)
    world.join("site-b")
    assert [next(watch).epoch for _ in range(2)] == [3, 4]
    with pytest.raises(Revoked):
        next(watch)


def test_a_watch_that_has_caught_up_beats_at_once_and_then_when_idle(world: World) -> None:
    object.__setattr__(world.authority.settings, "heartbeat", timedelta(milliseconds=1))
    watch = world.op.watch(Epoch(1))
    for _ in range(3):
        assert next(watch) == FeedHeartbeat(Epoch(1), world.clock.now())
    watch.close()


def test_subscribers_hear_of_an_epoch_after_it_is_durable(world: World) -> None:
    heard: list[tuple[int, int]] = []
    end = world.authority.subscribe(
        lambda epoch: heard.append((epoch, len(world.authority.events(Epoch(0), 10, reader=None))))
    )
    world.join("site-a")
    assert heard == [(2, 2)]
    end()
    world.join("site-b")
    assert len(heard) == 1


def test_a_session_refuses_a_certificate_that_ran_out_or_was_never_enrolled(world: World) -> None:
    member = world.join("site-a")
    stranger = world.identity.certificate
    with pytest.raises(PermissionDenied):
        world.session(Member(stranger.spiffe_id, member.signer, (), stranger)).list_rounds()
    world.clock.advance(timedelta(hours=1, seconds=1))
    with pytest.raises(CertificateRefused) as refusal:
        world.session(member).watch(Epoch(0))
    assert refusal.value.reason == "certificate-expired"


def _hold(world: World, member: Member) -> None:
    world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
