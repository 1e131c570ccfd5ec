"""What is inside of a CMP request, read after its protection was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.errors import Malformed
from fltrust.identity import Serial
from fltrust.pki.crmf import CertRequest
from fltrust.protocols.cmp.asn1 import (
    CertConfirmContent,
    CertId,
    CertReqMessages,
    Control,
    PollReqContent,
    RawCertReqMessages,
    RevReqContent,
)
from fltrust.protocols.cmp.messages import Body
from fltrust.protocols.der import der_sequence
from fltrust.revocation.events import RevocationReason

P10_REQUEST_ID: Final = -1
"""The id of a p10cr's one request (RFC 9483, 4.1.4)."""
_OLD_CERT_ID: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.5.1.5")
_REASON_CODE: Final = x509.ObjectIdentifier("2.5.29.21")
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_REASONS: Final = {
    0: RevocationReason.UNSPECIFIED,
    1: RevocationReason.KEY_COMPROMISE,
    3: RevocationReason.AFFILIATION_CHANGED,
    4: RevocationReason.SUPERSEDED,
    5: RevocationReason.CESSATION_OF_OPERATION,
    9: RevocationReason.PRIVILEGE_WITHDRAWN,
}
"""CRLReason. A hold is an operator's, and the others mean something else here."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    cert_req_id: int
    cert_hash: bytes
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class RevocationAsked:
    serial: Serial
    reason: RevocationReason


def certificate_request(kind: Body, content: bytes) -> tuple[int, bytes]:
    """The id of the one request in a message, and its bytes: CRMF, or PKCS#10 of a p10cr.

    Its proof of possession is the registration authority's to check. `Malformed` for none, or for several.
    """
    if kind is Body.P10CR:
        return P10_REQUEST_ID, content
    try:
        parsed = asn1.decode_der(CertReqMessages, content).one.request.parse(CertRequest)
        raw = asn1.decode_der(RawCertReqMessages, content).one
    except ValueError:
        raise Malformed("expected one certificate request with a signature as its proof, in CRMF") from None
    return parsed.cert_req_id, asn1.encode_der(raw)


def check_old_certificate(content: bytes, signer: x509.Certificate) -> None:
    """Raise `Malformed` where a kur names another certificate to update than the one that signed it.

    Controls of other kinds are refused: what is not understood is not granted either.
    """
    try:
        request = asn1.decode_der(CertReqMessages, content).one.request.parse(CertRequest)
        controls = [tlv.parse(Control) for tlv in request.controls or []]
        named = [control.value.parse(CertId) for control in controls if control.oid == _OLD_CERT_ID]
    except ValueError:
        raise Malformed("expected the controls of a kur to name one certificate, in CRMF") from None
    if len(named) != len(controls) or len(named) > 1:
        raise Malformed("expected at most one control in a kur, the certificate to update")
    issuer = signer.issuer.public_bytes()
    for cert_id in named:
        stated = b"".join(asn1.encode_der(tlv) for tlv in cert_id.issuer)
        if cert_id.serial_number != signer.serial_number or der_sequence(stated) != issuer:
            raise Malformed(
                "expected a kur for the certificate that signed it, got one for another",
                hint="openssl cmp: let -oldcert be the certificate of -cert",
            )


def polled(content: bytes) -> int:
    """The id of the request that is asked about."""
    try:
        return asn1.decode_der(PollReqContent, content).one.cert_req_id
    except ValueError:
        raise Malformed("expected one request to be polled for") from None


def confirmed(content: bytes) -> Confirmed:
    """What a holder says of its certificate. By SHA-256, the hash of its signature, as no other is ours."""
    try:
        found = asn1.decode_der(CertConfirmContent, content).one
    except ValueError:
        raise Malformed("expected the confirmation of one certificate") from None
    if found.hash_alg is not None and found.hash_alg.algorithm != _SHA256:
        raise Malformed("expected a confirmation by SHA-256", reason="bad-algorithm")
    is_accepted = found.status is None or found.status.status in (0, 1)
    return Confirmed(found.cert_req_id, found.cert_hash, is_accepted)


def revocation(content: bytes) -> RevocationAsked:
    """Which certificate is given up, and why."""
    try:
        found = asn1.decode_der(RevReqContent, content).one
        serial = found.details.serial_number
        code = 0
        for extension in found.entry_details or []:
            value = extension.value
            if extension.oid != _REASON_CODE or len(value) != 3 or value[:2] != b"\x0a\x01":
                raise Malformed("expected a reason and nothing else beside a revocation request")
            code = value[2]
    except ValueError:
        raise Malformed("expected one certificate to be revoked") from None
    if serial is None or code not in _REASONS:
        raise Malformed(
            f"expected a serial number and a reason of {', '.join(map(str, _REASONS))} to revoke, got another"
        )
    return RevocationAsked(Serial(serial), _REASONS[code])
