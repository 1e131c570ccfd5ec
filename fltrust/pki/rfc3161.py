"""The structures of RFC 3161 and of the CMS around its tokens (RFC 5652), declared; DER comes from
`cryptography`, which reads it strictly: no byte left over, no other length form, no default spelt out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1

SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
SHA384: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.2")
SHA512: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.3")
ECDSA_WITH_SHA256: Final = x509.ObjectIdentifier("1.2.840.10045.4.3.2")
SIGNED_DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.2")
TST_INFO: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.16.1.4")
CONTENT_TYPE: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.4")
SIGNING_CERTIFICATE_V2: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.47")


@asn1.sequence
class Algorithm:
    """AlgorithmIdentifier of a digest or signature that takes no parameters."""

    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class MessageImprint:
    hash_algorithm: Algorithm
    hashed_message: bytes


@asn1.sequence
class RequestExtension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class TimeStampReq:
    """RFC 3161, 2.4.1."""

    version: int
    message_imprint: MessageImprint
    req_policy: x509.ObjectIdentifier | None
    nonce: int | None
    cert_req: Annotated[bool, asn1.Default(False)]
    extensions: Annotated[list[RequestExtension] | None, asn1.Implicit(0)]


@asn1.sequence
class Accuracy:
    seconds: int


@asn1.sequence
class TstInfo:
    """RFC 3161, 2.4.2, as far as we write it: no ordering, no name, no extensions."""

    version: int
    policy: x509.ObjectIdentifier
    message_imprint: MessageImprint
    serial_number: int
    gen_time: asn1.GeneralizedTime
    accuracy: Accuracy
    nonce: int | None


@asn1.sequence
class EssCertIdV2:
    """RFC 5035, 3: SHA-256 is the default and left out."""

    cert_hash: bytes


@asn1.sequence
class SigningCertificateV2:
    certs: list[EssCertIdV2]


@asn1.sequence
class Attribute:
    type: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class EncapsulatedContent:
    content_type: x509.ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class IssuerAndSerial:
    issuer: asn1.TLV
    serial_number: int


@asn1.sequence
class SignerInfo:
    """RFC 5652, 5.3. `signed_attributes` is signed under the tag of a SET, and stored under [0]."""

    version: int
    sid: IssuerAndSerial
    digest_algorithm: Algorithm
    signed_attributes: Annotated[asn1.SetOf[Attribute], asn1.Implicit(0)]
    signature_algorithm: Algorithm
    signature: bytes


@asn1.sequence
class SignedData:
    """RFC 5652, 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[Algorithm]
    content: EncapsulatedContent
    certificates: Annotated[asn1.SetOf[x509.Certificate] | None, asn1.Implicit(0)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    content_type: x509.ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class PkiStatusInfo:
    status: int
    status_string: list[str] | None
    fail_info: asn1.BitString | None


@asn1.sequence
class TimeStampResp:
    """RFC 3161, 2.4.2."""

    status: PkiStatusInfo
    token: ContentInfo | None


def as_tlv(der: bytes) -> asn1.TLV:
    """Put DER that was made elsewhere into a structure, as it is."""
    found: asn1.TLV = asn1.decode_der(asn1.TLV, der)
    return found


def general_time(at: datetime) -> asn1.GeneralizedTime:
    """A time in whole seconds, cut, as every client reads it."""
    return asn1.GeneralizedTime(at.replace(microsecond=0))
