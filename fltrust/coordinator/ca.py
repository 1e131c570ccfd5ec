"""The issuing CA and the trust bundle in force: replaced together, while everybody goes on reading them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from fltrust.errors import Conflict
from fltrust.identity import TrustDomain
from fltrust.pki.ca_certificates import is_issued_by
from fltrust.pki.issuing import Issuer, SvidIssuer
from fltrust.pki.types import TrustBundle
from fltrust.pki.upstream import UpstreamIssuer


@dataclass(frozen=True, slots=True)
class InForce:
    """One moment of a trust domain: who issues, and under which roots."""

    issuer: Issuer
    """Our own issuing CA: it signs what it alone can, and everything where there is no upstream."""
    bundle: TrustBundle
    upstream: UpstreamIssuer | None = None
    cross: tuple[x509.Certificate, ...] = ()
    """Roots of ours, certified by other roots of ours: for who knows only the other one yet."""

    former: tuple[x509.Certificate, ...] = ()
    """Roots that were in the bundle once: nobody new is believed under them, what was signed before is."""

    def above(self, issuing: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """What follows an issuing CA's certificate in a chain: its root as certified by roots of the bundle
        beside it, while there are any."""
        return tuple(
            cross
            for cross in self.cross
            if is_issued_by(issuing, cross) and any(is_issued_by(cross, root) for root in self.bundle.roots)
        )

    @property
    def svids(self) -> SvidIssuer:
        """Who issues to enrolled identities."""
        return self.issuer if self.upstream is None else self.upstream

    def __post_init__(self) -> None:
        if self.upstream is not None and self.upstream.domain != self.bundle.domain:
            raise Conflict(f"expected an upstream of {self.bundle.domain}, got {self.upstream.domain}'s")
        if self.issuer.domain != self.bundle.domain:
            raise Conflict(
                f"expected an issuer and a bundle of one trust domain, got {self.issuer.domain} and "
                f"{self.bundle.domain}"
            )


class CurrentCa:
    """What is in force now. Ask every time: what was in force a moment ago may have been replaced.

    Safe to read from many threads. Only `replace` changes it, after what it says is durable.
    """

    def __init__(
        self,
        issuer: Issuer,
        bundle: TrustBundle,
        *,
        upstream: UpstreamIssuer | None = None,
        cross: tuple[x509.Certificate, ...] = (),
        former: tuple[x509.Certificate, ...] = (),
    ) -> None:
        self._now = InForce(issuer, bundle, upstream, cross, former)
        self._lock = threading.Lock()
        self._listeners: list[Callable[[InForce], None]] = []

    @property
    def now(self) -> InForce:
        """Issuer and bundle of the same moment."""
        return self._now

    @property
    def issuer(self) -> Issuer:
        return self._now.issuer

    @property
    def bundle(self) -> TrustBundle:
        return self._now.bundle

    @property
    def domain(self) -> TrustDomain:
        return self._now.bundle.domain

    def replace(
        self,
        *,
        issuer: Issuer | None = None,
        bundle: TrustBundle | None = None,
        cross: tuple[x509.Certificate, ...] | None = None,
        former: tuple[x509.Certificate, ...] | None = None,
    ) -> InForce:
        """Put another issuer, bundle or both in force, then tell the listeners in this thread.

        `Conflict` for another trust domain, and for a bundle whose sequence is not higher.
        """
        with self._lock:
            before = self._now
            after = InForce(
                issuer or before.issuer,
                bundle or before.bundle,
                before.upstream,
                before.cross if cross is None else cross,
                before.former if former is None else former,
            )
            if after.issuer.domain != before.issuer.domain:
                raise Conflict(f"expected a CA of {before.issuer.domain}, got one of {after.issuer.domain}")
            if bundle is not None and bundle.sequence <= before.bundle.sequence:
                raise Conflict(
                    f"expected a bundle after sequence {before.bundle.sequence}, got {bundle.sequence}"
                )
            self._now = after
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(after)
        return after

    def subscribe(self, listener: Callable[[InForce], None]) -> Callable[[], None]:
        """Call `listener` after every replacement; returns the way to end it."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return unsubscribe
