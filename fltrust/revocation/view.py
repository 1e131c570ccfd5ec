"""One process's view of the trust feed: the state, how old it is, and who wants to know.

Owned by the process that follows the feed; read from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from fltrust.clock import Clock
from fltrust.errors import StaleView
from fltrust.identity import Epoch, KeyId, RunId, SpiffeId
from fltrust.revocation.events import FeedItem, TrustEvent
from fltrust.revocation.state import IdentityState, TrustState

if TYPE_CHECKING:
    from fltrust.pki.types import VerifiedCertificate


class ReachMode(StrEnum):
    """What to do when the coordinator is out of reach."""

    HARD_FAIL = "hard-fail"
    SOFT_FAIL = "soft-fail"
    BEST_EFFORT = "best-effort"


@dataclass(frozen=True, slots=True)
class ReachPolicy:
    """How old a view may be. Hard-fail stops at `bound`; soft-fail goes on to `soft_bound` and
    says so; best-effort goes on for ever and says so."""

    mode: ReachMode = ReachMode.HARD_FAIL
    bound: timedelta = timedelta(seconds=30)
    soft_bound: timedelta = timedelta(minutes=10)

    def check(self, age: timedelta) -> bool:
        """Return whether the view counts as fresh; raise `StaleView` where the policy says stop."""
        if age <= self.bound:
            return True
        limit = {ReachMode.HARD_FAIL: self.bound, ReachMode.SOFT_FAIL: self.soft_bound}.get(self.mode)
        if limit is not None and age > limit:
            raise StaleView(
                f"the trust view is {age.total_seconds():.0f} s old, "
                f"{self.mode} allows {limit.total_seconds():.0f} s",
                hint="is the coordinator reachable from here?",
            )
        return False


class TrustView:
    """A `TrustState` kept current by `feed`, with its age and its listeners."""

    def __init__(self, clock: Clock, policy: ReachPolicy | None = None) -> None:
        self._clock = clock
        self.policy = policy or ReachPolicy()
        self._state = TrustState()
        self._heard: float | None = None
        self._has_caught_up = False
        self._changed = threading.Condition()
        self._listeners: list[Callable[[TrustEvent], None]] = []

    def feed(self, item: FeedItem) -> None:
        """Take one item in, then tell the listeners, in the caller's thread. A gap raises `Conflict`.

        Old events prove nothing about now, however many come: after `resume`, the view counts as heard
        from the first heartbeat on, which says that the watcher has seen all there is.
        """
        with self._changed:
            if isinstance(item, TrustEvent):
                self._state.apply(item)
            elif item.epoch == self._state.epoch:
                self._has_caught_up = True
            else:
                return  # a heartbeat that runs ahead of the events proves no freshness
            if self._has_caught_up:
                self._heard = self._clock.monotonic()
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        if isinstance(item, TrustEvent):
            for listener in listeners:
                listener(item)

    def resume(self) -> None:
        """Note that the feed is watched anew: what comes first may be old."""
        with self._changed:
            self._has_caught_up = False

    def subscribe(self, listener: Callable[[TrustEvent], None]) -> Callable[[], None]:
        """Call `listener` after each event; returns the way to end it."""
        with self._changed:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._changed:
                self._listeners.remove(listener)

        return unsubscribe

    @property
    def epoch(self) -> Epoch:
        with self._changed:
            return self._state.epoch

    def age(self) -> timedelta:
        """How long ago the feed last confirmed this view; unbounded before the first word."""
        with self._changed:
            if self._heard is None:
                return timedelta.max
            return timedelta(seconds=self._clock.monotonic() - self._heard)

    @property
    def heard(self) -> float | None:
        """The clock's monotonic time when the feed last confirmed this view; None before the first word."""
        with self._changed:
            return self._heard

    def require_fresh(self) -> bool:
        """`ReachPolicy.check` of this view's age."""
        return self.policy.check(self.age())

    def judge(self, certificate: VerifiedCertificate) -> None:
        """`TrustState.judge`, on the present state."""
        with self._changed:
            self._state.judge(certificate)

    def is_active(self, who: SpiffeId) -> bool:
        with self._changed:
            return self._state.is_active(who)

    def is_open(self, run_id: RunId) -> bool:
        with self._changed:
            return run_id in self._state.open_runs

    def participant_of(self, node_key: KeyId) -> IdentityState | None:
        with self._changed:
            return self._state.participant_of(node_key)

    def identities(self) -> tuple[IdentityState, ...]:
        with self._changed:
            return tuple(self._state.identities.values())

    def wait_until(self, ready: Callable[[TrustState], bool], timeout: float) -> bool:
        """Block until `ready(state)` or `timeout` seconds; returns whether it became ready."""
        with self._changed:
            return self._changed.wait_for(lambda: ready(self._state), timeout)
