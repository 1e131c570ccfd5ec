"""One CA's CRLs: made when they are asked for and due, with numbers that never go back.

A complete CRL is due when it is older than its interval, or something changed. A delta CRL lists what
changed since the last *scheduled* complete CRL, its base; every complete CRL from the base on can be
combined with it (RFC 5280, 5.2.4).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.status.changes import StatusChanges
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.errors import NotFound
from fltrust.identity import Epoch
from fltrust.pki.crl import CrlDraft, sign_crl
from fltrust.pki.issuing import Issuer
from fltrust.pki.pointers import key_identifier_of
from fltrust.pki.profiles import BACKDATE
from fltrust.revocation.status import StatusState, removal_of

MAX_DELTA: Final = 2_000
"""Entries of a delta CRL; with more the next complete CRL is scheduled at once."""

_QUICK: Final = 0.05
_BUSY: Final = 20.0
"""A complete CRL that takes longer than `_QUICK` seconds is made again after this many times what it took."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCrl:
    """One signed list, as it is served."""

    der: bytes
    number: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class _Base:
    """The complete CRL that deltas refer to."""

    number: int
    epoch: Epoch
    this_update: datetime
    ends_from: datetime
    """Certificates that ended before are on it no more."""


@dataclass(frozen=True, slots=True)
class _Kept:
    crl: PublishedCrl
    changes: Epoch
    """What `StatusChanges` said before it was made."""
    made_at: float


class CrlPress:
    """Makes and keeps one CA's newest CRLs. For many threads; one at a time makes."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        ledger: Ledger,
        changes: StatusChanges,
        settings: StatusSettings,
    ) -> None:
        self.issuer = issuer
        """Its present certificate; `Issuer`s of the same key take each other's place."""
        self.key_id = key_identifier_of(issuer.certificate)
        self._ledger = ledger
        self._changes = changes
        self._settings = settings
        self._lock = threading.Lock()
        self._base: _Base | None = None
        self._complete: _Kept | None = None
        self._delta: _Kept | None = None
        self._is_delta_large = False
        self._took = 0.0

    def complete(self) -> PublishedCrl:
        """The newest complete CRL. The one before goes on being served while the next is made, and a large
        one is not made at every change: a list of 100,000 is some seconds behind, its delta never."""
        kept, took = self._complete, self._took
        if kept is not None and self._is_good(kept, pause=_BUSY * took if took > _QUICK else 0.0):
            return kept.crl
        if kept is not None and self._ledger.now() < kept.crl.next_update:
            if not self._lock.acquire(blocking=False):
                return kept.crl
        else:
            self._lock.acquire()
        try:
            if self._complete is kept:
                self._make_complete()
            assert self._complete is not None  # noqa: S101 - made here, or by whoever held the lock
            return self._complete.crl
        finally:
            self._lock.release()

    def delta(self) -> PublishedCrl:
        """The newest delta CRL, with everything that was acknowledged before it was asked for."""
        with self._lock:
            if self._base is None or self._is_scheduled_due():
                self._make_complete()
            if self._delta is None or not self._is_good(self._delta, pause=0.0):
                self._make_delta()
            assert self._delta is not None  # noqa: S101 - made in the line before
            return self._delta.crl

    def _is_good(self, kept: _Kept, *, pause: float) -> bool:
        """Whether there is no need for a newer one."""
        crl, now = kept.crl, self._ledger.now()
        life = crl.next_update - crl.this_update
        is_complete = kept is self._complete
        until = crl.this_update + BACKDATE + (self._settings.crl_interval if is_complete else life / 2)
        if not crl.this_update <= now < min(until, crl.next_update):
            return False
        if is_complete and self._is_scheduled_due():
            return False
        return kept.changes == self._changes.last() or self._ledger.monotonic() - kept.made_at < pause

    def _is_scheduled_due(self) -> bool:
        base, now = self._base, self._ledger.now()
        if base is None or self._is_delta_large:
            return True
        return not base.this_update <= now < base.this_update + BACKDATE + self._settings.crl_interval

    def _make_complete(self) -> None:
        """Make a complete CRL; a scheduled one is the next base, another comes with its delta.

        1. A number is taken, durably: no later list, after whatever crash and from whatever backup of the
           database, has the same or a lower one.
        2. Entries are read at one epoch. A certificate that ended leaves the list only after it stood on a
           scheduled CRL made later than that (RFC 5280, 3.3), and one lifetime of a CRL after its end.
        3. The list is signed; that it was scheduled is durable before it is shown.
        """
        began, changes = self._ledger.monotonic(), self._changes.last()
        base = None if self._is_scheduled_due() else self._base
        # 1.
        with self._ledger.writing() as work:
            number = work.tx.statuses.next_number(self.key_id, at_least=self._floor())
            scheduled_at = work.tx.statuses.progress(self.key_id).scheduled_at
        # 2.
        this_update = self._this_update()
        if base is None:
            last = scheduled_at or _BEGINNING
            ends_from = min(last, this_update - self._settings.crl_lifetime)
        else:
            ends_from = base.ends_from
        with self._ledger.reading() as tx:
            epoch, entries = tx.events.head, tx.statuses.entries(self.key_id, ends_from=ends_from)
        # 3.
        complete = self._sign(number, entries, this_update, base=None)
        if base is None:
            with self._ledger.writing() as work:
                work.tx.statuses.note_scheduled(self.key_id, this_update)
            self._base = _Base(number, epoch, this_update, ends_from)
            self._is_delta_large = False
        self._delta = None
        self._took = self._ledger.monotonic() - began
        self._complete = _Kept(complete, changes, self._ledger.monotonic())

    def _make_delta(self) -> None:
        """Make a delta CRL of everything that changed after the base, ended holds among it."""
        base, changes = self._base, self._changes.last()
        assert base is not None  # noqa: S101 - `delta` makes one
        with self._ledger.writing() as work:
            number = work.tx.statuses.next_number(self.key_id, at_least=self._floor())
        with self._ledger.reading() as tx:
            changed = tx.statuses.changed(self.key_id, after=base.epoch, ends_from=base.ends_from)
        entries = [
            removal_of(status) if status.state is StatusState.RELEASED else status.entry for status in changed
        ]
        delta = self._sign(number, entries, self._this_update(), base=base.number)
        self._is_delta_large = len(entries) > MAX_DELTA
        self._delta = _Kept(delta, changes, self._ledger.monotonic())

    def _sign(
        self, number: int, entries: list[bytes], this_update: datetime, *, base: int | None
    ) -> PublishedCrl:
        issuer, settings = self.issuer, self._settings
        if self._ledger.now() > issuer.certificate.not_valid_after_utc:
            raise NotFound(f"the CA {self.key_id} has ended, and with it every certificate under it")
        pointers = issuer.public_url
        life = settings.crl_lifetime if base is None else settings.delta_lifetime
        draft = CrlDraft(
            number=number,
            this_update=this_update,
            next_update=this_update + BACKDATE + life,
            base=base,
            point=pointers.crl(self.key_id) if settings.name_point and pointers is not None else None,
            freshest=None if pointers is None else pointers.delta(self.key_id),
        )
        der = sign_crl(draft, entries, certificate=issuer.certificate, signer=issuer.signer)
        return PublishedCrl(
            der=der, number=number, this_update=draft.this_update, next_update=draft.next_update
        )

    def _floor(self) -> int:
        """No number is below the second that it is taken in: so none goes back when the database does."""
        return int(self._ledger.now().timestamp())

    def _this_update(self) -> datetime:
        """Now, set back as certificates are, for relying parties whose clock is behind."""
        return self._ledger.now().astimezone(UTC).replace(microsecond=0) - BACKDATE
