"""Signed certificate timestamps (RFC 6962, section 3), as they stand embedded in a certificate.

A timestamp is the certificate log's promise that it has the precertificate: the issuer's key hash and the
TBSCertificate without the list of timestamps. Version 1, `precert_entry`, alone.

    signed:  version 0 · certificate_timestamp 0 · time (8) · precert_entry 1 (2)
             · SHA-256 of the issuer's SPKI (32) · TBS with 3 octets of length · extensions with 2
    stored:  version 0 · log id (32) · time (8) · extensions with 2 octets of length
             · hash 4 (SHA-256) · signature 3 (ECDSA) · signature with 2 octets of length
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from fltrust.clock import MAX_MILLISECONDS, from_milliseconds, to_milliseconds
from fltrust.errors import CertificateRefused, Malformed, Oversized, Refusal, SignatureInvalid
from fltrust.identity import KeyId
from fltrust.keys.openssh import spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import PublicKey, verify_with
from fltrust.pki.leaf import PARSE_ERRORS, refuse

SCT_LIST_OID: Final = ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS
_MAX_TBS = 2**24 - 1
_MAX_LIST = 8 * 1024
_MAX_TIMESTAMPS = 8
_ECDSA_SHA256 = b"\x04\x03"
_RSA_SHA256 = b"\x04\x01"


@dataclass(frozen=True, slots=True)
class SignedCertificateTimestamp:
    """One timestamp. Reading it proves nothing: `verify_embedded_sct` does."""

    log_id: bytes
    """SHA-256 of the log key's SubjectPublicKeyInfo."""
    timestamp_ms: int
    """Milliseconds since 1970: as it is signed, and as the log's leaf carries it."""
    signature: bytes
    extensions: bytes = b""
    algorithm: bytes = _ECDSA_SHA256

    @property
    def at(self) -> datetime:
        return from_milliseconds(self.timestamp_ms)


class TrustedLog(Protocol):
    """A certificate log that is trusted within a window, as a trusted root lists it."""

    @property
    def log_id(self) -> bytes: ...

    @property
    def public_key(self) -> PublicKey: ...

    def covers(self, at: datetime) -> bool:
        """Whether the log was trusted at this time."""
        ...


def log_id_of(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """The log id of a key: SHA-256 of its SubjectPublicKeyInfo (RFC 6962, 3.2)."""
    return bytes.fromhex(KeyId.of_spki(spki_der(public_key)))


def issuer_key_hash(issuer: x509.Certificate) -> bytes:
    """SHA-256 of the issuer's SubjectPublicKeyInfo: what binds a precertificate to its issuer."""
    spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return bytes.fromhex(KeyId.of_spki(spki))


def signed_data(*, key_hash: bytes, tbs: bytes, timestamp_ms: int, extensions: bytes = b"") -> bytes:
    """The bytes that the log signs for a precertificate (RFC 6962, 3.2: ``digitally-signed``)."""
    if len(key_hash) != 32:
        raise Malformed(f"expected an issuer key hash of 32 bytes, got {len(key_hash)}")
    if not 0 < len(tbs) <= _MAX_TBS:
        raise Oversized(f"expected a TBSCertificate of at most {_MAX_TBS} bytes, got {len(tbs)}")
    if not 0 <= timestamp_ms < 2**64:
        raise Malformed("expected milliseconds of 64 bits")
    return b"".join(
        (
            struct.pack(">BBQH", 0, 0, timestamp_ms, 1),
            key_hash,
            len(tbs).to_bytes(3, "big"),
            tbs,
            struct.pack(">H", len(extensions)),
            extensions,
        )
    )


def sign_sct(signer: Signer, *, key_hash: bytes, tbs: bytes, at: datetime) -> SignedCertificateTimestamp:
    """Promise, with the log's key, that this precertificate is in the log as of `at` (milliseconds)."""
    timestamp_ms = to_milliseconds(at)
    signature = signer.sign(signed_data(key_hash=key_hash, tbs=tbs, timestamp_ms=timestamp_ms))
    return SignedCertificateTimestamp(log_id_of(signer.public_key), timestamp_ms, signature)


def sct_extension(timestamps: Sequence[SignedCertificateTimestamp]) -> x509.UnrecognizedExtension:
    """The extension that embeds these timestamps in a certificate; it is not critical (RFC 6962, 3.3)."""
    encoded = b"".join(_prefixed(_encode(timestamp)) for timestamp in timestamps)
    if not 1 <= len(timestamps) <= _MAX_TIMESTAMPS or len(encoded) > _MAX_LIST:
        raise Oversized(f"expected 1 to {_MAX_TIMESTAMPS} certificate timestamps, got {len(timestamps)}")
    return x509.UnrecognizedExtension(SCT_LIST_OID, asn1.encode_der(_prefixed(encoded)))


def parse_sct_list(data: bytes) -> tuple[SignedCertificateTimestamp, ...]:
    """Read a SignedCertificateTimestampList; every length must come out even.

    Raises `Oversized` above 8 KiB or 8 timestamps, else `Malformed`: another version or algorithm,
    an empty list, a byte left over.
    """
    if len(data) > _MAX_LIST:
        raise Oversized(f"expected certificate timestamps of at most {_MAX_LIST} bytes, got {len(data)}")
    body, rest = _take(data)
    if rest or not body:
        raise Malformed("expected one list of certificate timestamps, found another length")
    found: list[SignedCertificateTimestamp] = []
    while body:
        if len(found) == _MAX_TIMESTAMPS:
            raise Oversized(f"expected at most {_MAX_TIMESTAMPS} certificate timestamps, found more")
        item, body = _take(body)
        found.append(_parse(item))
    return tuple(found)


def embedded_scts(certificate: x509.Certificate) -> tuple[SignedCertificateTimestamp, ...]:
    """The timestamps that a certificate carries; none if it carries no list.

    Raises `CertificateRefused` (``malformed``, ``oversized``) for a list that cannot be read.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(SCT_LIST_OID)
        content: bytes = asn1.decode_der(bytes, extension.value.public_bytes())
    except x509.ExtensionNotFound:
        return ()
    except PARSE_ERRORS as error:
        refuse(
            f"expected certificate timestamps that can be read, found {type(error).__name__}",
            reason=Refusal.MALFORMED,
        )
    try:
        return parse_sct_list(content)
    except (Malformed, Oversized) as error:
        raise CertificateRefused(error.message, reason=error.reason) from None


def verify_embedded_sct(
    leaf: x509.Certificate, issuer: x509.Certificate, ct_logs: Sequence[TrustedLog]
) -> datetime:
    """Return when a trusted log first promised `leaf`, or raise `CertificateRefused`.

    1. The leaf carries exactly one timestamp, else ``certificate-profile``; it reads strictly, else
       ``malformed`` or ``oversized``.
    2. Its log id is that of one of `ct_logs`, which is trusted at the timestamp, else
       ``certificate-path``.
    3. The log's key signed it over the leaf's TBSCertificate without the list, under `issuer`'s key,
       else ``signature-invalid``.

    Two logs may share an id (a key whose window was cut in two): any that fits will do.
    """
    # 1.
    timestamps = embedded_scts(leaf)
    if len(timestamps) != 1:
        refuse(f"expected one embedded certificate timestamp, found {len(timestamps)}")
    timestamp = timestamps[0]
    # 2.
    logs = [
        log
        for log in ct_logs
        if hmac.compare_digest(log.log_id, timestamp.log_id) and log.covers(timestamp.at)
    ]
    if not logs:
        refuse(
            f"expected a timestamp of a certificate log that is trusted at "
            f"{timestamp.at:%Y-%m-%dT%H:%M:%SZ}, got one of log {timestamp.log_id.hex()[:16]}…",
            reason=Refusal.CERTIFICATE_PATH,
        )
    # 3.
    try:
        tbs = leaf.tbs_precertificate_bytes
    except PARSE_ERRORS as error:
        refuse(f"expected a precertificate, found {type(error).__name__}", reason=Refusal.MALFORMED)
    data = signed_data(
        key_hash=issuer_key_hash(issuer),
        tbs=tbs,
        timestamp_ms=timestamp.timestamp_ms,
        extensions=timestamp.extensions,
    )
    wanted = _RSA_SHA256 if isinstance(logs[0].public_key, rsa.RSAPublicKey) else _ECDSA_SHA256
    try:
        if timestamp.algorithm != wanted:
            raise SignatureInvalid("expected the algorithm of the log's key")
        verify_with(logs[0].public_key, timestamp.signature, data)
    except SignatureInvalid:
        refuse(
            "expected the certificate timestamp to be signed by its log over this certificate, it is not",
            reason=Refusal.SIGNATURE_INVALID,
        )
    return timestamp.at


def _encode(timestamp: SignedCertificateTimestamp) -> bytes:
    return b"".join(
        (
            b"\x00",
            timestamp.log_id,
            timestamp.timestamp_ms.to_bytes(8, "big"),
            _prefixed(timestamp.extensions),
            timestamp.algorithm,
            _prefixed(timestamp.signature),
        )
    )


def _parse(data: bytes) -> SignedCertificateTimestamp:
    if len(data) < 43 or data[0] != 0:
        raise Malformed("expected a certificate timestamp of version 1, found another")
    log_id, timestamp_ms = data[1:33], int.from_bytes(data[33:41], "big")
    if timestamp_ms > MAX_MILLISECONDS:
        raise Malformed("expected a certificate timestamp before the year 10000")
    extensions, rest = _take(data[41:])
    algorithm, rest = rest[:2], rest[2:]
    if algorithm not in (_ECDSA_SHA256, _RSA_SHA256):
        raise Malformed("expected a certificate timestamp by ECDSA or RSA with SHA-256, found another")
    signature, rest = _take(rest)
    if rest or not signature:
        raise Malformed("expected a certificate timestamp of its stated length, found another")
    return SignedCertificateTimestamp(log_id, timestamp_ms, signature, extensions, algorithm)


def _prefixed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """Split off one vector with two octets of length."""
    if len(data) < 2 or len(data) < 2 + (length := int.from_bytes(data[:2], "big")):
        raise Malformed("expected a vector of its stated length, found it cut short")
    return data[2 : 2 + length], data[2 + length :]
