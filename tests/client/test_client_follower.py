"""Following the feed: what happens to the view when the feed is cut, repeated, or has a gap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from fltrust.client import TrustFollower
from fltrust.clock import SystemClock
from fltrust.errors import CoordinatorUnavailable, Revoked
from fltrust.identity import Epoch, RunId
from fltrust.revocation.events import EventKind, FeedHeartbeat, FeedItem, TrustEvent
from fltrust.revocation.view import TrustView

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(epoch: int) -> TrustEvent:
    return TrustEvent(Epoch(epoch), EventKind.RUN_OPENED, NOW, run_id=RunId(epoch))


class ScriptedFeed:
    """Gives each watch the next script; after the last, watches end at once."""

    def __init__(self, *scripts: Callable[[Epoch], Iterator[FeedItem]]) -> None:
        self._scripts = list(scripts)
        self.asked: queue.Queue[int] = queue.Queue()

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        self.asked.put(int(after))
        return self._scripts.pop(0)(after) if self._scripts else iter(())


def follow(feed: ScriptedFeed, view: TrustView) -> TrustFollower:
    return TrustFollower(feed, view, first_pause=0.001, max_pause=0.01)


def asked(feed: ScriptedFeed, count: int) -> list[int]:
    return [feed.asked.get(timeout=20) for _ in range(count)]


def test_a_cut_feed_is_resumed_from_the_last_epoch_applied() -> None:
    def first(_after: Epoch) -> Iterator[FeedItem]:
        yield event(1)
        yield event(2)
        raise CoordinatorUnavailable("cut")

    def second(after: Epoch) -> Iterator[FeedItem]:
        yield event(int(after) + 1)

    feed, view = ScriptedFeed(first, second), TrustView(SystemClock())
    with follow(feed, view):
        assert view.wait_until(lambda state: state.epoch == 3, 20)
    assert asked(feed, 2) == [0, 2]


def test_a_gap_changes_nothing_and_the_watch_is_resumed() -> None:
    def gap(_after: Epoch) -> Iterator[FeedItem]:
        yield event(1)
        yield event(3)

    def whole(after: Epoch) -> Iterator[FeedItem]:
        yield event(int(after) + 1)
        yield event(int(after) + 2)

    feed, view = ScriptedFeed(gap, whole), TrustView(SystemClock())
    with follow(feed, view):
        assert view.wait_until(lambda state: state.epoch == 3, 20)
    assert asked(feed, 2) == [0, 1]


def test_a_repeated_event_changes_nothing_and_the_watch_is_resumed() -> None:
    def repeats(_after: Epoch) -> Iterator[FeedItem]:
        yield event(1)
        yield event(1)

    def goes_on(after: Epoch) -> Iterator[FeedItem]:
        yield event(int(after) + 1)

    feed, view = ScriptedFeed(repeats, goes_on), TrustView(SystemClock())
    with follow(feed, view):
        assert view.wait_until(lambda state: state.epoch == 2, 20)
    assert asked(feed, 2) == [0, 1]


def test_a_heartbeat_that_runs_ahead_is_a_gap() -> None:
    def ahead(_after: Epoch) -> Iterator[FeedItem]:
        yield event(1)
        yield FeedHeartbeat(Epoch(2), NOW)
        raise AssertionError("the follower should have left")

    def goes_on(after: Epoch) -> Iterator[FeedItem]:
        yield event(int(after) + 1)

    feed, view = ScriptedFeed(ahead, goes_on), TrustView(SystemClock())
    with follow(feed, view):
        assert view.wait_until(lambda state: state.epoch == 2, 20)
    assert asked(feed, 2) == [0, 1]


def test_a_refusal_is_remembered_and_tried_again() -> None:
    def refused(_after: Epoch) -> Iterator[FeedItem]:
        raise Revoked("on hold", reason="held")
        yield event(1)

    def released(_after: Epoch) -> Iterator[FeedItem]:
        yield event(1)

    feed, view = ScriptedFeed(refused, refused, released), TrustView(SystemClock())
    follower = follow(feed, view)
    with follower:
        assert view.wait_until(lambda state: state.epoch == 1, 20)
        asked(feed, 4)
        assert follower.last_error is None


def test_a_listener_that_fails_does_not_end_the_following() -> None:
    def one(after: Epoch) -> Iterator[FeedItem]:
        yield event(int(after) + 1)

    feed, view = ScriptedFeed(one, one), TrustView(SystemClock())

    def fail(_event: TrustEvent) -> None:
        raise RuntimeError("a bug of the listener's")

    view.subscribe(fail)
    with follow(feed, view):
        assert view.wait_until(lambda state: state.epoch == 2, 20)


def test_a_follower_stops_while_its_watch_is_silent() -> None:
    entered, closed = threading.Event(), threading.Event()

    class Silent(Iterator[FeedItem]):
        def __next__(self) -> FeedItem:
            entered.set()
            closed.wait(30)
            raise StopIteration

        def close(self) -> None:
            closed.set()

    class SilentFeed:
        def watch(self, after: Epoch) -> Iterator[FeedItem]:
            assert after == 0
            return Silent()

    follower = TrustFollower(SilentFeed(), TrustView(SystemClock()))
    follower.start()
    assert entered.wait(20)
    follower.stop(timeout=20)
    follower.stop()
    assert closed.is_set()
    assert not follower._thread.is_alive()
