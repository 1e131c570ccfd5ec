"""The current certificate and key of one identity, and TLS contexts that follow each rotation."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.agent.state import AgentState
from fltrust.clock import Clock
from fltrust.errors import CertificateRefused, Conflict, Refusal, Refused, StorageUnavailable
from fltrust.identity import SpiffeId
from fltrust.keys import FileSigner, Signer
from fltrust.keys.tls import load_pair
from fltrust.pki import (
    TrustBundle,
    VerifiedCertificate,
    bundle_to_pem,
    chain_to_pem,
    verify_certificate,
)
from fltrust.pki.federated import TrustSet, all_roots

_log = logging.getLogger("fltrust.agent")

_EXPIRED = (
    "an expired certificate cannot be renewed: ask an operator for a token with --replace and run "
    "'fltrust join' again; for an operator, 'fltrust coordinator operator NAME --replace' makes a new one"
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One key, the certificate for it, and the roots: always used together. Fits `wire.tls.TlsMaterial`."""

    signer: Signer = field(repr=False)
    certificate: VerifiedCertificate
    bundle: TrustBundle
    transport: Credentials | None = field(default=None, repr=False)
    """Where the key is in hardware: a second certificate of the same identity, for a key that lives in this
    process's memory alone, for the TLS of Python's `ssl`, which takes no other."""

    def __post_init__(self) -> None:
        if self.signer.key_id != self.certificate.key_id:
            raise CertificateRefused(
                f"expected the certificate of this key for {self.certificate.spiffe_id}, got another key's",
                reason=Refusal.WRONG_CERTIFICATE,
            )

    @classmethod
    def verified(
        cls,
        signer: Signer,
        chain: Sequence[bytes | x509.Certificate],
        *,
        bundle: TrustBundle,
        expect: SpiffeId | None,
        clock: Clock,
    ) -> Credentials:
        """Take credentials in only if they verify.

        1. The chain verifies against the bundle, now (`fltrust.pki.verify_certificate`).
        2. It is `expect`'s, if that is known, else ``unknown-identity``.
        3. Its key is ours, else ``wrong-certificate``.
        """
        certificate = verify_certificate(chain, bundle=bundle, at=clock.now())  # 1
        if expect is not None and certificate.spiffe_id != expect:  # 2
            raise CertificateRefused(
                f"expected a certificate of {expect}, got one of {certificate.spiffe_id}",
                reason=Refusal.UNKNOWN_IDENTITY,
            )
        return cls(signer, certificate, bundle)  # 3

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.certificate.spiffe_id

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """Leaf first, without the root: what a `SignedStatement` carries."""
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in self.certificate.chain)

    @property
    def chain_pem(self) -> bytes:
        return chain_to_pem(self.certificate.chain)

    @property
    def bundle_pem(self) -> bytes:
        return bundle_to_pem(self.bundle)

    @property
    def key_pem(self) -> bytes:
        """The secret itself, in PKCS#8, not encrypted: for this process's memory alone."""
        return self.file_signer.to_pem(None)

    @property
    def file_signer(self) -> FileSigner:
        """The key, where it can leave its home; `Refused` (``key-in-hardware``) where it cannot."""
        if not isinstance(self.signer, FileSigner):
            raise Refused(
                f"expected a key of {self.spiffe_id} that TLS can take, it is in hardware",
                reason="key-in-hardware",
                hint="gRPC to the coordinator works with it; what else needs TLS gets a key in memory once "
                "the agent has reached its coordinator",
            )
        return self.signer

    @property
    def hardware_signer(self) -> Signer | None:
        return None if isinstance(self.signer, FileSigner) else self.signer


class CredentialStore:
    """Holds the current credentials of one identity; safe to call from many threads.

    With a `state`, a rotation is written there. A disk that refuses does not stop a rotation: the
    new pair serves from memory, the old one on disk stays whole, and `save` tries again.
    """

    def __init__(self, credentials: Credentials, *, state: AgentState | None = None) -> None:
        self._current = credentials
        self._state = state
        self._saved = True
        self._lock = threading.Lock()
        self._rotating = threading.Lock()
        self._listeners: list[Callable[[Credentials], None]] = []
        self._foreign: tuple[TrustBundle, ...] = ()
        self._contexts: tuple[Credentials, ssl.SSLContext, ssl.SSLContext, ssl.SSLContext] | None = None

    @classmethod
    def load(cls, state: AgentState, *, clock: Clock) -> CredentialStore:
        """Read and verify what lies in `state`. An expired certificate raises `CertificateRefused`
        with what to do about it."""
        signer, chain = state.load_identity()
        try:
            credentials = Credentials.verified(
                signer, chain, bundle=state.load_bundle(), expect=state.spiffe_id, clock=clock
            )
        except CertificateRefused as error:
            if error.reason == Refusal.CERTIFICATE_EXPIRED and error.hint is None:
                error.hint = _EXPIRED
            raise
        return cls(credentials, state=state)

    @property
    def current(self) -> Credentials:
        """The pair in use now; hold on to it for as long as one piece of work takes."""
        with self._lock:
            return self._current

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.current.spiffe_id

    @property
    def signer(self) -> Signer:
        return self.current.signer

    @property
    def is_saved(self) -> bool:
        """Whether the current pair is on disk (or needs not be)."""
        with self._lock:
            return self._saved

    def rotate(self, credentials: Credentials) -> None:
        """Make these current, on disk and in memory, then tell the listeners in the caller's thread.

        Work that began with the old pair goes on with it: both are valid. Credentials of another
        identity raise `Conflict`.
        """
        with self._rotating:  # one rotation at a time, so that listeners see them in order
            if credentials.spiffe_id != self.current.spiffe_id:
                raise Conflict(f"expected credentials of {self.spiffe_id}, got {credentials.spiffe_id}'s")
            with self._lock:
                self._current = credentials
                self._saved = self._state is None
                listeners = tuple(self._listeners)
            try:
                self._save()
            except StorageUnavailable as error:
                _log.error("%s runs on a certificate that is not on disk yet: %s", self.spiffe_id, error)
            for listener in listeners:
                try:
                    listener(credentials)
                except Exception:  # the certificate is renewed, whatever a listener makes of it
                    _log.exception("a listener failed on the new certificate of %s", self.spiffe_id)

    def save(self) -> None:
        """Write the current pair if that is still to do; `StorageUnavailable` if the disk refuses."""
        with self._rotating:
            self._save()

    def on_rotate(self, listener: Callable[[Credentials], None]) -> Callable[[], None]:
        """Call `listener` after each rotation; returns the way to end it."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return unsubscribe

    @property
    def trust(self) -> TrustSet:
        """The bundle in use, and those of foreign domains whose participants may connect."""
        with self._lock:
            return TrustSet.of(self._current.bundle, self._foreign)

    def use_foreign(self, bundles: Sequence[TrustBundle]) -> None:
        """Let clients under these roots through the handshake too. Who they are is decided after it."""
        with self._lock:
            self._foreign = tuple(bundles)
            self._contexts = None

    def ssl_client_context(self, *, check_name: bool = True) -> ssl.SSLContext:
        """A TLS 1.3 context that shows the current certificate and trusts the bundle alone.

        Ask for it for every new connection: one taken earlier keeps the certificate of its time.
        The peer's name is checked: give `SpiffeId.dns_name` of whom you expect as `server_hostname`.
        Without `check_name` the peer is only known to be of our domain: verify its chain, for the role
        that you expect, before you send or believe a byte.
        """
        return self._current_contexts()[0 if check_name else 2]

    def ssl_server_context(self) -> ssl.SSLContext:
        """A TLS 1.3 context that requires client certificates and gives no session tickets.

        One context serves for the life of a listener: every handshake uses the certificate and
        the roots that are current then. No session can be resumed, so none outlives a revocation.
        """
        outer = _context(ssl.PROTOCOL_TLS_SERVER, self.current)

        def use_current(
            connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
        ) -> None:
            del name, context
            connection.context = self._current_contexts()[1]

        # Called on every ClientHello, with or without a server name. Swapping the whole context is atomic;
        # `load_cert_chain` on a live one is not: a handshake could see the new chain with the old key.
        outer.sni_callback = use_current
        return outer

    def _current_contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
        with self._lock:
            if self._contexts is None or self._contexts[0] is not self._current:
                self._contexts = (
                    self._current,
                    _context(ssl.PROTOCOL_TLS_CLIENT, self._current),
                    _context(ssl.PROTOCOL_TLS_SERVER, self._current, foreign=self._foreign),
                    _context(ssl.PROTOCOL_TLS_CLIENT, self._current, check_name=False),
                )
            return self._contexts[1:]

    def _save(self) -> None:
        current = self.current
        if self._state is None or self.is_saved:
            return
        self._state.store_identity(current.signer, current.certificate.chain, current.bundle)
        with self._lock:
            self._saved = True


def client_context(
    credentials: Credentials, bundle: TrustBundle, *, check_name: bool = True
) -> ssl.SSLContext:
    """A TLS 1.3 context that shows `credentials` and trusts `bundle` alone, which need not be their own."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, replace(credentials, bundle=bundle), check_name=check_name)


def _context(
    protocol: int,
    credentials: Credentials,
    *,
    check_name: bool = True,
    foreign: tuple[TrustBundle, ...] = (),
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not check_name:
        context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    roots = all_roots(TrustSet.of(credentials.bundle, foreign))
    context.load_verify_locations(cadata=roots.decode("ascii"))
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    shown = credentials.transport or credentials
    load_pair(context, shown.file_signer, shown.chain_pem)
    return context
