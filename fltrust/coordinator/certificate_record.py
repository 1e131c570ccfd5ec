"""Is this a certificate that we issued? What is not on record was made by somebody with a CA's key."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.ports import Transaction
from fltrust.errors import CertificateRefused, Refusal
from fltrust.identity import Digest
from fltrust.pki.types import VerifiedCertificate

_REMEMBERED: Final = 20_000


class CertificateRecords:
    """Remembers which certificates were found on record: a record is never changed. For many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Digest, None] = OrderedDict()

    def knows(self, certificate: VerifiedCertificate) -> bool:
        """Whether it was found on record before, which costs no look into the database."""
        with self._lock:
            if certificate.fingerprint not in self._known:
                return False
            self._known.move_to_end(certificate.fingerprint)
            return True

    def check(self, certificate: VerifiedCertificate, tx: Transaction) -> None:
        """Return only if this very certificate, byte for byte, is on record; ``unknown-certificate``
        otherwise."""
        check_on_record(certificate, tx)
        with self._lock:
            self._known[certificate.fingerprint] = None
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def check_on_record(certificate: VerifiedCertificate, tx: Transaction) -> None:
    """Return only if this very certificate, byte for byte, is on record."""
    record = tx.certificates.by_serial(certificate.serial)
    der = certificate.leaf.public_bytes(Encoding.DER)
    if record is None or not hmac.compare_digest(record.der, der):
        raise CertificateRefused(
            f"expected a certificate of {certificate.spiffe_id} that was issued here, "
            f"{certificate.serial.hex} is not on record",
            reason=Refusal.UNKNOWN_CERTIFICATE,
            hint="tell the operators: somebody may hold the issuing CA's key",
        )
