"""Requests and answers: the only files that go into a ceremony and come out of it, each canonical JSON.

A request asks for exactly one thing. It is not signed: the holders read what it asks for (`words`), and sign
its digest. An answer holds certificates and CRLs, which prove themselves to whoever knows the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Digest, KeyId, Serial, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.pki.bundle import root_fingerprint
from fltrust.pki.csr import MAX_CSR, parse_csr
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import PARSE_ERRORS, is_dns_name
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.root_crl import crl_from_der
from fltrust.strictbase64 import from_base64, to_base64

REQUEST_TYPE: Final = "urn:fltrust:ceremony-request:v1"
ANSWER_TYPE: Final = "urn:fltrust:ceremony-answer:v1"
MAX_FILE: Final = 256 * 1024
MAX_REVOKED: Final = 256
MAX_NAMES: Final = 32
_MAX_DER: Final = 32 * 1024


class Act(StrEnum):
    """What a ceremony does."""

    INIT = "init"
    """Makes the room and its root; asked for by no file."""
    HOLDERS = "holders"
    """Seals the root's key anew, to other holders; asked for by no file."""
    ISSUING = "issuing-ca"
    ROLLOVER = "root-rollover"
    CRL = "root-crl"
    CROSS = "cross-certificate"


REASONS: Final = {
    "key-compromise": x509.ReasonFlags.key_compromise,
    "ca-compromise": x509.ReasonFlags.ca_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that is asked of the root. Fields that its act does not use are empty."""

    act: Act
    domain: TrustDomain
    at: datetime
    public_url: PublicUrl | None = None
    csr_der: bytes | None = None
    """Of an issuing CA."""
    revoke: tuple[tuple[Serial, str], ...] = ()
    """Serials and reasons to add to the root's CRL; none of them makes it anew as it is."""
    subject_der: bytes | None = None
    """Of a cross-certificate: the other domain's root."""
    permitted: tuple[str, ...] = ()
    """Of a cross-certificate: domains that it may speak of, in URIs and DNS names."""
    path_length: int = 0

    def __post_init__(self) -> None:
        wanted = {
            Act.ISSUING: self.csr_der is not None,
            Act.ROLLOVER: True,
            Act.CRL: len(self.revoke) <= MAX_REVOKED and all(reason in REASONS for _, reason in self.revoke),
            Act.CROSS: self.subject_der is not None and 1 <= len(self.permitted) <= MAX_NAMES,
        }.get(self.act, False)
        alien = (
            (self.csr_der is not None and self.act is not Act.ISSUING)
            or (self.revoke and self.act is not Act.CRL)
            or ((self.subject_der is not None or self.permitted) and self.act is not Act.CROSS)
            or (self.path_length and self.act is not Act.CROSS)
        )
        if not wanted or alien or not all(map(is_dns_name, self.permitted)):
            raise Malformed(f"expected a request for {self.act} with what that takes and nothing else")
        if self.csr_der is not None:
            parse_csr(self.csr_der)
        if self.subject_der is not None:
            certificate_from_der(self.subject_der)

    def subject(self) -> x509.Certificate:
        """The root that a cross-certificate is for."""
        if self.subject_der is None:
            raise Malformed("expected a request for a cross-certificate, got another")
        return certificate_from_der(self.subject_der)

    def words(self) -> tuple[str, ...]:
        """What holders read before they sign: everything that will be in what the root signs."""
        lines = [f"act            {self.act}", f"trust domain   {self.domain}"]
        lines.append(f"asked at       {to_rfc3339(self.at)}")
        if self.public_url is not None:
            lines.append(f"public URL     {self.public_url.base}")
        if self.csr_der is not None:
            lines.append(f"key            {KeyId.of_spki(spki_der(parse_csr(self.csr_der)))}")
        lines += [f"revokes        {serial.hex} ({reason})" for serial, reason in self.revoke]
        if self.subject_der is not None:
            subject = self.subject()
            lines.append(f"certifies      {domain_of_ca(subject)}, root {root_fingerprint(subject)}")
            lines.append(f"path length    {self.path_length}")
            lines += [f"permits        {name}" for name in self.permitted]
        return tuple(lines)

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": REQUEST_TYPE,
                "act": str(self.act),
                "domain": str(self.domain),
                "at": to_rfc3339(self.at),
                "publicUrl": None if self.public_url is None else self.public_url.base,
                "csr": None if self.csr_der is None else to_base64(self.csr_der),
                "revoke": [{"serial": serial.hex, "reason": reason} for serial, reason in self.revoke],
                "subject": None if self.subject_der is None else to_base64(self.subject_der),
                "permitted": list(self.permitted),
                "pathLength": self.path_length,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a request; `Oversized`, or `Malformed` for anything that `to_json` would not write."""
        fields = _fields(data, "a request", REQUEST_TYPE)
        url = None if fields.is_null("publicUrl") else PublicUrl.parse(fields.text("publicUrl", limit=200))
        csr = None if fields.is_null("csr") else _bytes(fields, "csr", MAX_CSR)
        subject = None if fields.is_null("subject") else _bytes(fields, "subject", _MAX_DER)
        revoke = []
        for entry in fields.objects("revoke", limit=MAX_REVOKED):
            serial = Serial.parse(entry.text("serial", limit=40))
            revoke.append((serial, entry.text("reason", limit=40)))
            entry.done()
        request = cls(
            act=fields.choice("act", Act),
            domain=fields.domain("domain"),
            at=fields.time("at"),
            public_url=url,
            csr_der=csr,
            revoke=tuple(revoke),
            subject_der=subject,
            permitted=tuple(fields.texts("permitted", limit=MAX_NAMES, each=253)),
            path_length=fields.number("pathLength"),
        )
        fields.done()
        return request

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.from_json(read_bounded(path, limit=MAX_FILE))

    @property
    def digest(self) -> Digest:
        return Digest.sha256_of(self.to_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the root made: `certificates` in the order that their act says, and CRLs.

    ``issuing-ca``: the certificate, and the root's CRL anew. ``root-rollover``: old root, new root, new with
    old, old with new, and the new root's CRL. ``root-crl``: the CRL. ``cross-certificate``: the certificate.
    """

    act: Act
    domain: TrustDomain
    request: Digest
    transcript: Digest
    """SHA-256 of the transcript that tells how it was made."""
    certificates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": ANSWER_TYPE,
                "act": str(self.act),
                "domain": str(self.domain),
                "request": str(self.request),
                "transcript": str(self.transcript),
                "certificates": _ders(self.certificates),
                "crls": _ders(self.crls),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read an answer. It proves nothing: each part is checked where it is accepted."""
        fields = _fields(data, "an answer", ANSWER_TYPE)
        certificates = fields.texts("certificates", limit=4, each=2 * _MAX_DER)
        crls = fields.texts("crls", limit=2, each=MAX_FILE)
        answer = cls(
            act=fields.choice("act", Act),
            domain=fields.domain("domain"),
            request=fields.digest("request"),
            transcript=fields.digest("transcript"),
            certificates=tuple(certificate_from_der(from_base64(c, "a certificate")) for c in certificates),
            crls=tuple(crl_from_der(from_base64(crl, "a CRL")) for crl in crls),
        )
        fields.done()
        return answer

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.from_json(read_bounded(path, limit=MAX_FILE))


def certificate_from_der(der: bytes) -> x509.Certificate:
    """Read a certificate; `Malformed` for anything else."""
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise Malformed("expected a certificate in DER, found something else") from None


def _fields(data: bytes, what: str, kind: str) -> strictjson.Fields:
    fields = strictjson.Fields(strictjson.decode(data, limit=MAX_FILE, what=what), what)
    if fields.text("type", limit=64) != kind:
        raise Malformed(f"expected {what} of type {kind}, found another")
    return fields


def _bytes(fields: strictjson.Fields, name: str, limit: int) -> bytes:
    return from_base64(fields.text(name, limit=2 * limit), name)


def _ders(items: Sequence[x509.Certificate] | Sequence[x509.CertificateRevocationList]) -> list[str]:
    return [to_base64(item.public_bytes(Encoding.DER)) for item in items]
