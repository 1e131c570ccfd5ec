"""What relying parties see of a trust domain: its CRLs and OCSP answers, read by `cryptography`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from authority_world import Member, World
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from fltrust.identity import CaKeyId
from fltrust.pki.pointers import key_identifier_of

HOLD = x509.ReasonFlags.certificate_hold
REMOVED = x509.ReasonFlags.remove_from_crl


@dataclass(frozen=True)
class Listed:
    """One entry of a CRL."""

    reason: x509.ReasonFlags | None
    at: datetime
    invalid_since: datetime | None


def issuer_of(world: World) -> CaKeyId:
    return key_identifier_of(world.in_force.issuer.certificate)


def complete(world: World, issuer: CaKeyId | None = None) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(world.authority.status.complete_crl(issuer or issuer_of(world)).der)


def delta(world: World, issuer: CaKeyId | None = None) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(world.authority.status.delta_crl(issuer or issuer_of(world)).der)


def listed(crl: x509.CertificateRevocationList) -> dict[int, Listed]:
    """Entries by serial."""
    return {entry.serial_number: _listed(entry) for entry in crl}


def _listed(entry: x509.RevokedCertificate) -> Listed:
    found = {type(extension.value): extension.value for extension in entry.extensions}
    reason, since = found.get(x509.CRLReason), found.get(x509.InvalidityDate)
    return Listed(
        reason.reason if isinstance(reason, x509.CRLReason) else None,
        entry.revocation_date_utc,
        since.invalidity_date_utc if isinstance(since, x509.InvalidityDate) else None,
    )


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def base_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number


def combined(
    whole: x509.CertificateRevocationList, part: x509.CertificateRevocationList
) -> dict[int, Listed]:
    """What a relying party knows that puts a delta onto a complete CRL (RFC 5280, 6.3.3)."""
    assert base_number(part) <= number(whole) < number(part)
    found = {**listed(whole), **listed(part)}
    return {serial: entry for serial, entry in found.items() if entry.reason is not REMOVED}


def question(
    serial: int,
    issuer: x509.Certificate,
    *,
    nonce: bytes | None = None,
    algorithm: HashAlgorithm | None = None,
) -> bytes:
    digest = algorithm or SHA1()
    name, key = _hash(digest, issuer.subject.public_bytes()), _hash(digest, _point(issuer))
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, digest)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def _hash(algorithm: HashAlgorithm, data: bytes) -> bytes:
    import hashlib

    return hashlib.new("sha1" if isinstance(algorithm, SHA1) else "sha256", data).digest()


def _point(issuer: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import PublicFormat

    return issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def asked(world: World, serial: int, *, issuer: x509.Certificate | None = None) -> ocsp.OCSPResponse:
    by = issuer or world.in_force.issuer.certificate
    answer = world.authority.status.answer(question(serial, by, algorithm=SHA256()))
    return ocsp.load_der_ocsp_response(answer.der)


def leaf_serial(member: Member) -> int:
    return int(member.certificate.serial)


MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
