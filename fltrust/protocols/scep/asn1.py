"""The CMS of SCEP (RFC 5652, RFC 8894, 3), declared: a SignedData around an EnvelopedData."""

from __future__ import annotations

from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.pki.rfc3161 import Attribute, IssuerAndSerial

DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.2")
ENVELOPED_DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.3")
CONTENT_TYPE: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.4")
SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
SHA1: Final = x509.ObjectIdentifier("1.3.14.3.2.26")
RSA_ENCRYPTION: Final = x509.ObjectIdentifier("1.2.840.113549.1.1.1")
RSA_WITH_SHA256: Final = x509.ObjectIdentifier("1.2.840.113549.1.1.11")
RSA_WITH_SHA1: Final = x509.ObjectIdentifier("1.2.840.113549.1.1.5")
DES_CBC: Final = x509.ObjectIdentifier("1.3.14.3.2.7")
DES_EDE3_CBC: Final = x509.ObjectIdentifier("1.2.840.113549.3.7")
AES_CBC: Final = frozenset(
    {
        x509.ObjectIdentifier("2.16.840.1.101.3.4.1.2"),  # 128 bits
        x509.ObjectIdentifier("2.16.840.1.101.3.4.1.42"),  # 256 bits
    }
)

_ARC = "2.16.840.1.113733.1.9"
MESSAGE_TYPE: Final = x509.ObjectIdentifier(f"{_ARC}.2")
PKI_STATUS: Final = x509.ObjectIdentifier(f"{_ARC}.3")
FAIL_INFO: Final = x509.ObjectIdentifier(f"{_ARC}.4")
SENDER_NONCE: Final = x509.ObjectIdentifier(f"{_ARC}.5")
RECIPIENT_NONCE: Final = x509.ObjectIdentifier(f"{_ARC}.6")
TRANSACTION_ID: Final = x509.ObjectIdentifier(f"{_ARC}.7")


@asn1.sequence
class AlgorithmWithNull:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class Content:
    content_type: x509.ObjectIdentifier
    content: Annotated[bytes | None, asn1.Explicit(0)]


@asn1.sequence
class SignerInfo:
    """`signed_attributes` stay as they came, under [0]: signed is their encoding as a SET."""

    version: int
    sid: IssuerAndSerial
    digest_algorithm: AlgorithmWithNull
    signed_attributes: asn1.TLV
    signature_algorithm: AlgorithmWithNull
    signature: bytes


@asn1.sequence
class SignedData:
    version: int
    digest_algorithms: asn1.SetOf[AlgorithmWithNull]
    content: Content
    certificates: Annotated[asn1.SetOf[x509.Certificate] | None, asn1.Implicit(0)]
    crls: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signers: asn1.SetOf[SignerInfo]


@asn1.sequence
class SignedMessage:
    content_type: x509.ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class Attributes:
    """Signed attributes again, read: their [0] inside of a SEQUENCE."""

    attributes: Annotated[asn1.SetOf[Attribute], asn1.Implicit(0)]


@asn1.sequence
class ContentAlgorithm:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.TLV


@asn1.sequence
class EncryptedContent:
    """`content` is octets under [0]: in one piece in DER, in several in what old clients write."""

    content_type: x509.ObjectIdentifier
    algorithm: ContentAlgorithm
    content: asn1.TLV


@asn1.sequence
class KeyTransport:
    """RFC 5652, 6.2.1, with the recipient named by issuer and serial."""

    version: int
    recipient: IssuerAndSerial
    algorithm: AlgorithmWithNull
    encrypted_key: bytes


@asn1.sequence
class Pieces:
    """Octets in several pieces again, read: what is under their [0], as a SEQUENCE, inside of a SEQUENCE."""

    pieces: list[bytes]


@asn1.sequence
class EnvelopedData:
    version: int
    recipients: asn1.SetOf[asn1.TLV]
    content: EncryptedContent


@asn1.sequence
class Envelope:
    content_type: x509.ObjectIdentifier
    content: Annotated[EnvelopedData, asn1.Explicit(0)]
