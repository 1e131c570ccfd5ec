"""The coordinator's own identity: issued from its CA at start, with a key that never touches a disk."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.coordinator.ca import CurrentCa
from fltrust.identity import Role, SpiffeId
from fltrust.keys.file import FileSigner, generate
from fltrust.pki.bundle import chain_to_pem
from fltrust.pki.issuing import Draft, Issuer
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import verify_certificate


@dataclass(frozen=True, slots=True)
class CoordinatorIdentity:
    """A key with its certificate: it serves TLS and signs receipts."""

    signer: FileSigner
    chain_der: tuple[bytes, ...]
    certificate: VerifiedCertificate

    @property
    def chain_pem(self) -> bytes:
        """Leaf first, without the root: what a TLS server shows."""
        return chain_to_pem([x509.load_der_x509_certificate(der) for der in self.chain_der])

    def key_pem(self) -> bytes:
        """The private key, in the clear, for a TLS library in this process. Hand it over and drop it."""
        return self.signer.to_pem(None)


def issue_identity(
    issuer: Issuer,
    bundle: TrustBundle,
    *,
    clock: Clock,
    lifetime: timedelta | None = None,
    dns_names: tuple[str, ...] = (),
    above: tuple[x509.Certificate, ...] = (),
) -> CoordinatorIdentity:
    """Issue the coordinator a certificate for a new key; it is verified before it is returned.

    `dns_names` stand in it beside its own, for clients of other makes that look for the host they dialled;
    what is `above` the issuing CA's certificate is shown with it (`InForce.above`).
    """
    who, signer, now = SpiffeId(issuer.domain, Role.COORDINATOR, None), generate(), clock.now()
    lifetime = lifetime or issuer.profiles.leaves[Role.COORDINATOR].default_lifetime
    leaf = issuer.redeem(Draft.of(who, signer.public_key, now=now, lifetime=lifetime, dns_names=dns_names))
    chain = tuple(c.public_bytes(Encoding.DER) for c in (leaf, issuer.certificate, *above))
    certificate = verify_certificate(
        chain, bundle=bundle, at=now, expect_role=Role.COORDINATOR, purpose="server"
    )
    return CoordinatorIdentity(signer, chain, certificate)


class IdentityKeeper:
    """The present identity, replaced at two thirds of its life and with its issuing CA; for many threads.

    Whoever serves with it asks again and again, and takes a new one to the authority and to its ports.
    """

    def __init__(
        self,
        ca: CurrentCa,
        *,
        clock: Clock,
        lifetime: timedelta | None = None,
        dns_names: tuple[str, ...] = (),
    ) -> None:
        self._ca = ca
        self._dns_names = dns_names
        self._clock = clock
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._identity = self._issue()
        self._due = self._due_at()

    @property
    def current(self) -> CoordinatorIdentity:
        """The identity to use now; renews it first when that is due."""
        with self._lock:
            if self._is_superseded() or self._clock.now() >= self._due:
                self._identity = self._issue()
                self._due = self._due_at()
            return self._identity

    @property
    def due(self) -> datetime:
        """When `current` will renew."""
        with self._lock:
            return self._due

    def _is_superseded(self) -> bool:
        """Whether its issuing CA was replaced, or what is shown with it."""
        ca = self._ca.now
        issuing = ca.issuer.certificate
        chain = tuple(c.public_bytes(Encoding.DER) for c in (issuing, *ca.above(issuing)))
        return self._identity.chain_der[1:] != chain

    def _issue(self) -> CoordinatorIdentity:
        ca = self._ca.now
        return issue_identity(
            ca.issuer,
            ca.bundle,
            clock=self._clock,
            lifetime=self._lifetime,
            dns_names=self._dns_names,
            above=ca.above(ca.issuer.certificate),
        )

    def _due_at(self) -> datetime:
        certificate, now = self._identity.certificate, self._clock.now()
        jitter = random.uniform(0.60, 0.67)  # noqa: S311 (spreads load, guards nothing)
        return now + (certificate.not_after - now) * jitter
