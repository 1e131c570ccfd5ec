"""A thread that keeps a trust view current, through every cut of the feed."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from fltrust.errors import Conflict, FltrustError
from fltrust.revocation.events import FeedHeartbeat, FeedItem
from fltrust.revocation.ports import TrustFeed
from fltrust.revocation.view import TrustView

_log = logging.getLogger(__name__)


class TrustFollower:
    """Pumps ``feed.watch(after=view.epoch)`` into `view` until `stop`.

    A cut feed is watched again after a pause that doubles from `first_pause` to `max_pause`
    seconds, with jitter, and starts over once something came. A gap or a repetition changes
    nothing in the view: the watch is resumed from the last epoch that was applied. Refusals
    (revoked, expired) are retried too, since a hold can be released and a certificate renewed;
    the view's age says meanwhile how much it can be relied on, and `last_error` says why.
    """

    def __init__(
        self,
        feed: TrustFeed,
        view: TrustView,
        *,
        first_pause: float = 0.1,
        max_pause: float = 5.0,
        rng: random.Random | None = None,
    ) -> None:
        self._feed = feed
        self._view = view
        self._first_pause = first_pause
        self._max_pause = max_pause
        self._rng = rng or random.SystemRandom()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: Iterator[FeedItem] | None = None
        self._last_error: FltrustError | None = None
        self._came = False
        self._thread = threading.Thread(target=self._run, name="fltrust-follower", daemon=True)

    @property
    def last_error(self) -> FltrustError | None:
        """Why the feed is cut; None while it flows."""
        return self._last_error

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the watch and the thread; waits up to `timeout` seconds. Idempotent."""
        self._stopping.set()
        with self._lock:
            self._close_open()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        pause = self._first_pause
        while not self._stopping.is_set():
            self._came = False
            try:
                self._follow()
            except FltrustError as error:
                if self._last_error is None or self._last_error.reason != error.reason:
                    _log.warning("the trust feed is cut at epoch %s: %s", self._view.epoch, error)
                self._last_error = error
            except Exception:  # a listener's bug must not end enforcement in this process
                if not self._stopping.is_set():
                    _log.exception("following the trust feed failed at epoch %s", self._view.epoch)
            if self._came:  # what was applied is applied: resume soon
                pause = self._first_pause
            self._stopping.wait(pause * self._rng.uniform(0.5, 1.0))
            pause = min(pause * 2, self._max_pause)

    def _follow(self) -> None:
        """Feed one watch to its end."""
        self._view.resume()
        items = self._feed.watch(self._view.epoch)
        with self._lock:
            self._open = items
            if self._stopping.is_set():
                self._close_open()
        try:
            for item in items:
                self._take(item)
                self._came = True
                if self._last_error is not None:
                    _log.info("the trust feed flows again at epoch %s", self._view.epoch)
                    self._last_error = None
                if self._stopping.is_set():
                    break
        finally:
            with self._lock:
                self._close_open()
                self._open = None

    def _take(self, item: FeedItem) -> None:
        if isinstance(item, FeedHeartbeat) and item.epoch != self._view.epoch:
            raise Conflict(
                f"expected the feed at epoch {self._view.epoch}, its heartbeat says {item.epoch}",
                reason="epoch-gap",
            )
        self._view.feed(item)

    def _close_open(self) -> None:
        close = getattr(self._open, "close", None)
        if close is not None:
            with contextlib.suppress(ValueError):  # a generator that is running right now ends by itself
                close()
