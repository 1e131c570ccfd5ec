"""A view knows how old it is, tells its listeners, and stops where policy says."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from fltrust.errors import Conflict, StaleView
from fltrust.identity import Epoch, Role, RunId, SpiffeId
from fltrust.revocation import EventKind, FeedHeartbeat, TrustEvent
from fltrust.revocation.view import ReachMode, ReachPolicy, TrustView

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "alice")


@dataclass
class HandClock:
    """A clock moved by hand."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def enrolled(epoch: int) -> TrustEvent:
    return TrustEvent(Epoch(epoch), EventKind.ENROLLED, NOW, subject=ALICE)


def test_a_view_that_never_heard_anything_is_not_fresh() -> None:
    with pytest.raises(StaleView):
        TrustView(HandClock()).require_fresh()


def test_hard_fail_stops_at_the_bound_and_a_heartbeat_renews_it() -> None:
    clock = HandClock()
    view = TrustView(clock)
    view.feed(enrolled(1))
    view.feed(FeedHeartbeat(Epoch(1), NOW))
    clock.seconds = 30
    assert view.require_fresh()
    clock.seconds = 30.5
    with pytest.raises(StaleView, match="hard-fail allows 30 s"):
        view.require_fresh()
    view.feed(FeedHeartbeat(Epoch(1), NOW))
    assert view.require_fresh()


def test_a_heartbeat_about_events_not_seen_proves_nothing() -> None:
    clock = HandClock()
    view = TrustView(clock)
    view.feed(enrolled(1))
    view.feed(FeedHeartbeat(Epoch(1), NOW))
    clock.seconds = 31
    view.feed(FeedHeartbeat(Epoch(2), NOW))
    with pytest.raises(StaleView):
        view.require_fresh()


def test_events_that_are_caught_up_on_prove_nothing_until_a_heartbeat_says_that_these_are_all() -> None:
    view = TrustView(HandClock())
    view.feed(enrolled(1))
    view.feed(enrolled(2))
    with pytest.raises(StaleView):
        view.require_fresh()
    view.feed(FeedHeartbeat(Epoch(2), NOW))
    assert view.require_fresh()


def test_a_view_that_resumes_is_as_old_as_before_until_it_has_caught_up() -> None:
    clock = HandClock()
    view = TrustView(clock)
    view.feed(FeedHeartbeat(Epoch(0), NOW))
    clock.seconds = 31
    view.resume()
    view.feed(enrolled(1))
    with pytest.raises(StaleView):
        view.require_fresh()
    view.feed(FeedHeartbeat(Epoch(1), NOW))
    view.feed(enrolled(2))
    clock.seconds = 61
    assert view.require_fresh()


def test_soft_fail_goes_on_to_its_own_bound_and_says_so() -> None:
    policy = ReachPolicy(ReachMode.SOFT_FAIL, timedelta(seconds=30), timedelta(seconds=60))
    assert policy.check(timedelta(seconds=30)) is True
    assert policy.check(timedelta(seconds=60)) is False
    with pytest.raises(StaleView):
        policy.check(timedelta(seconds=61))


def test_best_effort_goes_on_for_ever_and_says_so() -> None:
    assert ReachPolicy(ReachMode.BEST_EFFORT).check(timedelta.max) is False


def test_listeners_hear_each_event_once_until_they_leave() -> None:
    view, heard = TrustView(HandClock()), []
    leave = view.subscribe(heard.append)
    view.feed(enrolled(1))
    view.feed(FeedHeartbeat(Epoch(1), NOW))
    leave()
    view.feed(enrolled(2))
    assert [e.epoch for e in heard] == [1]


def test_a_gap_is_refused_and_told_to_nobody() -> None:
    view, heard = TrustView(HandClock()), []
    view.subscribe(heard.append)
    with pytest.raises(Conflict):
        view.feed(enrolled(2))
    assert (heard, view.epoch) == ([], 0)


def test_waiting_ends_when_the_state_is_ready() -> None:
    view = TrustView(HandClock())
    opened = TrustEvent(Epoch(1), EventKind.RUN_OPENED, NOW, run_id=RunId(9))
    feeder = threading.Timer(0.05, view.feed, [opened])
    feeder.start()
    assert view.wait_until(lambda state: 9 in state.open_runs, timeout=10)
    assert view.is_open(RunId(9))
    assert not view.wait_until(lambda state: state.epoch > 5, timeout=0.01)
    feeder.join()
