"""Certificates in the log: `MerkleTreeLeaf` of RFC 6962, section 3.4, built and read back.

struct {
    Version version;             0 = v1
    MerkleLeafType leaf_type;    0 = timestamped_entry
    uint64 timestamp;            milliseconds since 1970, UTC
    LogEntryType entry_type;     0 = x509_entry, 1 = precert_entry
    ASN.1Cert certificate<1..2^24-1>;                                     (x509_entry)
    opaque issuer_key_hash[32]; TBSCertificate tbs_certificate<1..2^24-1>;  (precert_entry)
    CtExtensions extensions<0..2^16-1>;
}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.clock import MAX_MILLISECONDS, from_milliseconds
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.tlog.ports import MAX_ENTRY

LEAF_PREFIX = b"\x00\x00"
"""version and leaf_type; JSON never starts so."""

_X509, _PRECERT = 0, 1


@dataclass(frozen=True, slots=True)
class CertificateLeaf:
    """An x509_entry: the whole certificate in DER. `timestamp_ms` is that of its SCT, if it got one."""

    timestamp_ms: int
    certificate: bytes
    extensions: bytes = b""

    @property
    def at(self) -> datetime:
        return from_milliseconds(self.timestamp_ms)

    @property
    def fingerprint(self) -> Digest:
        return Digest.sha256_of(self.certificate)

    def read(self) -> x509.Certificate:
        """The certificate, parsed; `Malformed` if it is none. Its fields are parsed on first use."""
        return _load(self.certificate)

    def encode(self) -> bytes:
        return _frame(self.timestamp_ms, _X509, _vector(self.certificate, 3), self.extensions)


@dataclass(frozen=True, slots=True)
class PrecertificateLeaf:
    """A precert_entry: what a certificate with an embedded SCT says, without the SCT (RFC 6962, 3.2)."""

    timestamp_ms: int
    issuer_key_hash: bytes
    """SHA-256 of the issuer's SubjectPublicKeyInfo."""
    tbs_certificate: bytes
    extensions: bytes = b""

    @property
    def at(self) -> datetime:
        return from_milliseconds(self.timestamp_ms)

    def read(self) -> x509.Certificate:
        """The TBSCertificate as a certificate whose signature is empty, for reading its fields alone."""
        return _load(_unsigned(self.tbs_certificate))

    def encode(self) -> bytes:
        if len(self.issuer_key_hash) != sha256().digest_size:
            raise Malformed(f"expected an issuer key hash of 32 bytes, got {len(self.issuer_key_hash)}")
        body = self.issuer_key_hash + _vector(self.tbs_certificate, 3)
        return _frame(self.timestamp_ms, _PRECERT, body, self.extensions)


def parse_leaf(data: bytes) -> CertificateLeaf | PrecertificateLeaf:
    """Read a leaf that `encode` could have written, and whose certificate parses.

    `Oversized` past 65,535 bytes; `Malformed` for another version, leaf or entry type, for lengths that
    do not add up, and for what is no certificate.
    """
    if len(data) > MAX_ENTRY:
        raise Oversized(f"expected a certificate entry of at most {MAX_ENTRY} bytes, got {len(data)}")
    cursor = _Cursor(data)
    if cursor.take(2) != LEAF_PREFIX:
        raise Malformed("expected a timestamped entry of version 1 (RFC 6962, 3.4), got another")
    timestamp, entry_type = cursor.number(8), cursor.number(2)
    if timestamp > MAX_MILLISECONDS:
        raise Malformed(f"expected a timestamp in milliseconds up to the year 9999, got {timestamp}")
    if entry_type not in (_X509, _PRECERT):
        raise Malformed(f"expected an x509_entry (0) or a precert_entry (1), got type {entry_type}")
    issuer = cursor.take(32) if entry_type == _PRECERT else b""
    content, extensions = cursor.vector(3), cursor.vector(2)
    cursor.done()
    leaf: CertificateLeaf | PrecertificateLeaf
    if entry_type == _X509:
        leaf = CertificateLeaf(timestamp, content, extensions)
    else:
        leaf = PrecertificateLeaf(timestamp, issuer, content, extensions)
    leaf.read()
    return leaf


def _frame(timestamp_ms: int, entry_type: int, body: bytes, extensions: bytes) -> bytes:
    if not 0 <= timestamp_ms <= MAX_MILLISECONDS:
        raise Malformed(f"expected a timestamp in milliseconds up to the year 9999, got {timestamp_ms}")
    head = LEAF_PREFIX + timestamp_ms.to_bytes(8, "big") + entry_type.to_bytes(2, "big")
    data = head + body + _vector(extensions, 2)
    if len(data) > MAX_ENTRY:
        raise Oversized(f"expected a certificate entry of at most {MAX_ENTRY} bytes, got {len(data)}")
    return data


def _vector(data: bytes, width: int) -> bytes:
    if len(data) >= 1 << 8 * width:
        raise Oversized(f"expected less than {1 << 8 * width} bytes, got {len(data)}")
    return len(data).to_bytes(width, "big") + data


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise Malformed("expected a certificate in DER in the log entry, got something else") from None


@asn1.sequence
class _TbsCertificate:
    """RFC 5280, 4.1, version 3 without unique identifiers; the fields are not looked into here."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    public_key: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    tbs: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


def _unsigned(tbs: bytes) -> bytes:
    """A certificate of a TBSCertificate with an empty signature, so that the X.509 parser takes it."""
    try:
        parsed = asn1.decode_der(_TbsCertificate, tbs)
        whole = _Certificate(
            tbs=asn1.decode_der(asn1.TLV, tbs), algorithm=parsed.signature, signature=asn1.BitString(b"", 0)
        )
        return asn1.encode_der(whole)
    except ValueError:
        raise Malformed("expected a TBSCertificate in DER in the log entry, got something else") from None


class _Cursor:
    """Takes bytes from the front; `Malformed` when there are too few."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise Malformed(f"expected {count} more bytes in the certificate entry, got {len(taken)}")
        self._at += count
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def done(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"expected the certificate entry to end at byte {self._at}, got more")
