"""Watching: every epoch, in order, without a gap, to everybody who may read it, for as long as they may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import raw_http2
from server_world import DOMAIN, Collector, Person, ServedWorld, served

from fltrust.client import TrustFollower
from fltrust.client.channel import coordinator_of
from fltrust.clock import SystemClock
from fltrust.coordinator.serving import ServerSettings
from fltrust.errors import Conflict, LimitExceeded, Revoked
from fltrust.identity import Epoch, Role, RunId
from fltrust.revocation.events import EventKind, FeedHeartbeat, RevocationReason
from fltrust.revocation.view import TrustView
from fltrust.wire import methods

QUICK = ServerSettings(rate=10_000, burst=10_000, bootstrap_burst=10_000, heartbeat=0.2)


def eventually(happened: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.02)
    return happened()


@contextmanager
def stalled_watch(world: ServedWorld, person: Person) -> Iterator[None]:
    """A watch with much to send, opened by a client that takes the first kilobyte and then nothing."""
    with world.authority.ledger.writing() as work:
        for i in range(2_000):
            kind = EventKind.RUN_CLOSED if i % 2 else EventKind.RUN_OPENED
            work.emit(kind, actor=None, run_id=RunId(i // 2))
    context = raw_http2.client_context(person.credentials, raw_http2.roots_of(person.credentials))
    with raw_http2.connect(world.address, context, name=coordinator_of(DOMAIN).dns_name) as sock:
        raw_http2.begin(sock, methods.WATCH, b"", window=1_024)
        watches = world.server.open_watches
        assert eventually(lambda: world.server.open_watches > 0), watches
        yield


def head(world: ServedWorld) -> int:
    return int(world.authority.head)


def test_a_watch_begins_with_the_past_and_goes_on_with_what_happens(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        watch = Collector(world.operator.client.watch(Epoch(0)))
        assert watch.wait_for(lambda w: w.epochs == [1, 2])
        world.revoke(site)
        assert watch.wait_for(lambda w: w.epochs == [1, 2, 3])
        assert watch.events[2].kind is EventKind.REVOKED
        watch.close()


def test_a_watch_resumes_from_an_epoch_without_a_gap(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        sites = [world.join(f"s{i}") for i in range(4)]
        first = Collector(world.operator.client.watch(Epoch(0)))
        assert first.wait_for(lambda w: len(w.epochs) == head(world))
        first.close()
        for site in sites[:2]:
            world.revoke(site)
        resumed = Collector(world.operator.client.watch(Epoch(first.epochs[-1])))
        world.revoke(sites[2])
        assert resumed.wait_for(lambda w: first.epochs + w.epochs == list(range(1, head(world) + 1)))
        resumed.close()


def test_a_watch_outlives_a_restart_of_the_coordinator_without_a_gap(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        site, view = world.join("a"), TrustView(SystemClock())
        world.settings = ServerSettings(
            bootstrap=world.bootstrap, address=world.address, rate=10_000, burst=10_000
        )
        with TrustFollower(world.operator.client, view):
            assert view.wait_until(lambda state: state.epoch == 2, 30)
            world.stop()
            world.start()
            world.revoke(site)
            assert view.wait_until(lambda state: state.epoch == 3, 30)
            assert not view.is_active(site.spiffe_id)


def test_a_watch_ahead_of_the_feed_is_refused(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        watch = Collector(world.operator.client.watch(Epoch(1_000)))
        assert watch.ended()
        assert isinstance(watch.error, Conflict)
        assert watch.error.reason == "epoch-ahead"


def test_a_watch_that_begins_before_the_window_reads_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fltrust.coordinator.feed.Feed.__init__.__kwdefaults__", {"window": 3})
    monkeypatch.setattr("fltrust.coordinator.feed.PAGE", 2)
    with served(tmp_path) as world:
        for i in range(8):
            world.join(f"s{i}")
        for after in range(head(world)):
            watch = Collector(world.operator.client.watch(Epoch(after)))
            wanted = list(range(after + 1, head(world) + 1))
            assert watch.wait_for(lambda w, wanted=wanted: w.epochs == wanted)
            watch.close()


def test_an_idle_watch_says_that_there_is_nothing_new(tmp_path: Path) -> None:
    with served(tmp_path, settings=QUICK) as world:
        watch = Collector(world.operator.client.watch(Epoch(0)))
        assert watch.wait_for(lambda w: sum(isinstance(i, FeedHeartbeat) for i in w.items) >= 3)
        assert {i.epoch for i in watch.items if isinstance(i, FeedHeartbeat)} == {head(world)}
        watch.close()


def test_a_participant_reads_of_others_only_that_something_happened(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        mine, other = world.join("mine"), world.join("other")
        aggregator = world.join("main", Role.AGGREGATOR)
        world.revoke(other)
        seen = Collector(mine.client.watch(Epoch(0)))
        whole = Collector(aggregator.client.watch(Epoch(0)))
        assert seen.wait_for(lambda w: len(w.epochs) == head(world))
        assert whole.wait_for(lambda w: len(w.epochs) == head(world))
        assert [e.kind for e in seen.events if e.subject is None] == [EventKind.REDACTED] * 2
        assert all(e.subject != other.spiffe_id for e in seen.events)
        assert [e.subject for e in whole.events].count(other.spiffe_id) == 2
        seen.close()
        whole.close()


@pytest.mark.parametrize("how", ["revoke", "hold"])
def test_a_watch_ends_when_its_own_identity_is_barred_after_saying_so(tmp_path: Path, how: str) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        watches = [Collector(site.client.watch(Epoch(0))) for _ in range(3)]
        assert all(watch.wait_for(lambda w: w.epochs == [1, 2]) for watch in watches)
        if how == "revoke":
            world.revoke(site)
        else:
            world.operator.client.hold(site.target, reason=RevocationReason.UNSPECIFIED)
        for watch in watches:
            assert watch.ended()
            assert isinstance(watch.error, Revoked)
            assert watch.epochs == [1, 2, 3]


@pytest.mark.slow
def test_a_watch_ends_without_an_error_when_its_certificate_runs_out(tmp_path: Path) -> None:
    with served(tmp_path, lifetimes={Role.PARTICIPANT: timedelta(seconds=5)}) as world:
        watch = Collector(world.join("a").client.watch(Epoch(0)))
        assert watch.ended()
        assert watch.error is None
        assert watch.epochs == [1, 2]


@pytest.mark.slow
def test_a_follower_goes_on_with_the_renewed_certificate(tmp_path: Path) -> None:
    with served(tmp_path, lifetimes={Role.PARTICIPANT: timedelta(seconds=6)}, settings=QUICK) as world:
        site, view = world.join("a"), TrustView(SystemClock())
        end_of_first = world.clock.now() + timedelta(seconds=6)
        with TrustFollower(site.client, view):
            assert view.wait_until(lambda state: state.epoch == 2, 30)
            time.sleep(4)
            site.use(site.renew())
            while world.clock.now() < end_of_first + timedelta(seconds=0.5):
                time.sleep(0.1)
            world.join("b")
            assert view.wait_until(lambda state: state.epoch == 3, 30)
        assert world.authority.counters.get("rpc.mtls.Watch.ok") == 1  # the first one ran out, in order


def test_a_watcher_that_takes_nothing_is_cut_and_costs_nobody_anything(tmp_path: Path) -> None:
    settings = ServerSettings(stall_timeout=0.5, watches_per_identity=1)
    with served(tmp_path, settings=settings) as world, stalled_watch(world, world.operator):
        counters = world.authority.counters
        assert eventually(lambda: counters.get("rpc.mtls.Watch.slow-watcher") == 1)
        # Its place is free again, and the feed flows to who takes it.
        again = Collector(world.operator.client.watch(Epoch(head(world) - 1)))
        world.join("a")
        assert again.wait_for(lambda w: len(w.epochs) == 2)
        again.close()


def test_a_revoked_watcher_cannot_hold_on_by_taking_nothing(tmp_path: Path) -> None:
    with served(tmp_path, settings=ServerSettings(stall_timeout=600)) as world:
        site = world.join("a")
        with stalled_watch(world, site):
            world.revoke(site)
            assert eventually(lambda: world.authority.counters.get("rpc.mtls.Watch.revoked") == 1)


def test_open_watches_are_bounded_in_all_and_by_identity(tmp_path: Path) -> None:
    settings = ServerSettings(rate=1e6, burst=1e6, watches=5, watches_per_identity=3)
    with served(tmp_path, settings=settings) as world:
        site = world.join("a")
        held = [Collector(world.operator.client.watch(Epoch(0))) for _ in range(3)]
        assert all(watch.wait_for(lambda w: len(w.epochs) == 2) for watch in held)
        over = Collector(world.operator.client.watch(Epoch(0)))
        assert over.ended()
        assert isinstance(over.error, LimitExceeded)
        assert over.error.reason == "too-many-watches"
        held += [Collector(site.client.watch(Epoch(0))) for _ in range(2)]
        assert all(watch.wait_for(lambda w: len(w.epochs) == 2) for watch in held)
        full = Collector(site.client.watch(Epoch(0)))
        assert full.ended()
        assert isinstance(full.error, LimitExceeded)
        held[0].close()
        again = Collector(site.client.watch(Epoch(0)))
        assert again.wait_for(lambda w: len(w.epochs) == 2 or w.error is not None)
        for watch in (*held, again):
            watch.close()


def test_two_hundred_watchers_each_see_every_epoch_while_many_write(tmp_path: Path) -> None:
    settings = ServerSettings(rate=1e6, burst=1e6, bootstrap_burst=10_000, watches_per_identity=1_000)
    with served(tmp_path, settings=settings) as world:
        aggregator = world.join("main", Role.AGGREGATOR)
        channels = [world.client(lambda: aggregator.credentials) for _ in range(10)]
        watches = [Collector(channels[i % 10].watch(Epoch(0))) for i in range(200)]

        def join_and_revoke(name: str) -> None:
            world.revoke(world.join(name))

        writers = [threading.Thread(target=join_and_revoke, args=(f"s{i}",)) for i in range(12)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        wanted = list(range(1, head(world) + 1))
        assert len(wanted) == 2 + 24
        for watch in watches:
            assert watch.wait_for(lambda w: w.epochs == wanted), watch.epochs
        for watch in watches:
            watch.close()
