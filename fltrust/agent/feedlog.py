"""The trust feed once more, for the app beside the agent: the agent's own view, never fresher than it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from datetime import timedelta

from fltrust.clock import Clock
from fltrust.errors import Conflict, StaleView
from fltrust.identity import Epoch
from fltrust.revocation.events import FeedHeartbeat, FeedItem, TrustEvent
from fltrust.revocation.view import TrustView

BEGIN_WITHIN = timedelta(seconds=10)
"""How fresh the view must be for a watch to begin: replaying old events makes a view look fresh."""

_TICK = 0.1  # seconds until a watch notices that it was closed


class FeedLog:
    """Keeps every event that a `TrustView` took in since epoch 0, and gives them to watchers in order.

    A heartbeat goes out only when the view itself heard something new from the coordinator: when
    the agent is cut off, its watchers hear nothing and age with it.
    """

    def __init__(self, view: TrustView, *, clock: Clock) -> None:
        """Begin with a view that has taken nothing in; a later one raises `Conflict`."""
        self._view = view
        self._clock = clock
        self._events: list[TrustEvent] = []
        self._grown = threading.Condition()
        view.subscribe(self._record)
        if view.epoch != 0:
            raise Conflict(f"expected a trust view at epoch 0, got one at {view.epoch}")

    def begin(self, timeout: float) -> None:
        """Return once the view is fresh enough to be replayed; `StaleView` after `timeout` seconds."""
        if not self._view.wait_until(lambda _: self._view.age() <= BEGIN_WITHIN, timeout):
            raise StaleView(
                f"expected the agent to hear from the coordinator within {timeout:.0f} s, it did not",
                hint="is the coordinator reachable from here?",
            )

    def after(
        self, position: Epoch, *, heard: float | None, timeout: float
    ) -> tuple[tuple[FeedItem, ...], float | None]:
        """What a watcher at `position`, last told of word at `heard`, needs to know; and the new `heard`.

        Blocks until there is something, at most `timeout` seconds; then the answer may be empty. A
        watcher that is ahead of the view hears nothing until the view has caught up.
        """
        ready = self._view.wait_until(
            lambda state: state.epoch > position or self._view.heard != heard, timeout
        )
        if not ready:
            return (), heard
        now_heard, now_at = self._view.heard, self._view.epoch
        if now_at > position:
            with self._grown:  # the view is ahead of its listeners for a moment
                self._grown.wait_for(lambda: len(self._events) > position, timeout)
                return tuple(self._events[position:]), heard  # a heartbeat follows, if the view is fresh
        if now_at < position:
            return (), now_heard
        return (FeedHeartbeat(position, self._clock.now()),), now_heard

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        """`TrustFeed.watch`, for a caller in this process. The iterator's `close` ends it from any thread."""
        self.begin(self._view.policy.bound.total_seconds())
        return _Watch(self, after)

    def _record(self, event: TrustEvent) -> None:
        with self._grown:
            self._events.append(event)
            self._grown.notify_all()


class _Watch(Iterator[FeedItem]):
    """One watcher's place in a log. Not a generator: that could not be closed while it waits."""

    def __init__(self, log: FeedLog, position: Epoch) -> None:
        self._log = log
        self._position = position
        self._heard: float | None = None
        self._ready: deque[FeedItem] = deque()
        self._closed = False

    def __next__(self) -> FeedItem:
        while not self._ready:
            if self._closed:
                raise StopIteration
            items, self._heard = self._log.after(self._position, heard=self._heard, timeout=_TICK)
            self._ready.extend(items)
        item = self._ready.popleft()
        self._position = item.epoch
        return item

    def close(self) -> None:
        self._closed = True
