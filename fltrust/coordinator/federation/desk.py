"""The foreign domains in force: asked on every call, loaded again after every change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger
from fltrust.enrollment.foreign import ForeignDomain, lent_identities
from fltrust.errors import CertificateRefused, Refusal
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.pki.federated import TrustSet
from fltrust.pki.types import TrustBundle, VerifiedCertificate

CALLING_ROLES = frozenset({Role.PARTICIPANT, Role.COORDINATOR})
"""Foreign identities that may call: participants that were admitted, and the coordinators, to watch."""

_log = logging.getLogger(__name__)


class FederationDesk:
    """What this coordinator knows of other domains. For many threads; owned by one `Authority`.

    The table is the truth: `reload` takes it in after a commit that changed it.
    """

    def __init__(self, *, ledger: Ledger, ca: CurrentCa) -> None:
        self._ledger = ledger
        self._ca = ca
        self._lock = threading.Lock()
        self._domains: dict[TrustDomain, ForeignDomain] = {}
        self._listeners: list[Callable[[], None]] = []
        self._trust = TrustSet(ca.bundle)
        self._roots = ca.bundle
        self.reload()
        ca.subscribe(lambda _now: self._rebuild())

    def reload(self) -> None:
        """Read the table again, and tell the listeners."""
        with self._ledger.reading() as tx:
            found = {record.domain: record for record in tx.foreign.all()}
        with self._lock:
            self._domains = found
            listeners = tuple(self._listeners)
        self._rebuild()
        for listener in listeners:
            listener()

    def trust(self) -> TrustSet:
        """Our bundle and those of the domains that are federated with. The same object until one changes."""
        return self._trust

    def handshake_roots(self) -> TrustBundle:
        """All roots under which a client may connect, as a TLS library takes them. It vouches for nobody."""
        return self._roots

    def of_record(self) -> tuple[TrustBundle, ...]:
        """Every foreign bundle, of domains that have ended too: what was sealed stays verifiable."""
        return tuple(record.bundle for record in self._domains.values())

    def get(self, domain: TrustDomain) -> ForeignDomain | None:
        """A domain that is federated with now."""
        found = self._domains.get(domain)
        return None if found is None or found.has_ended else found

    def active(self) -> tuple[ForeignDomain, ...]:
        return tuple(record for record in self._domains.values() if not record.has_ended)

    def shown_to(self, reader: SpiffeId) -> tuple[ForeignDomain, ...]:
        """The domains as `reader` may know them: a participant's are those that it is lent to, and who else
        is lent is told to operators alone."""
        if reader.role is Role.OPERATOR:
            return tuple(self._domains.values())
        return tuple(
            record
            for record in self.active()
            if reader.role is not Role.PARTICIPANT or reader.name in record.lent
        )

    def lent_to(self, domain: TrustDomain) -> frozenset[SpiffeId]:
        """The participants of ours whose standing the coordinator of `domain` is told."""
        found = self.get(domain)
        return frozenset() if found is None else lent_identities(self._ca.domain, found.lent)

    def judge(self, certificate: VerifiedCertificate) -> None:
        """Refuse a foreign certificate whose domain is not federated with (any more), or whose role calls
        nothing here."""
        who = certificate.spiffe_id
        if self.get(who.domain) is None:
            raise CertificateRefused(
                f"{who.domain} is not federated with {self._ca.domain}",
                reason=Refusal.WRONG_DOMAIN,
                hint="operators of both domains agree on it: fltrust federation --help",
            )
        if who.role not in CALLING_ROLES:
            raise CertificateRefused(
                f"expected a participant or the coordinator of {who.domain}, got {who}",
                reason=Refusal.WRONG_ROLE,
            )

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change; returns the way to end it."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return unsubscribe

    def _rebuild(self) -> None:
        with self._lock:
            home = self._ca.bundle
            bundles = tuple(record.bundle for record in self._domains.values() if not record.has_ended)
            self._trust = TrustSet.of(home, bundles)
            if not bundles:
                self._roots = home
                return
            roots = dict.fromkeys(root for bundle in (home, *bundles) for root in bundle.roots)
            self._roots = TrustBundle(home.domain, tuple(roots), home.sequence)
