"""Keeps every foreign domain followed and its bundle current, in threads beside the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.federation.follower import ForeignFollower
from fltrust.coordinator.federation.kinds import check_roots
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.enrollment.foreign import ForeignDomain
from fltrust.errors import FltrustError
from fltrust.identity import TrustDomain
from fltrust.pki.jwks import PublishedBundle
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind
from fltrust.revocation.view import TrustView
from fltrust.wire.tls import Credentials, TlsMaterial

_log = logging.getLogger(__name__)

_TICK = 0.25
_RETRY_BUNDLE: Final = 15.0
_TOLD_EVERY: Final = 2.0
"""Seconds between two fetches of a bundle that failed, and of one that their feed says has changed."""
_ANEW_AFTER: Final = 10.0
"""Seconds before a feed that does not show whom we admitted is watched anew."""


class Stoppable(Protocol):
    def stop(self) -> None: ...


Follow = Callable[[ForeignDomain, Callable[[], TlsMaterial], TrustView], Stoppable]
"""Begins to put a foreign coordinator's feed into a view, calling as the credentials that it is given."""
Fetch = Callable[[ForeignDomain, datetime, Path | None], PublishedBundle]
"""Fetches a foreign bundle, authenticated, by roots of the Web PKI in a file where one is given; see
`fltrust.client.bundle_endpoint`."""


@dataclass(frozen=True, slots=True)
class FederationLinks:
    """How to reach other coordinators: this room does not call, it is called."""

    follow: Follow
    fetch: Fetch


@dataclass(slots=True)
class _Watched:
    record: ForeignDomain
    follower: ForeignFollower
    link: Stoppable
    began: float
    due: float = 0.0
    tried: float = float("-inf")
    """When its bundle is to be fetched next, and when that was tried last: monotonic seconds."""


class FederationKeeper:
    """Follows what `authority.federation` says is federated with, between `start` and `stop`."""

    def __init__(
        self,
        authority: Authority,
        identity: IdentityKeeper,
        links: FederationLinks,
        *,
        clock: Clock,
        web_roots: Path | None = None,
    ) -> None:
        self._web_roots = web_roots
        self._authority = authority
        self._identity = identity
        self._links = links
        self._clock = clock
        self._watched: dict[TrustDomain, _Watched] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._unsubscribe = self._authority.federation.subscribe(self._wake.set)
        for name, work in (("feeds", self._follow_all), ("bundles", self._fetch_all)):
            thread = threading.Thread(
                target=self._run, args=(work,), name=f"fltrust-federation-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End every watch and thread. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for thread in self._threads:
            thread.join(timeout)
        with self._lock:
            watched = tuple(self._watched.values())
            self._watched = {}
        for one in watched:
            one.link.stop()

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                work()
            except Exception:  # whatever broke, other domains are still to be followed
                _log.exception("following foreign domains failed, trying again")
            self._wake.wait(_TICK)
            self._wake.clear()

    def _follow_all(self) -> None:
        active = {record.domain: record for record in self._authority.federation.active()}
        for domain in tuple(self._watched):
            known = self._watched[domain]
            wanted = active.get(domain)
            if wanted is None or wanted.address != known.record.address or self._is_to_begin_anew(known):
                with self._lock:
                    del self._watched[domain]
                known.link.stop()
        for domain, record in active.items():
            if domain not in self._watched:
                self._begin(record)
            watched = self._watched[domain]
            try:
                watched.follower.settle(home=self._authority.ca.bundle)
            except FltrustError as error:
                _log.error("what %s says could not be taken over, trying again: %s", domain, error)

    def _begin(self, record: ForeignDomain) -> None:
        with self._authority.ledger.reading() as tx:
            kept = tx.foreign.get(record.domain)  # when it was heard last: the desk does not follow that
        follower = ForeignFollower(
            kept or record,
            ledger=self._authority.ledger,
            spread=self._authority.desks.taints.spread,
            clock=self._clock,
        )

        def material() -> TlsMaterial:
            ours = self._identity.current
            current = self._authority.federation.get(record.domain) or record
            return Credentials(ours.chain_pem, ours.key_pem(), current.bundle)

        link = self._links.follow(record, material, follower.view)
        with self._lock:
            self._watched[record.domain] = _Watched(record, follower, link, self._clock.monotonic())

    def _is_to_begin_anew(self, known: _Watched) -> bool:
        is_old = self._clock.monotonic() - known.began > _ANEW_AFTER
        return is_old and known.follower.is_fresh and bool(known.follower.lacks())

    def _fetch_all(self) -> None:
        for record in self._authority.federation.active():
            with self._lock:
                watched = self._watched.get(record.domain)
            if watched is None:
                continue
            now = self._clock.monotonic()
            is_told = (watched.follower.told_sequence or 0) > record.bundle.sequence
            is_due = now >= watched.due or (is_told and now >= watched.tried + _TOLD_EVERY)
            if self._stopping or not is_due:
                continue
            watched.tried, watched.due = now, now + _RETRY_BUNDLE
            try:
                published = self._links.fetch(record, self._clock.now(), self._web_roots)
                take_bundle(self._authority, published.bundle)
                watched.due = now + published.refresh.total_seconds()
            except FltrustError as error:
                _log.warning("the bundle of %s is the one of before: %s", record.domain, error)


def take_bundle(authority: Authority, bundle: TrustBundle) -> bool:
    """Keep a foreign bundle that was fetched, if it is newer; says whether it was.

    Decided again under the lock: what was fetched while another was kept does not set it back.
    """
    with authority.ledger.writing() as work:
        record = work.tx.foreign.get(bundle.domain)
        if record is None or record.has_ended or record.with_bundle(bundle).bundle == record.bundle:
            return False
        others = (r.bundle for r in work.tx.foreign.all() if r.domain != bundle.domain)
        check_roots(bundle, (authority.ca.bundle, *others))
        work.tx.foreign.put(replace(record, bundle=bundle))
        work.emit(EventKind.BUNDLE_CHANGED, actor=None, domain=bundle.domain, sequence=bundle.sequence)
    authority.federation.reload()
    return True
