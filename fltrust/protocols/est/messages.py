"""The bodies of EST: PKCS#10 in base64 in; certs-only CMS and CSR attributes in base64 out.

RFC 8951, 3: bodies are base64 of DER whatever Content-Transfer-Encoding says. Clients break lines in every
way there is, or not at all, so any are read; lines of 64 are written, which all of them read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from fltrust.errors import Malformed, Oversized
from fltrust.pki.csr import MAX_CSR

MAX_BODY: Final = 2 * MAX_CSR
REQUEST_TYPE: Final = "application/pkcs10"
CERTS_TYPE: Final = "application/pkcs7-mime; smime-type=certs-only"
ATTRIBUTES_TYPE: Final = "application/csrattrs"

_EC_PUBLIC_KEY: Final = x509.ObjectIdentifier("1.2.840.10045.2.1")
_P256: Final = x509.ObjectIdentifier("1.2.840.10045.3.1.7")
_ECDSA_WITH_SHA256: Final = x509.ObjectIdentifier("1.2.840.10045.4.3.2")
_LINE: Final = 64


@asn1.sequence
class _KeyAttribute:
    """RFC 7030, 4.5.2: the attribute's values say which curve."""

    type: x509.ObjectIdentifier
    values: asn1.SetOf[x509.ObjectIdentifier]


@asn1.sequence
class _CsrAttributes:
    """CsrAttrs, which is a SEQUENCE OF AttrOrOID, with the two that we ask for."""

    key: _KeyAttribute
    signature: x509.ObjectIdentifier


def read_request(body: bytes) -> bytes:
    """Give the DER of the PKCS#10 request in a body; what it says is not looked at here.

    `Oversized` past `MAX_BODY`, unread; `Malformed` for what is not base64, with any or no line breaks.
    """
    if len(body) > MAX_BODY:
        raise Oversized(f"expected a request of at most {MAX_BODY} bytes, got {len(body)}")
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("expected a PKCS#10 request in base64, got something else") from None
    if not der:
        raise Malformed("expected a PKCS#10 request in base64, got nothing")
    return der


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """Write a certs-only CMS message of these certificates (DER), in base64. Its order says nothing."""
    parsed = [x509.load_der_x509_certificate(der) for der in certificates]
    return to_lines(pkcs7.serialize_certificates(parsed, Encoding.DER))


def csr_attributes() -> bytes:
    """Say what a request must be like: a key on P-256, signed by ECDSA with SHA-256. In base64."""
    key = _KeyAttribute(type=_EC_PUBLIC_KEY, values=asn1.SetOf([_P256]))
    return to_lines(asn1.encode_der(_CsrAttributes(key=key, signature=_ECDSA_WITH_SHA256)))


def to_lines(der: bytes) -> bytes:
    """Base64 in lines of 64 characters, each ended."""
    text = base64.b64encode(der)
    return b"".join(text[at : at + _LINE] + b"\n" for at in range(0, len(text), _LINE))
