"""Who is calling: decided afresh on every call, by certificate and epoch, never by the handshake alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.federation.desk import CALLING_ROLES, FederationDesk
from fltrust.coordinator.session import Caller
from fltrust.errors import CertificateRefused, Oversized, Refusal, Unauthenticated
from fltrust.pki.federated import TrustSet, verify_among
from fltrust.pki.types import VerifiedCertificate
from fltrust.pki.verify import CLOCK_SKEW, MAX_CERTIFICATE, MAX_CHAIN

TLS_VERSION = "TLSv1.3"
_MAX_PEM = 2 * MAX_CERTIFICATE * MAX_CHAIN
_CACHED = 8_192

AuthContext = Mapping[str, Iterable[bytes]]


class BundleSource(Protocol):
    """The part of the authority that is needed here."""

    @property
    def ca(self) -> CurrentCa: ...

    @property
    def federation(self) -> FederationDesk: ...


def check_tls(context: AuthContext) -> None:
    """Raise `Unauthenticated` unless the connection speaks TLS 1.3.

    gRPC has no switch for the least version that is public in Python, so TLS 1.2 gets through the
    handshake, and no further.
    """
    version = _text(context, "ssl_tls_version")
    if version != TLS_VERSION:
        raise Unauthenticated(
            f"expected {TLS_VERSION}, got {version[:20] or 'a connection without TLS'}",
            reason="tls-version",
            hint="use a client that speaks TLS 1.3",
        )


class Gate:
    """Turns a connection's certificate into a `Caller`.

    1. The connection speaks TLS 1.3 (``tls-version``).
    2. It showed a certificate, which verifies against our bundle now, or against that of the foreign domain
       that it claims: path, domain, time, profile, good as a client's (`verify_among`). The path of a
       certificate seen before is not built again; its time is checked on every call.

    What its role may call (`check_permission`) and how it stands at the present epoch (`Authority.judge`)
    is decided right after, and again inside the transaction of the call.
    """

    def __init__(self, authority: BundleSource, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._seen: OrderedDict[bytes, VerifiedCertificate] = OrderedDict()
        self._trust: TrustSet | None = None

    def identify(self, context: AuthContext) -> Caller:
        """Name the caller, or raise."""
        check_tls(context)  # 1
        leaf = next(iter(context.get("x509_pem_cert", ())), b"")
        if not leaf:
            raise Unauthenticated(
                "expected a client certificate, got none",
                hint="run 'fltrust join' first; enrolling is the bootstrap port's",
            )
        rest = next(iter(context.get("x509_pem_cert_chain", ())), b"")
        return Caller.of(self._verify(leaf, lambda: _certificates(leaf, rest)))  # 2

    def identify_chain(self, chain: tuple[bytes, ...]) -> Caller:
        """As `identify`, by the chain (DER, leaf first) of a connection of ours that spoke TLS 1.3.

        The issuing CA that is in force is added to a leaf that came alone. A foreign domain's is refused.
        """
        if not chain:
            raise Unauthenticated(
                "expected a client certificate, got none", hint="use the certificate of an operator"
            )
        if len(chain) == 1:
            chain = (*chain, self._authority.ca.issuer.certificate.public_bytes(Encoding.DER))
        caller = Caller.of(self._verify(chain[0], lambda: chain))
        if caller.spiffe_id.domain != self._authority.ca.domain:
            raise CertificateRefused(
                f"expected a certificate of {self._authority.ca.domain}, got one of {caller.spiffe_id}",
                reason=Refusal.WRONG_DOMAIN,
            )
        return caller

    def _verify(
        self, leaf: bytes, chain: Callable[[], Sequence[bytes | x509.Certificate]]
    ) -> VerifiedCertificate:
        trust, now = self._authority.federation.trust(), self._clock.now()
        if trust is not self._trust:
            self._trust = trust
            self._seen.clear()
        known = self._seen.get(leaf)
        if known is not None and known.not_before - CLOCK_SKEW <= now <= known.not_after:
            self._seen.move_to_end(leaf)
            return known
        verified = verify_among(chain(), trust=trust, at=now, purpose="client", foreign_roles=CALLING_ROLES)
        self._seen[leaf] = verified
        if len(self._seen) > _CACHED:
            self._seen.popitem(last=False)
        return verified


def _certificates(leaf: bytes, rest: bytes) -> list[x509.Certificate]:
    """The leaf, then what else was shown; gRPC gives the leaf apart, with or without it in the chain."""
    if len(leaf) + len(rest) > _MAX_PEM or rest.count(b"-----BEGIN ") > MAX_CHAIN:
        raise Oversized(f"expected a chain of at most {MAX_CHAIN} certificates, got more")
    try:
        first = x509.load_pem_x509_certificate(leaf)
        others = x509.load_pem_x509_certificates(rest) if rest else []
    except ValueError as error:
        raise CertificateRefused(
            f"expected a certificate, found {type(error).__name__} on reading it", reason=Refusal.MALFORMED
        ) from None
    der = first.public_bytes(Encoding.DER)
    return [first, *(other for other in others if other.public_bytes(Encoding.DER) != der)]


def _text(context: AuthContext, key: str) -> str:
    return next(iter(context.get(key, ())), b"").decode("ascii", "replace")
