"""The trust state of the coordinator: what the store says, folded, at the epoch of the store.

The table is the truth and the state in memory its cache: it moves forward only by events read from
the table or committed to it, and where a commit's outcome is unknown it is read again before it is used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from fltrust.clock import Clock
from fltrust.coordinator.logbook import Logbook
from fltrust.coordinator.ports import Store, Transaction
from fltrust.enrollment.ports import CertificateRecord
from fltrust.errors import Unavailable
from fltrust.identity import CaKeyId, Epoch, KeyId, RunId, Serial, SpiffeId, TrustDomain
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.revocation.state import IdentityState, TrustState
from fltrust.revocation.status import take_in
from fltrust.tlog.entries import PrecertificateLeaf
from fltrust.tlog.ports import LoggedEntry, NewEntry

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """One writing transaction: its tables, the state at its start (read it, do not change it), its time."""

    tx: Transaction
    state: TrustState
    now: datetime
    book: Logbook
    emitted: list[TrustEvent] = field(default_factory=list)

    def emit(
        self,
        kind: EventKind,
        *,
        actor: SpiffeId | None,
        subject: SpiffeId | None = None,
        identity_wide: bool = False,
        serials: tuple[Serial, ...] = (),
        keys: tuple[KeyId, ...] = (),
        node_key: bytes | None = None,
        run_id: RunId | None = None,
        reason: RevocationReason | None = None,
        compromised_since: datetime | None = None,
        domain: TrustDomain | None = None,
        sequence: int | None = None,
        issuer: CaKeyId | None = None,
    ) -> TrustEvent:
        """Write an event as the next epoch, and into the log; it counts once the transaction commits."""
        event = TrustEvent(
            epoch=self.tx.events.head.next(),
            kind=kind,
            at=self.now,
            actor=actor,
            subject=subject,
            identity_wide=identity_wide,
            serials=serials,
            keys=keys,
            node_key=node_key,
            run_id=run_id,
            reason=reason,
            compromised_since=compromised_since,
            domain=domain,
            sequence=sequence,
            issuer=issuer,
        )
        self.tx.events.append(event)
        take_in(event, self.tx.statuses, home=self.book.domain)
        self.log(self.book.event(event))
        self.emitted.append(event)
        return event

    def log(self, entry: NewEntry) -> LoggedEntry:
        """Append an entry to the log and return it in its place."""
        return self.tx.tlog.append((entry,))[0]

    def check_issuer(self, issuing: x509.Certificate) -> None:
        """Return only if nothing was said against the CA that is about to issue; `Unavailable` otherwise.

        Between the commit that ends a CA and the moment its successor takes over (a full disk can make that
        long), and for an upstream that was ended, there is nobody to issue.
        """
        key = ca_key_id(issuing.public_key())
        if self.state.is_issuer_revoked(key, self.book.domain):
            raise Unavailable(
                f"expected an issuing CA that is good, {key} is revoked and no other has taken over yet",
                reason="issuer-ended",
                hint="try again in a moment; if it lasts, the coordinator's log says why",
            )

    def add_certificate(self, record: CertificateRecord) -> None:
        """Record a certificate that was issued, and log it."""
        self.tx.certificates.add(record)
        self.log(self.book.certificate(record, at=self.now))

    def add_precertificate(self, record: CertificateRecord, leaf: PrecertificateLeaf) -> LoggedEntry:
        """Record a certificate with an embedded SCT, and log what the SCT was signed over."""
        self.tx.certificates.add(record)
        return self.log(self.book.precertificate(leaf, record.spiffe_id, at=self.now))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what the block did, and nothing else of the transaction, if it raises."""
        emitted = len(self.emitted)
        try:
            with self.tx.attempt():
                yield
        except BaseException:
            del self.emitted[emitted:]
            raise


class Ledger:
    """Transactions over the store, with the trust state at hand; owned by one `Authority`."""

    def __init__(self, store: Store, clock: Clock, book: Logbook) -> None:
        self._store = store
        self._clock = clock
        self._book = book
        self._lock = threading.RLock()  # guards the state; never held while the store is written
        self._state = TrustState()
        self._doubts = 1  # commits whose outcome is unknown, and how many of them were looked into
        self._settled = 0
        self._listeners: list[Callable[[Epoch], None]] = []
        self._refresh()

    @contextmanager
    def writing(self) -> Iterator[Work]:
        """Run a writing transaction; when it is durable, the state moves on and listeners are told."""
        work: Work | None = None
        try:
            with self._store.writing() as tx:
                self._catch_up(tx)
                work = Work(tx, self._state, self._clock.now(), self._book)
                yield work
        except BaseException:
            # The commit may have taken place all the same: believe the table, not our memory.
            if work is not None and work.emitted:
                with self._lock:
                    self._doubts += 1
                self._tell()
            raise
        if work.emitted:
            with self._lock:
                for event in work.emitted:
                    if event.epoch == self._state.epoch.next():
                        self._state.apply(event)
            self._tell()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self._store.reading() as tx:
            yield tx

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def judge(self, certificate: VerifiedCertificate, *, is_on_record: bool = False) -> None:
        """`TrustState.judge` at the present epoch."""
        with self._present() as state:
            state.judge(certificate, is_on_record=is_on_record)

    def identities(self) -> Mapping[SpiffeId, IdentityState]:
        """How every enrolled identity stands at the present epoch."""
        with self._present() as state:
            return dict(state.identities)

    def is_domain_held(self, domain: TrustDomain) -> bool:
        """Whether nobody of this foreign domain is let in at the present epoch."""
        with self._present() as state:
            return state.is_domain_held(domain)

    @property
    def head(self) -> Epoch:
        with self._present() as state:
            return state.epoch

    def subscribe(self, callback: Callable[[Epoch], None]) -> Callable[[], None]:
        """Call `callback` after every commit that took epochs, from the writer's thread."""
        with self._lock:
            self._listeners.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return unsubscribe

    @contextmanager
    def _present(self) -> Iterator[TrustState]:
        if self._doubts != self._settled:
            self._refresh()
        with self._lock:
            yield self._state

    def _refresh(self) -> None:
        with self._lock:
            doubts = self._doubts  # before the snapshot: a doubt that arises later is not settled by it
        with self._store.reading() as tx:
            self._catch_up(tx)
        with self._lock:
            self._settled = max(self._settled, doubts)

    def _catch_up(self, tx: Transaction) -> None:
        with self._lock:
            if tx.events.head > self._state.epoch:
                for event in tx.events.read(self._state.epoch):
                    self._state.apply(event)

    def _tell(self) -> None:
        with self._lock:
            listeners, epoch = tuple(self._listeners), self._state.epoch
        for listener in listeners:
            try:
                listener(epoch)
            except Exception:  # one watcher's trouble is not the writer's, whose work is durable
                _log.exception("a listener of the trust feed failed")
