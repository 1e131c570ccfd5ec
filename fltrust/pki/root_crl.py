"""The root's own CRL: which issuing CAs and cross-certificates it revoked.

It is signed when the root's key is at hand, which is seldom, and so it is good for a year. Its number is the
second it was made in: it grows although nobody counts, on whatever machine the root's key is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fltrust.errors import Malformed
from fltrust.keys.signer import Signer
from fltrust.pki.ca_certificates import authority_key, require_key, whole_seconds
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.signing import SignerKey

ROOT_CRL_LIFETIME: Final = timedelta(days=366)


def create_root_crl(
    *,
    root: x509.Certificate,
    signer: Signer,
    now: datetime,
    revoked: Sequence[x509.RevokedCertificate] = (),
    lifetime: timedelta = ROOT_CRL_LIFETIME,
) -> x509.CertificateRevocationList:
    """Make the complete CRL of a root (RFC 5280, 5). `Conflict` for a signer that is not the root's."""
    require_key(root, signer)
    start = whole_seconds(now)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(start)
        .next_update(start + lifetime)
        .add_extension(x509.CRLNumber(int(start.timestamp())), critical=False)
        .add_extension(authority_key(root), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(SignerKey(signer), SHA256())


def revoked_entry(serial: int, *, at: datetime, reason: x509.ReasonFlags) -> x509.RevokedCertificate:
    """One line of a root's CRL."""
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(serial)
        .revocation_date(whole_seconds(at))
        .add_extension(x509.CRLReason(reason), critical=False)
        .build()
    )


def crl_from_der(der: bytes) -> x509.CertificateRevocationList:
    """Read a CRL; `Malformed` for anything else, or one without a number."""
    try:
        crl = x509.load_der_x509_crl(der)
        crl_number(crl)
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        raise Malformed("expected a CRL with a number in DER, found something else") from None
    return crl


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """The cRLNumber of a CRL; every CRL of ours has one."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
