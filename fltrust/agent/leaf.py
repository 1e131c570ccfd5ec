"""A code-signing certificate and its key: made here, kept in memory alone, replaced before it runs out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import SigningDesk
from fltrust.clock import Clock
from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.identity import KeyId
from fltrust.keys import FileSigner, generate
from fltrust.pki import create_csr
from fltrust.pki.leaf import PARSE_ERRORS

_MARGIN = timedelta(seconds=60)
"""Not used in its last minute: clocks differ, and the countersignature comes a moment later."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key and the certificate for it, in DER."""

    signer: FileSigner = field(repr=False)
    certificate: bytes = field(repr=False)
    not_after: datetime


class SigningLeaf:
    """Gives a `Leaf` that is valid for another minute at least. Safe to call from many threads."""

    def __init__(self, desk: SigningDesk, *, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._lock = threading.Lock()
        self._leaf: Leaf | None = None

    def current(self) -> Leaf:
        """The one in use, or a new key with a new certificate from the coordinator."""
        with self._lock:
            if self._leaf is None or self._clock.now() + _MARGIN >= self._leaf.not_after:
                self._leaf = self._renewed()
            return self._leaf

    def countersigned(self, statement: bytes) -> bytes:
        """Sign a statement and have it countersigned; the Sigstore bundle."""
        leaf = self.current()
        envelope = SignedEnvelope.sign(statement, signer=leaf.signer)
        return self._desk.countersign(envelope.to_json(), leaf.certificate)

    def _renewed(self) -> Leaf:
        signer = generate()
        chain = self._desk.certify_signer(create_csr(signer))
        if not chain:
            raise Malformed("expected a code-signing certificate from the coordinator, got none")
        try:
            certificate = x509.load_der_x509_certificate(chain[0])
            spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except PARSE_ERRORS:
            raise Malformed("expected a code-signing certificate in DER from the coordinator") from None
        if KeyId.of_spki(spki) != signer.key_id:
            raise CertificateRefused(
                "expected a code-signing certificate for the key that was sent, got another key's",
                reason=Refusal.WRONG_CERTIFICATE,
            )
        return Leaf(signer, chain[0], certificate.not_valid_after_utc)
