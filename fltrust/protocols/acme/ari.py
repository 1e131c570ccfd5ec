"""Renewal information (RFC 9773): how a certificate is named, and when it should be renewed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from fltrust.errors import Malformed
from fltrust.identity import Serial
from fltrust.strictbase64 import from_base64url, to_base64url

MAX_ID = 128
RETRY_AFTER = timedelta(hours=6)
"""When to ask again."""
_FIRST, _LAST = 0.60, 0.75
"""The window, as parts of a certificate's life: wide, so that many do not come at once, and long before its
end, so that there is time for failures."""


@dataclass(frozen=True, slots=True)
class CertificateId:
    """A certificate by its issuer's key and its serial."""

    issuer: bytes
    """The keyIdentifier of its authorityKeyIdentifier."""
    serial: Serial

    def __str__(self) -> str:
        octets = int(self.serial).to_bytes(self.serial.bit_length() // 8 + 1, "big")
        return f"{to_base64url(self.issuer)}.{to_base64url(octets)}"


def read_id(text: str) -> CertificateId:
    """Read an id in its one form; `Malformed` otherwise."""
    issuer, dot, serial = text.partition(".")
    if len(text) > MAX_ID or not dot:
        raise Malformed("expected the id of a certificate as RFC 9773 writes it")
    found = CertificateId(
        from_base64url(issuer, "a key identifier"),
        Serial(int.from_bytes(from_base64url(serial, "a serial"), "big")),
    )
    if str(found) != text:
        raise Malformed("expected the id of a certificate in its one form")
    return found


def id_of(certificate: x509.Certificate) -> CertificateId:
    """The id of a certificate that names its issuer's key; `Malformed` otherwise."""
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        raise Malformed("expected a certificate with an authority key identifier") from None
    if issuer.key_identifier is None:
        raise Malformed("expected a certificate with an authority key identifier")
    return CertificateId(issuer.key_identifier, Serial(certificate.serial_number))


def suggested_window(
    *, not_before: datetime, not_after: datetime, now: datetime, at_once: bool
) -> tuple[datetime, datetime]:
    """When to renew: within the third quarter of its life, or at once (a window that has passed) for a
    certificate that is no good any more or whose CA is about to go."""
    if at_once:
        return now - timedelta(hours=2), now - timedelta(hours=1)
    life = not_after - not_before
    return not_before + life * _FIRST, not_before + life * _LAST
