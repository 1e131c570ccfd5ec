"""OCSP (RFC 6960, with the nonce of RFC 9654): questions read, answers signed by a delegated responder.

Pure but for the key: what is known of a certificate is given as a `Status`, and the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import sha1, sha256, sha384, sha512
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp as pyca

from fltrust.errors import Conflict, Malformed, Oversized
from fltrust.identity import Serial
from fltrust.keys.signer import Signer
from fltrust.pki import rfc6960
from fltrust.pki.crl import CrlReason
from fltrust.pki.responder import check_responder_profile
from fltrust.pki.rfc3161 import ECDSA_WITH_SHA256, SHA256, SHA384, SHA512, Algorithm, as_tlv, general_time

MAX_REQUEST: Final = 16 * 1024
"""Bytes of a request; one about one certificate has about 100."""
MAX_ASKED: Final = 32
"""Certificates in one request."""
MAX_NONCE: Final = 128
"""Octets (RFC 9654, 2.1)."""

_HASHES = {rfc6960.SHA1: sha1, SHA256: sha256, SHA384: sha384, SHA512: sha512}
_SIGNATURE = Algorithm(algorithm=ECDSA_WITH_SHA256, parameters=None)
_SUCCESSFUL = as_tlv(b"\x0a\x01\x00")
_BY_CODE = {int(reason): as_tlv(b"\x0a\x01" + bytes((reason,))) for reason in CrlReason}


class CertStatus(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of one certificate; `since` and `reason` are of a revoked one."""

    value: CertStatus
    since: datetime | None = None
    reason: CrlReason = CrlReason.UNSPECIFIED


GOOD: Final = Status(CertStatus.GOOD)
UNKNOWN: Final = Status(CertStatus.UNKNOWN)


class OcspFailure(IntEnum):
    """OCSPResponseStatus of an answer that says nothing (RFC 6960, 4.2.1)."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


def failure(why: OcspFailure) -> bytes:
    """An unsigned answer that says why there is none, in DER."""
    status = pyca.OCSPResponseStatus(int(why))
    return pyca.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks: certificates by their ids, in order, and the nonce to send back."""

    asked: tuple[rfc6960.CertId, ...]
    nonce: bytes | None


def read_request(der: bytes) -> Question:
    """Read an OCSPRequest in DER, or raise `Malformed` (`Oversized` above `MAX_REQUEST`, before parsing).

    1. Version 1, 1 to `MAX_ASKED` certificates. A requestor's name and signature are not looked at: what is
       answered is public.
    2. An extension that is critical and not the nonce is refused; others are passed over (RFC 6960, 4.4).
    3. A nonce has 1 to 128 octets (RFC 9654, 2.1), and there is at most one.
    """
    if len(der) > MAX_REQUEST:
        raise Oversized(f"expected an OCSP request of at most {MAX_REQUEST} bytes, got {len(der)}")
    try:
        tbs = asn1.decode_der(rfc6960.OcspRequest, der).tbs
    except ValueError:
        raise Malformed("expected an OCSP request in DER, got something else") from None
    # 1.
    if tbs.version not in (None, 0) or not 1 <= len(tbs.requests) <= MAX_ASKED:
        raise Malformed(f"expected version 1 and 1 to {MAX_ASKED} certificates in an OCSP request")
    # 2.
    nonces = [found.value for found in tbs.extensions or () if found.oid == rfc6960.NONCE]
    others = [found for found in tbs.extensions or () if found.oid != rfc6960.NONCE]
    for extension in (*others, *(e for request in tbs.requests for e in request.extensions or ())):
        if extension.critical:
            raise Malformed(f"expected no critical extension {extension.oid.dotted_string} in OCSP")
    # 3.
    if len(nonces) > 1:
        raise Malformed("expected one nonce in an OCSP request, got several")
    return Question(tuple(request.cert_id for request in tbs.requests), _nonce(nonces[0]) if nonces else None)


def _nonce(value: bytes) -> bytes:
    try:
        octets: bytes = asn1.decode_der(bytes, value)
    except ValueError:
        raise Malformed("expected the nonce as an OCTET STRING") from None
    if not 1 <= len(octets) <= MAX_NONCE:
        raise Malformed(f"expected a nonce of 1 to {MAX_NONCE} octets, got {len(octets)}")
    return octets


class CaNames:
    """One CA as requests name it: digests of its name and of its key, under every algorithm we take."""

    def __init__(self, certificate: x509.Certificate) -> None:
        name, key = certificate.subject.public_bytes(), _key_bits(certificate)
        self._digests: Mapping[x509.ObjectIdentifier, tuple[bytes, bytes]] = {
            oid: (digest(name).digest(), digest(key).digest()) for oid, digest in _HASHES.items()
        }

    def is_meant_by(self, cert_id: rfc6960.CertId) -> bool:
        """Whether the certificate that is asked about would be of this CA."""
        found = self._digests.get(cert_id.hash_algorithm.algorithm)
        return found == (cert_id.issuer_name_hash, cert_id.issuer_key_hash)


def serial_of(cert_id: rfc6960.CertId) -> Serial | None:
    """The serial that is asked about; None for a number that no certificate can have."""
    try:
        return Serial(cert_id.serial)
    except Malformed:
        return None


class Responder:
    """Signs answers for one CA with a key that the CA delegated (RFC 6960, 4.2.2.2). For many threads."""

    def __init__(self, *, certificate: x509.Certificate, signer: Signer) -> None:
        if certificate.public_key() != signer.public_key:
            raise Conflict("expected the key of the OCSP responder's certificate, got another key")
        check_responder_profile(certificate)
        self.certificate = certificate
        self._signer = signer
        self._key_hash = sha1(_key_bits(certificate)).digest()  # noqa: S324 - KeyHash is SHA-1 (4.2.1)

    def is_valid_at(self, at: datetime) -> bool:
        return self.certificate.not_valid_before_utc <= at <= self.certificate.not_valid_after_utc

    def answer(
        self,
        statuses: Sequence[tuple[rfc6960.CertId, Status]],
        *,
        at: datetime,
        lifetime: timedelta,
        nonce: bytes | None = None,
        is_ca_revoked: bool = False,
    ) -> bytes:
        """Sign what is known, as of `at`, good for `lifetime`, but not past the responder's certificate.

        `is_ca_revoked` says that *revoked* is also said of what was never issued (RFC 6960, 4.4.8).
        """
        until = min(at + lifetime, self.certificate.not_valid_after_utc)
        extensions = []
        if nonce is not None:
            extensions.append(
                rfc6960.Extension(oid=rfc6960.NONCE, critical=False, value=asn1.encode_der(nonce))
            )
        if is_ca_revoked:
            extensions.append(
                rfc6960.Extension(oid=rfc6960.EXTENDED_REVOKE, critical=False, value=b"\x05\x00")
            )
        tbs = asn1.encode_der(
            rfc6960.ResponseData(
                responder_key_hash=self._key_hash,
                produced_at=general_time(at),
                responses=[_single(cert_id, status, at, until) for cert_id, status in statuses],
                extensions=extensions or None,
            )
        )
        basic = rfc6960.BasicResponse(
            tbs=as_tlv(tbs),
            algorithm=_SIGNATURE,
            signature=asn1.BitString(self._signer.sign(tbs), 0),
            certificates=[self.certificate],
        )
        content = rfc6960.ResponseBytes(type=rfc6960.BASIC_RESPONSE, response=asn1.encode_der(basic))
        return asn1.encode_der(rfc6960.OcspResponse(status=_SUCCESSFUL, content=content))


def _single(cert_id: rfc6960.CertId, status: Status, at: datetime, until: datetime) -> rfc6960.SingleResponse:
    since = None if status.since is None else general_time(status.since)
    is_plain = status.reason is CrlReason.UNSPECIFIED
    return rfc6960.SingleResponse(
        cert_id=cert_id,
        good=asn1.Null() if status.value is CertStatus.GOOD else None,
        revoked_since=rfc6960.RevokedSince(time=since) if since is not None and is_plain else None,
        revoked_for=(
            rfc6960.RevokedFor(time=since, reason=_BY_CODE[int(status.reason)])
            if since is not None and not is_plain
            else None
        ),
        unknown=asn1.Null() if status.value is CertStatus.UNKNOWN else None,
        this_update=general_time(at),
        next_update=general_time(until),
    )


def _key_bits(certificate: x509.Certificate) -> bytes:
    """The key's BIT STRING without tag, length and unused bits: the point, where it is one."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return bytes(asn1.decode_der(_Spki, spki).key.as_bytes())


@asn1.sequence
class _Spki:
    algorithm: asn1.TLV
    key: asn1.BitString
