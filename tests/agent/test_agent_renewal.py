"""Renewal: in time, with a new key, through failures, until revocation."""

from __future__ import annotations

import random
import threading
from datetime import timedelta

import pytest
from agent_world import SITE, Registry, World, unreachable

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.renewal import Renewer
from fltrust.errors import CertificateRefused, Refusal, Revoked, StorageUnavailable
from fltrust.pki import make_bundle


class Case:
    """A store with a certificate of one hour, and a renewer that is stepped by hand."""

    def __init__(self, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.world = World()
        self.store: CredentialStore = self.world.enroll(SITE, lifetime)
        self.registry = Registry(self.world)
        self.registry.lifetime = lifetime
        self.revoked: list[Revoked] = []
        self.renewer = Renewer(
            self.store,
            self.registry,
            clock=self.world.clock,
            rng=random.Random(1),
            on_revoked=self.revoked.append,
        )

    def run(self, span: timedelta) -> None:
        """Step through `span` of time as the thread would."""
        end = self.world.clock.now() + span
        while self.world.clock.now() < end:
            pause = self.renewer.step()
            if pause is None:
                return
            self.world.clock.advance(max(pause, timedelta(milliseconds=1)))


def test_a_certificate_is_renewed_near_two_thirds_of_its_life_with_a_new_key() -> None:
    case = Case()
    first = case.store.current
    case.run(timedelta(minutes=35))
    assert case.store.current is first
    case.run(timedelta(minutes=10))
    second = case.store.current
    assert second.signer.key_id != first.signer.key_id
    assert second.certificate.not_before < first.certificate.not_after  # they overlap


def test_a_day_of_hourly_certificates_never_has_a_gap() -> None:
    case, keys = Case(), []
    case.store.on_rotate(lambda new: keys.append(new.signer.key_id))
    for _ in range(24 * 12):
        case.run(timedelta(minutes=5))
        certificate = case.store.current.certificate
        assert certificate.not_before <= case.world.clock.now() < certificate.not_after
    assert 32 <= len(keys) <= 41
    assert len(set(keys)) == len(keys)


def test_a_certificate_of_seconds_is_renewed_in_its_own_time() -> None:
    case = Case(lifetime=timedelta(seconds=12))
    case.run(timedelta(seconds=60))
    assert 5 <= case.registry.renewals <= 9


def test_an_unreachable_coordinator_is_tried_again_while_the_certificate_is_valid() -> None:
    case = Case()
    first = case.store.current
    case.registry.fail = [unreachable() for _ in range(8)]
    case.run(timedelta(hours=1))
    assert case.registry.renewals == 1
    assert case.store.current is not first
    assert case.world.clock.now() < first.certificate.not_after + timedelta(minutes=1)


def test_a_coordinator_that_is_away_for_long_is_found_again_after_the_certificate_expired() -> None:
    case = Case()
    case.registry.fail = [unreachable() for _ in range(60)]
    case.run(timedelta(hours=3))
    assert case.registry.renewals >= 1
    assert case.revoked == []


def test_revocation_ends_renewal_and_is_said_once() -> None:
    case = Case()
    case.registry.fail = [Revoked("revoked at epoch 7")] * 3
    case.run(timedelta(hours=2))
    assert [error.message for error in case.revoked] == ["revoked at epoch 7"]
    assert case.registry.renewals == 0


def test_a_hold_is_waited_out() -> None:
    case = Case()
    case.registry.fail = [Revoked("on hold", reason=Refusal.HELD)] * 3
    case.run(timedelta(hours=1))
    assert case.revoked == []
    assert case.registry.renewals == 1


def test_a_certificate_for_another_identity_is_not_taken() -> None:
    case = Case()
    first = case.store.current
    case.registry.who = type(SITE).of(SITE.domain, SITE.role, "site-b")
    with pytest.raises(CertificateRefused):
        case.renewer.renew()
    assert case.store.current is first


def test_a_newer_bundle_is_taken_and_an_older_one_is_not() -> None:
    case = Case()
    for sequence, expected in ((3, 3), (2, 3), (4, 4)):
        case.world.bundle = make_bundle(SITE.domain, [case.world.root], sequence=sequence)
        assert case.renewer.renew().bundle.sequence == expected


def test_what_the_disk_refused_is_written_as_soon_as_it_can_be(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()
    state = case.world.state(tmp_path_factory.mktemp("s") / "s", case.store)
    store = CredentialStore.load(state, clock=case.world.clock)
    renewer = Renewer(store, case.registry, clock=case.world.clock, rng=random.Random(1))

    def full(*_args: object) -> None:
        raise StorageUnavailable("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(state, "store_identity", full)
        renewer.renew()
        renewer.step()
        assert not store.is_saved
    renewer.step()
    assert store.is_saved


def test_the_thread_renews_by_itself_and_stops_when_told() -> None:
    case = Case()
    case.world.clock.advance(timedelta(minutes=50))
    rotated = threading.Event()
    case.store.on_rotate(lambda _: rotated.set())
    case.renewer.start()
    assert rotated.wait(20)
    case.renewer.stop()
    case.renewer.stop()
    assert case.renewer._thread is not None
    assert not case.renewer._thread.is_alive()


def test_a_bug_on_the_way_does_not_end_renewal() -> None:
    case = Case()
    case.registry.fail = [ValueError("a bug")] * 2
    case.run(timedelta(hours=1))
    assert case.registry.renewals == 1


def test_a_thousand_agents_that_are_hastened_at_once_spread_over_the_time_they_are_given() -> None:
    case, due = Case(), []
    for seed in range(1_000):
        renewer = Renewer(case.store, case.registry, clock=case.world.clock, rng=random.Random(seed))
        renewer.hasten(timedelta(seconds=30))
        pause = renewer.step()
        assert pause is not None
        due.append(pause.total_seconds())
    assert max(due) <= 30
    busiest = max(sum(second <= at < second + 1 for at in due) for second in range(30))
    assert busiest < 80  # 33 on average


def test_a_hastened_renewal_is_not_later_than_it_would_have_been() -> None:
    case = Case(lifetime=timedelta(seconds=12))
    case.renewer.hasten(timedelta(hours=1))
    case.run(timedelta(seconds=12))
    assert case.registry.renewals >= 1


def test_who_asks_for_a_renewal_gets_one_at_the_next_look() -> None:
    case, asked = Case(), [True]
    case.renewer = Renewer(
        case.store,
        case.registry,
        clock=case.world.clock,
        rng=random.Random(1),
        is_asked=lambda: bool(asked) and asked.pop(),
    )
    pause = case.renewer.step()
    assert case.registry.renewals == 1
    assert pause is not None
    assert pause <= timedelta(seconds=2)
    case.renewer.step()
    assert case.registry.renewals == 1


def test_a_key_that_cannot_be_made_anew_is_kept() -> None:
    case = Case()
    first = case.store.current
    case.renewer = Renewer(
        case.store, case.registry, clock=case.world.clock, rng=random.Random(1), keeps_key=True
    )
    case.renewer.renew()
    assert case.store.current.signer.key_id == first.signer.key_id
    assert case.store.current.certificate.serial != first.certificate.serial


def test_renewal_that_goes_on_failing_raises_an_alarm_that_says_how_long_is_left() -> None:
    case, alarms = Case(), []
    case.registry.fail = [unreachable() for _ in range(200)]
    case.renewer = Renewer(
        case.store,
        case.registry,
        clock=case.world.clock,
        rng=random.Random(1),
        on_alarm=lambda reason, left: alarms.append((reason, left)),
    )
    case.run(timedelta(minutes=55))
    assert alarms
    assert {reason for reason, _ in alarms} == {"coordinator-unavailable"}
    assert alarms == sorted(alarms, key=lambda alarm: alarm[1], reverse=True)
    assert alarms[0][1] > timedelta(minutes=10)
