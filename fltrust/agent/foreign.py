"""The bundles of foreign domains, as an agent's own coordinator keeps them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from fltrust.errors import FltrustError
from fltrust.identity import TrustDomain
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import TrustView
from fltrust.wire.federation import ShownDomain

_log = logging.getLogger("fltrust.agent")

_RETRY: Final = 2.0
_LONGEST: Final = 60.0
_ABOUT_DOMAINS = frozenset({EventKind.BUNDLE_CHANGED, EventKind.DOMAIN_HELD, EventKind.DOMAIN_RELEASED})


class ForeignDesk(Protocol):
    """Where an agent hears of foreign domains: its own coordinator."""

    def list_foreign(self) -> tuple[ShownDomain, ...]: ...


class ForeignBundles:
    """Keeps the present bundles of foreign domains between `start` and `stop`, and tells of each change.

    The feed says when to ask; what comes is never older, domain by domain, than what there was.
    """

    def __init__(
        self,
        desk: ForeignDesk,
        *,
        home: TrustDomain,
        view: TrustView,
        on_change: Callable[[tuple[TrustBundle, ...]], None] = lambda _bundles: None,
    ) -> None:
        self._desk = desk
        self._home = home
        self._view = view
        self._on_change = on_change
        self._current: tuple[TrustBundle, ...] = ()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def current(self) -> tuple[TrustBundle, ...]:
        return self._current

    def start(self) -> None:
        self._unsubscribe = self._view.subscribe(self._heed)
        self._wake.set()
        self._thread = threading.Thread(target=self._run, name="fltrust-foreign", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._thread is not None:
            self._thread.join(timeout)

    def refresh(self) -> None:
        """Ask now; raises what the coordinator says."""
        known = {bundle.domain: bundle for bundle in self._current}
        found = []
        for shown in self._desk.list_foreign():
            bundle = shown.record.bundle
            if shown.record.has_ended or bundle.domain == self._home:
                continue
            before = known.get(bundle.domain)
            found.append(before if before is not None and before.sequence > bundle.sequence else bundle)
        current = tuple(sorted(found, key=lambda bundle: bundle.domain))
        if current != self._current:
            self._current = current
            self._on_change(current)

    def _run(self) -> None:
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.refresh()
                pause = None
            except FltrustError as error:
                pause = _RETRY if pause is None else min(2 * pause, _LONGEST)
                _log.debug("could not ask for the foreign domains, trying again: %s", error)

    def _heed(self, event: TrustEvent) -> None:
        if event.kind in _ABOUT_DOMAINS and event.domain != self._home:
            self._wake.set()
