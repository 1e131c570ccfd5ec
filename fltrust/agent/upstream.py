"""One connection to the superlink: our certificate shown, the aggregator's checked, before a byte passes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from fltrust.clock import Clock
from fltrust.errors import CertificateRefused, Refusal, Unavailable
from fltrust.identity import Role, SpiffeId
from fltrust.keys.tls import presented_chain
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import verify_certificate
from fltrust.revocation.view import TrustView

CONNECT_TIMEOUT = 10.0
"""Seconds to reach the superlink, and again for the handshake."""

FRESH_TIMEOUT = 5.0
"""Seconds that a dial waits for a trust view which is not current yet, or not any more."""

_SAYING = {
    "CERTIFICATE_EXPIRED": "says that our certificate has expired",
    "CERTIFICATE_REVOKED": "says that our certificate is revoked",
    "CERTIFICATE_REQUIRED": "asks for a certificate that we do not have",
    "UNKNOWN_CA": "does not know the CA of our certificate: is it of this trust domain?",
    "BAD_CERTIFICATE": "does not accept our certificate",
    "CERTIFICATE_UNKNOWN": "does not accept our certificate",
    "ACCESS_DENIED": "refuses this participant",
    "PROTOCOL_VERSION": "does not speak TLS 1.3",
    "HANDSHAKE_FAILURE": "has no cipher or curve in common with us",
}


class RelayPair(Protocol):
    """The part of the agent's credentials that is looked at here."""

    @property
    def certificate(self) -> VerifiedCertificate: ...

    @property
    def bundle(self) -> TrustBundle: ...


class RelayCredentials(Protocol):
    """What the relay needs of the agent's credentials (`fltrust.agent.credentials.CredentialStore`)."""

    @property
    def current(self) -> RelayPair:
        """What is in use now."""
        ...

    def ssl_client_context(self, *, check_name: bool = True) -> ssl.SSLContext:
        """A TLS 1.3 context that shows the current certificate and trusts the bundle alone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """An open connection, whose certificate we showed on it, and who answered."""

    socket: ssl.SSLSocket
    ours: VerifiedCertificate
    theirs: VerifiedCertificate


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens connections to one superlink.

    `aggregator` is who must answer; None takes any aggregator of our domain that stands well.
    """

    address: tuple[str, int]
    credentials: RelayCredentials
    view: TrustView
    clock: Clock
    aggregator: SpiffeId | None = None

    def dial(self) -> Upstream:
        """Connect, or raise `Revoked`, `CertificateRefused`, `StaleView` or `Unavailable`.

        1. The trust view is as fresh as its policy asks, waiting a little for it.
        2. Our own certificate stands well in it.
        3. TLS 1.3: the server's path leads to a root of the bundle, and it carries the DNS name of
           `aggregator`, if one is named.
        4. What it showed verifies as an aggregator's certificate, of our domain, good as a server's
           (`fltrust.pki.verify_certificate`), and is `aggregator`'s, if one is named.
        5. That aggregator stands well in the trust view.
        """
        self._await_fresh_view()  # 1
        # Before the context is taken: should a rotation fall between the two, the connection counts as
        # the older certificate's and is renewed a little early.
        current = self.credentials.current
        self.view.judge(current.certificate)  # 2
        connection = self._handshake()  # 3
        try:
            theirs = verify_aggregator(  # 4
                connection, bundle=current.bundle, clock=self.clock, aggregator=self.aggregator
            )
            self.view.judge(theirs)  # 5
        except BaseException:  # whatever it was, an unverified connection is not left open
            connection.close()
            raise
        return Upstream(connection, current.certificate, theirs)

    @property
    def where(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def describe(self, error: ssl.SSLError) -> str:
        """Say what the superlink's TLS alert means, in words."""
        name = (error.reason or "").upper()
        for alert, saying in _SAYING.items():
            if alert in name:
                return f"the superlink at {self.where} {saying} ({name})"
        return f"the TLS connection to the superlink at {self.where} failed ({name or error.strerror})"

    def _await_fresh_view(self) -> None:
        if self.view.age() > self.view.policy.bound:
            bound = self.view.policy.bound
            self.view.wait_until(lambda _: self.view.age() <= bound, FRESH_TIMEOUT)
        self.view.require_fresh()

    def _handshake(self) -> ssl.SSLSocket:
        name = None if self.aggregator is None else self.aggregator.dns_name
        context = self.credentials.ssl_client_context(check_name=name is not None)
        try:
            plain = socket.create_connection(self.address, timeout=CONNECT_TIMEOUT)
        except OSError as error:
            raise Unavailable(
                f"the superlink at {self.where} is not reachable: {error.strerror or error}",
                reason="superlink-unreachable",
            ) from None
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return context.wrap_socket(plain, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise CertificateRefused(
                f"expected {self.aggregator or 'an aggregator'} at {self.where}, "
                f"its certificate does not verify: {error.verify_message}",
                hint="is this the superlink of your federation, started with 'fltrust superlink'?",
            ) from None
        except ssl.SSLError as error:
            plain.close()
            raise Unavailable(self.describe(error), reason="superlink-refused") from None
        except OSError as error:
            plain.close()
            raise Unavailable(
                f"the superlink at {self.where} broke off the TLS handshake: {error.strerror or error}",
                reason="superlink-unreachable",
                hint="is it 'fltrust superlink', and is this the Fleet API's port?",
            ) from None


def verify_aggregator(
    connection: ssl.SSLSocket, *, bundle: TrustBundle, clock: Clock, aggregator: SpiffeId | None
) -> VerifiedCertificate:
    """Return whose server answered on a connection just made; `CertificateRefused` unless it is an aggregator
    of the bundle's domain, and `aggregator` where one is named. Its standing is judged separately."""
    theirs = verify_certificate(
        presented_chain(connection),
        bundle=bundle,
        at=clock.now(),
        expect_role=Role.AGGREGATOR,
        purpose="server",
    )
    if aggregator is not None and theirs.spiffe_id != aggregator:
        raise CertificateRefused(
            f"expected {aggregator} to answer, got {theirs.spiffe_id}", reason=Refusal.UNKNOWN_IDENTITY
        )
    return theirs
