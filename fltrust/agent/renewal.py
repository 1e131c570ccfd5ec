"""When to renew, and the thread that does it: a new key each time, the old one good until it expires."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.clock import Clock
from fltrust.enrollment.types import Issued
from fltrust.errors import FltrustError, Refusal, Revoked, StorageUnavailable
from fltrust.keys import generate
from fltrust.pki import BACKDATE, create_csr

_log = logging.getLogger("fltrust.agent")

_FRACTION = 2 / 3
_JITTER = 0.1
_FIRST_RETRY = timedelta(seconds=1)
_LONGEST_RETRY = timedelta(minutes=1)
_LONGEST_SLEEP = timedelta(minutes=1)
"""The wall clock may jump (suspend, NTP): look at it at least this often."""
_ASKED_EVERY = timedelta(seconds=2)
_ALARMING = 3
"""Failures in a row that are told as an alarm; the first may be a coordinator that restarts."""

Alarm = Callable[[str, timedelta], None]
"""Told why renewal fails, and how much longer the certificate is good."""


def next_renewal(not_before: datetime, not_after: datetime, *, rng: random.Random) -> datetime:
    """When to renew a certificate: at two thirds of its life, 10 % earlier or later by chance.

    The life counts from the moment of issue, which lies `BACKDATE` after notBefore. Always between
    0.6 and 0.7334 of the life: a federation that was started at once does not renew at once.
    """
    issued = min(not_before + BACKDATE, not_after)
    return issued + (not_after - issued) * _FRACTION * rng.uniform(1 - _JITTER, 1 + _JITTER)


def retry_delay(attempt: int, *, left: timedelta, rng: random.Random) -> timedelta:
    """How long to wait after the `attempt`-th failure in a row (from 1).

    Doubles from 1 s to 1 min, by chance down to half of that, and never more than a quarter of what is
    `left` of the certificate, so that several attempts fit in; at least 0.1 s.
    """
    ceiling = min(_FIRST_RETRY * (1 << min(attempt - 1, 16)), _LONGEST_RETRY)
    if left > timedelta(0):
        ceiling = min(ceiling, left / 4)
    return max(ceiling * rng.uniform(0.5, 1.0), timedelta(milliseconds=100))


@dataclass(slots=True)
class _Plan:
    """What to do next, and when; `attempt` counts the failures in a row."""

    at: datetime
    attempt: int = 0


class RenewalDesk(Protocol):
    """Where the next certificate comes from; `Registrar.renew`."""

    def renew(self, csr_der: bytes) -> Issued: ...


class Renewer:
    """Keeps a `CredentialStore` supplied with valid certificates until `stop` or revocation.

    While a certificate is out of reach it tries again with growing pauses, also after the
    old one expired (a clock may be wrong, and the coordinator says no for itself). Only
    revocation ends it: then `on_revoked` is called, once, in the renewer's thread.
    """

    def __init__(
        self,
        store: CredentialStore,
        desk: RenewalDesk,
        *,
        clock: Clock,
        rng: random.Random,
        on_revoked: Callable[[Revoked], None] | None = None,
        on_alarm: Alarm | None = None,
        keeps_key: bool = False,
        is_asked: Callable[[], bool] | None = None,
    ) -> None:
        """`is_asked` is asked every two seconds whether somebody wants a renewal now. `keeps_key` renews the
        certificate of the key that there is, for a key that cannot be made anew."""
        self._on_alarm = on_alarm
        self._keeps_key = keeps_key
        self._is_asked = is_asked
        self._store = store
        self._desk = desk
        self._clock = clock
        self._rng = rng
        self._on_revoked = on_revoked
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._plan = self._schedule()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="fltrust-renewer", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; a renewal that is under way is waited for up to `timeout` seconds. Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def renew(self) -> Credentials:
        """Get the next certificate now and rotate to it.

        1. A new key is made, or the present one kept (one in hardware always is); only a request signed
           with it leaves.
        2. The bundle of the response replaces ours if its sequence is higher: it came over a
           channel that our roots authenticated.
        3. The certificate verifies against that bundle, is ours, and is for that key.
        4. The store rotates; whoever holds the old pair may go on with it until it expires.
        """
        old = self._store.current
        in_hardware = old.hardware_signer is not None
        signer = old.signer if self._keeps_key or in_hardware else generate()  # 1
        issued = self._desk.renew(create_csr(signer))
        bundle = old.bundle
        if issued.bundle.domain == bundle.domain and issued.bundle.sequence > bundle.sequence:  # 2
            bundle = issued.bundle
        credentials = Credentials.verified(  # 3
            signer, issued.chain_der, bundle=bundle, expect=old.spiffe_id, clock=self._clock
        )
        if in_hardware:
            credentials = replace(credentials, transport=self._transport(credentials))
        self._store.rotate(credentials)  # 4
        return credentials

    def _transport(self, identity: Credentials) -> Credentials:
        """A certificate of the same identity for a key in memory, for TLS that takes no other."""
        signer = generate()
        issued = self._desk.renew(create_csr(signer))
        return Credentials.verified(
            signer, issued.chain_der, bundle=identity.bundle, expect=identity.spiffe_id, clock=self._clock
        )

    def hasten(self, within: timedelta) -> None:
        """Renew at a moment between now and `within`, by chance, unless that is due earlier anyway.

        What makes one agent renew makes all of them: they must not come at once. Returns at once.
        """
        due = self._clock.now() + within * self._rng.random()
        if due < self._plan.at:
            self._plan = _Plan(due, self._plan.attempt)
            self._wake.set()

    def step(self) -> timedelta | None:
        """Do what is due; return how long to sleep, or None when renewal has ended for good."""
        now = self._clock.now()
        if self._is_asked is not None and self._is_asked():
            self._plan = _Plan(now)
        if now < self._plan.at:
            self._save_if_needed()
            return min(self._plan.at - now, self._longest_sleep)
        try:
            credentials = self.renew()
        except Revoked as error:
            if error.reason != Refusal.HELD:
                self._end(error)
                return None
            self._put_off(error)
        except FltrustError as error:
            self._put_off(error)
        except Exception as error:  # whatever broke, the certificate still runs out: trying again is safe
            _log.exception("renewing %s failed", self._store.spiffe_id)
            self._put_off(error)
        else:
            self._plan = self._schedule()
            _log.info(
                "%s has a new certificate, %s, until %s",
                credentials.spiffe_id,
                credentials.certificate.serial.hex,
                credentials.certificate.not_after.isoformat(),
            )
        return max(min(self._plan.at - self._clock.now(), self._longest_sleep), timedelta(0))

    @property
    def _longest_sleep(self) -> timedelta:
        return _LONGEST_SLEEP if self._is_asked is None else _ASKED_EVERY

    def _run(self) -> None:
        while not self._stopping:
            pause = self.step()
            if pause is None:
                return
            self._wake.wait(pause.total_seconds())
            self._wake.clear()

    def _schedule(self) -> _Plan:
        certificate = self._store.current.certificate
        return _Plan(next_renewal(certificate.not_before, certificate.not_after, rng=self._rng))

    def _put_off(self, error: Exception) -> None:
        now = self._clock.now()
        left = self._store.current.certificate.not_after - now
        attempt = self._plan.attempt + 1
        delay = retry_delay(attempt, left=left, rng=self._rng)
        self._plan = _Plan(now + delay, attempt)
        state = f"is valid for {_words(left)} more" if left > timedelta(0) else "HAS EXPIRED"
        _log.warning(
            "could not renew %s: %s; its certificate %s, trying again in %s",
            self._store.spiffe_id,
            error,
            state,
            _words(delay),
        )
        if attempt >= _ALARMING and self._on_alarm is not None:
            self._on_alarm(getattr(error, "reason", "internal"), left)

    def _save_if_needed(self) -> None:
        if not self._store.is_saved:
            try:
                self._store.save()
            except StorageUnavailable as error:
                _log.error(
                    "%s still runs on a certificate that is not on disk: %s", self._store.spiffe_id, error
                )

    def _end(self, error: Revoked) -> None:
        if self._on_revoked is not None:
            self._on_revoked(error)


def _words(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
