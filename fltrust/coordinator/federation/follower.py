"""One foreign feed, followed: what it says is taken over, and how old it is decides who is let in."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from fltrust.clock import Clock
from fltrust.coordinator.federation.relay import Spread, TheirWord, take_over
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.enrollment.foreign import ForeignDomain
from fltrust.identity import Epoch, SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import ReachPolicy, TrustView

BOUND: Final = timedelta(seconds=30)
"""How old what we know of a foreign domain may be. Past it nobody of that domain is let in: hard-fail."""
_NOTE_EVERY: Final = timedelta(seconds=10)


class ForeignFollower:
    """Folds what is put into `view` (by whoever watches their coordinator), and brings our feed up to it.

    What a feed replays before its first heartbeat is taken over by nobody: until then their last word may
    still come. `settle` is idempotent, and costs nothing while nothing has changed.
    """

    def __init__(
        self, record: ForeignDomain, *, ledger: Ledger, spread: Spread, clock: Clock, bound: timedelta = BOUND
    ) -> None:
        self.domain: TrustDomain = record.domain
        self.view = TrustView(clock, ReachPolicy(bound=bound))
        self._ledger = ledger
        self._spread = spread
        self._clock = clock
        self._bound = bound
        self._lock = threading.Lock()
        self._word = TheirWord(record.domain)
        self._settled: tuple[Epoch, Epoch] | None = None
        self._noted = record.heard_at
        self._bundle_hint: int | None = None
        self.view.subscribe(self._take)

    @property
    def told_sequence(self) -> int | None:
        """The newest sequence of its own bundle that the feed told of."""
        return self._bundle_hint

    @property
    def is_fresh(self) -> bool:
        return self.view.heard is not None and self.view.age() <= self._bound

    def settle(self, *, home: TrustBundle) -> None:
        """Bring our feed up to date with theirs.

        1. While their feed is fresh: what it says is taken over first, then the domain is let in.
        2. Once it is older than the bound (counted from when it was heard last, also by a process before
           this one), the domain is held.
        """
        with self._lock:
            is_fresh, now = self.is_fresh, self._clock.now()
            is_held = self._ledger.is_domain_held(self.domain)
            if is_fresh:
                heard = now - self.view.age()  # when they spoke, not when we looked
                place = (self._word.state.epoch, self._ledger.head)
                is_noted = self._noted is not None and heard - self._noted < _NOTE_EVERY
                if not is_held and is_noted and place == self._settled:
                    return
                with self._ledger.writing() as work:
                    self._catch_up(work, home, heard)
                self._noted, self._settled = heard, (self._word.state.epoch, self._ledger.head)
            elif not is_held and (self._noted is None or now - self._noted > self._bound):
                with self._ledger.writing() as work:
                    if self._is_active(work) and not work.state.is_domain_held(self.domain):
                        work.emit(EventKind.DOMAIN_HELD, actor=None, domain=self.domain)

    def lacks(self) -> frozenset[SpiffeId]:
        """Whom we admitted and their feed does not show: watched anew, it may, once they are lent."""
        with self._lock:
            known = self._word.state.identities
            return frozenset(
                who for who in self._ledger.identities() if who.domain == self.domain and who not in known
            )

    def _catch_up(self, work: Work, home: TrustBundle, heard: datetime) -> None:
        if not self._is_active(work):
            return
        take_over(self._word, work, home=home, spread=self._spread)  # 1
        if work.state.is_domain_held(self.domain):
            work.emit(EventKind.DOMAIN_RELEASED, actor=None, domain=self.domain)
        work.tx.foreign.hear(self.domain, heard)

    def _is_active(self, work: Work) -> bool:
        record = work.tx.foreign.get(self.domain)
        return record is not None and not record.has_ended

    def _take(self, event: TrustEvent) -> None:
        with self._lock:
            self._word.take(event)
            if event.kind is EventKind.BUNDLE_CHANGED and event.domain == self.domain:
                self._bundle_hint = max(self._bundle_hint or 0, event.sequence or 0)
