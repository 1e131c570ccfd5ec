"""The workload's certificate: fetched, renewed in time, and given to whoever waits for the next one."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.renewal import next_renewal, retry_delay
from fltrust.clock import Clock
from fltrust.enrollment.types import Issued
from fltrust.errors import AgentUnavailable, FltrustError, Refusal, Revoked
from fltrust.identity import SpiffeId
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.pki.types import TrustBundle
from fltrust.pki.workloads import workload_of
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import TrustView

_log = logging.getLogger("fltrust.agent")

_LONGEST_SLEEP = timedelta(minutes=1)
"""The wall clock may jump: look at it at least this often."""
_STANDING = frozenset({EventKind.REVOKED, EventKind.HELD, EventKind.RELEASED, EventKind.ENROLLED})


class WorkloadDesk(Protocol):
    """Where the next certificate comes from: the agent's own coordinator."""

    def certify_workload(self, csr_der: bytes) -> Issued: ...


@dataclass(frozen=True, slots=True)
class Served:
    """What workloads are given now. `version` grows with every change of any of it."""

    version: int
    credentials: Credentials = field(repr=False)
    bundle: TrustBundle
    foreign: tuple[TrustBundle, ...]


class WorkloadKeeper:
    """Keeps the workload of one agent supplied with certificates, between `start` and `stop`.

    Every certificate is for a new key. Whoever asks is judged by what the agent knows of itself: while it is
    on hold nothing is given out; once it is revoked, nothing any more, and the key is forgotten. How old the
    agent's view is does not matter here: a certificate that is out lives no longer for being given again, and
    who verifies it asks for its status.
    """

    def __init__(
        self,
        agent: CredentialStore,
        desk: WorkloadDesk,
        *,
        view: TrustView,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """`PermissionDenied` or `Malformed` for an agent that can have no workload."""
        self.spiffe_id: SpiffeId = workload_of(agent.spiffe_id)
        self._agent = agent
        self._desk = desk
        self._view = view
        self._clock = clock
        self._rng = rng
        self._changed = threading.Condition()
        self._served: Served | None = None
        self._version = 0
        self._foreign: tuple[TrustBundle, ...] = ()
        self._halted: Revoked | None = None
        self._stopping = False
        self._due: datetime | None = None
        self._attempt = 0
        self._last_error: FltrustError | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        self._unsubscribe = [
            self._view.subscribe(self._heed),
            self._agent.on_rotate(lambda _credentials: self._follow_agent()),
        ]
        self._thread = threading.Thread(target=self._run, name="fltrust-workload", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread, and every wait. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._wake.set()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def halt(self, because: Revoked) -> None:
        """Give nothing out from now on: the agent was told that it is revoked."""
        with self._changed:
            self._halted, self._served = because, None
            self._changed.notify_all()
        self._wake.set()

    def use_foreign(self, bundles: Iterable[TrustBundle]) -> None:
        """Give these bundles of foreign domains out beside our own."""
        with self._changed:
            self._foreign = tuple(sorted(bundles, key=lambda bundle: bundle.domain))
        self._follow_bundle()

    def after(
        self, version: int, timeout: float, *, is_over: Callable[[], bool] = lambda: False
    ) -> Served | None:
        """What is given out after `version`, now or within `timeout` seconds; None if nothing new came.

        The wait ends, with None, when `is_over` says so: who makes it so calls `stir`.

        Raises `Revoked` (``revoked`` or ``held``) while the agent is barred, `AgentUnavailable` when the
        keeper stops, and once `timeout` has passed without a certificate that is valid.
        """
        with self._changed:
            self._changed.wait_for(lambda: is_over() or self._is_news(version), timeout)
            if is_over():
                return None
            self._check()
            served = self._served
            if served is None or self._clock.now() > served.credentials.certificate.not_after:
                raise AgentUnavailable(
                    f"expected a certificate for {self.spiffe_id}, there is none now"
                    + (f": {self._last_error.message}" if self._last_error else ""),
                    hint="is the coordinator reachable from here?",
                )
            return served if served.version > version else None

    def refresh(self) -> None:
        """Get another certificate now, in the keeper's thread."""
        self._due = None
        self._wake.set()

    def stir(self) -> None:
        """Wake every wait, to look again whether somebody still listens."""
        with self._changed:
            self._changed.notify_all()

    def step(self) -> timedelta:
        """Do what is due; return how long to sleep."""
        now = self._clock.now()
        if self._halted is not None or (self._due is not None and now < self._due):
            return _LONGEST_SLEEP if self._due is None else min(self._due - now, _LONGEST_SLEEP)
        try:
            self._certify()
        except FltrustError as error:
            self._put_off(error)
        except Exception as error:  # whatever broke, the certificate still runs out
            _log.exception("certifying %s failed", self.spiffe_id)
            self._put_off(AgentUnavailable(f"unexpected {type(error).__name__}"))
        due = self._due or self._clock.now()
        return max(min(due - self._clock.now(), _LONGEST_SLEEP), timedelta(0))

    def _certify(self) -> None:
        """1. A new key. 2. The bundle that comes back replaces the agent's if its sequence is higher.
        3. The certificate verifies, is the workload's, and is for that key."""
        signer = generate()  # 1
        issued = self._desk.certify_workload(create_csr(signer))
        bundle = self._agent.current.bundle
        if issued.bundle.domain == bundle.domain and issued.bundle.sequence > bundle.sequence:  # 2
            bundle = issued.bundle
        credentials = Credentials.verified(  # 3
            signer, issued.chain_der, bundle=bundle, expect=self.spiffe_id, clock=self._clock
        )
        certificate = credentials.certificate
        self._attempt, self._last_error = 0, None
        self._due = next_renewal(certificate.not_before, certificate.not_after, rng=self._rng)
        with self._changed:
            if self._halted is None:
                self._serve(credentials, bundle)
        _log.info("%s has certificate %s", self.spiffe_id, certificate.serial.hex)

    def _follow_agent(self) -> None:
        """The agent has other credentials. Where its CA was ended, the workload may have some now, too."""
        self._follow_bundle()
        with self._changed:
            is_missing = self._served is None and self._halted is None
        if is_missing:
            self.refresh()

    def _follow_bundle(self) -> None:
        """The agent's bundle or a foreign one may have changed: tell those who wait, if it did."""
        bundle = self._agent.current.bundle
        with self._changed:
            served = self._served
            if served is None:
                return
            newest = bundle if bundle.sequence > served.bundle.sequence else served.bundle
            if newest is not served.bundle or self._foreign != served.foreign:
                self._serve(served.credentials, newest)

    def _serve(self, credentials: Credentials, bundle: TrustBundle) -> None:
        self._version += 1
        self._served = Served(self._version, credentials, bundle, self._foreign)
        self._changed.notify_all()

    def _check(self) -> None:
        """Raise where nothing may be given out. What a feed replays, catching up, proves nothing."""
        if self._halted is not None:
            raise Revoked(self._halted.message, reason=self._halted.reason, hint=self._halted.hint)
        if self._stopping:
            raise AgentUnavailable("the agent stops", hint="try again in a moment")
        if self._view.heard is not None:
            try:
                self._view.judge(self._agent.current.certificate)
            except Revoked:
                raise
            except FltrustError:
                return  # not known to the view: it will be, or the coordinator says no for itself

    def _is_news(self, version: int) -> bool:
        if self._halted is not None or self._stopping or self._is_barred():
            return True
        return self._served is not None and self._served.version > version

    def _is_barred(self) -> bool:
        try:
            self._check()
        except FltrustError:
            return True
        return False

    def _heed(self, event: TrustEvent) -> None:
        if event.kind is EventKind.BUNDLE_CHANGED:
            self._follow_bundle()
        elif event.kind is EventKind.ISSUER_REVOKED:
            self._forget_what_it_vouched_for(event)
        elif event.kind in _STANDING and event.subject in (self._agent.spiffe_id, self.spiffe_id):
            self._renew_if_barred(event)
            self.stir()

    def _forget_what_it_vouched_for(self, event: TrustEvent) -> None:
        """Whoever looks at the path alone would still believe the CA that was ended: give it out no more."""
        with self._changed:
            served = self._served
            if served is None or event.domain != served.bundle.domain:
                return
            if event.issuer in served.credentials.certificate.issuers:
                self._served = None
                self.refresh()

    def _renew_if_barred(self, event: TrustEvent) -> None:
        """The workload's certificate was revoked and the agent was not: it is forgotten, another is due."""
        with self._changed:
            served = self._served
            if event.kind is not EventKind.REVOKED or served is None:
                return
            certificate = served.credentials.certificate
            if certificate.serial in event.serials or certificate.key_id in event.keys:
                self._served = None
                self.refresh()

    def _run(self) -> None:
        while not self._stopping:
            pause = self.step()
            self._wake.wait(pause.total_seconds())
            self._wake.clear()

    def _put_off(self, error: FltrustError) -> None:
        now = self._clock.now()
        served = self._served
        left = timedelta(0) if served is None else served.credentials.certificate.not_after - now
        self._attempt += 1
        self._last_error = error
        self._due = now + retry_delay(self._attempt, left=left, rng=self._rng)
        if isinstance(error, Revoked) and error.reason != Refusal.HELD:
            _log.error("%s gets no certificate any more: %s", self.spiffe_id, error)
        else:
            _log.warning("could not certify %s, trying again: %s", self.spiffe_id, error)
