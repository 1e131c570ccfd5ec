"""SCEP messages (RFC 8894, 3): one in, verified before it is decrypted; one out, signed.

SHA-1, DES and triple DES are refused unless the caller takes the legacy suite; MD5, RC2 and the rest always,
whatever a client was told by whom: GetCACaps is not authenticated, so what a server would still take is what
an attacker makes a client use (7.5).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fltrust.errors import Malformed, Oversized, SignatureInvalid
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.leaf_keys import is_rsa
from fltrust.pki.rfc3161 import Attribute, IssuerAndSerial
from fltrust.protocols.der import der_sequence
from fltrust.protocols.scep import asn1 as scep
from fltrust.protocols.scep.suites import LEGACY, MODERN, Suite

MAX_MESSAGE: Final = 64 * 1024
MESSAGE_MEDIA: Final = "application/x-pki-message"
CERTIFICATES_MEDIA: Final = "application/x-x509-ca-ra-cert"
_MAX_ID = 128
_MAX_CERTIFICATES = 4


class MessageType(StrEnum):
    """Kinds of message by their number (3.2.1.2). No other is let in; GetCert and GetCRL are refused, too."""

    CERT_REP = "3"
    RENEWAL_REQ = "17"
    PKCS_REQ = "19"
    CERT_POLL = "20"


REQUESTS: Final = frozenset({MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL})


class PkiStatus(StrEnum):
    SUCCESS = "0"
    FAILURE = "2"
    PENDING = "3"


class FailInfo(StrEnum):
    BAD_ALG = "0"
    BAD_MESSAGE_CHECK = "1"
    BAD_REQUEST = "2"
    BAD_CERT_ID = "4"


@dataclass(frozen=True, slots=True)
class Received:
    """A message taken apart. Nothing of it is proven until `verify_message` returned."""

    message_type: str
    transaction_id: str
    sender_nonce: bytes
    signer: x509.Certificate
    signer_info: scep.SignerInfo
    attributes: Mapping[x509.ObjectIdentifier, asn1.TLV]
    content: bytes
    """The EnvelopedData, in DER."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The coordinator's RSA key for SCEP, and its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    def __repr__(self) -> str:
        return "Recipient(…)"


def read_message(der: bytes) -> Received:
    """Take a pkiMessage apart, within bounds.

    It has exactly one signer, whose certificate is in it, and every attribute once: message type,
    transaction id, sender nonce. `Oversized` past `MAX_MESSAGE`, unread; `Malformed` otherwise.
    """
    if len(der) > MAX_MESSAGE:
        raise Oversized(f"expected a SCEP message of at most {MAX_MESSAGE} bytes, got {len(der)}")
    try:
        message = asn1.decode_der(scep.SignedMessage, der)
        signed = message.content
        signers = signed.signers.as_list()
        certificates = [] if signed.certificates is None else signed.certificates.as_list()
        if message.content_type != scep.SIGNED_DATA or len(signers) != 1 or signed.content.content is None:
            raise _malformed()
        if signed.content.content_type != scep.DATA or not 1 <= len(certificates) <= _MAX_CERTIFICATES:
            raise _malformed()
        raw = asn1.encode_der(signers[0].signed_attributes)
        attributes = _attributes(raw)
        signer = next(c for c in certificates if _is_of(c, signers[0].sid))
        return Received(
            message_type=_printable(attributes[scep.MESSAGE_TYPE]),
            transaction_id=_printable(attributes[scep.TRANSACTION_ID]),
            sender_nonce=_octets(attributes[scep.SENDER_NONCE]),
            signer=signer,
            signer_info=signers[0],
            attributes=attributes,
            content=signed.content.content,
        )
    except (*PARSE_ERRORS, KeyError, StopIteration):
        raise _malformed() from None


def suite_of(message: Received, *, is_legacy_taken: bool) -> Suite:
    """The suite that a message is held to, and answered in, by the digest that it names."""
    is_legacy = message.signer_info.digest_algorithm.algorithm == LEGACY.digest
    return LEGACY if is_legacy and is_legacy_taken else MODERN


def verify_message(message: Received, suite: Suite) -> rsa.RSAPublicKey:
    """Return the key that signed a message, or raise.

    1. The signer's key is RSA within bounds, the digest the suite's and the signature PKCS #1 v1.5 over it,
       else `Malformed`, ``bad-algorithm``.
    2. The attributes say the content's digest and type, and the key signed the attributes, else
       `SignatureInvalid`.
    3. The type of message is one that a client may send (`REQUESTS`), else `Malformed`, ``unknown-type``.
    """
    info = message.signer_info
    # 1.
    key = message.signer.public_key()
    if (
        not is_rsa(key)
        or info.digest_algorithm.algorithm != suite.digest
        or info.signature_algorithm.algorithm not in suite.signatures
    ):
        raise bad_algorithm()
    # 2.
    attributes = message.attributes
    digest = attributes.get(scep.MESSAGE_DIGEST)
    kind = attributes.get(scep.CONTENT_TYPE)
    try:
        stated = b"" if digest is None else _octets(digest)
        is_data = kind is not None and kind.parse(x509.ObjectIdentifier) == scep.DATA
        if not is_data or not hmac.compare_digest(stated, suite.digest_of(message.content)):
            raise InvalidSignature
        raw = asn1.encode_der(info.signed_attributes)
        key.verify(info.signature, b"\x31" + raw[1:], padding.PKCS1v15(), suite.hash)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid("expected a SCEP message signed by its signer's key, it is not") from None
    # 3.
    if message.message_type not in set(REQUESTS):
        raise Malformed("expected a SCEP message of a type that is known here", reason="unknown-type")
    return key


def answer_to(
    message: Received,
    recipient: Recipient,
    status: PkiStatus,
    *,
    suite: Suite,
    nonce: bytes,
    content: bytes | None = None,
    failure: FailInfo | None = None,
) -> bytes:
    """A CertRep (3.3.2), signed by the recipient; `content` goes with success, `failure` with failure.

    In SHA-1, a signature over what a client chose can be moved to what it did not choose. So `nonce` is 16
    random bytes, and DER sorts the attributes such that it comes before whatever a client chose that is
    long enough to collide.
    """
    said: dict[x509.ObjectIdentifier, bytes] = {
        scep.CONTENT_TYPE: asn1.encode_der(scep.DATA),
        scep.MESSAGE_DIGEST: asn1.encode_der(suite.digest_of(content or b"")),
        scep.MESSAGE_TYPE: _to_printable(MessageType.CERT_REP),
        scep.PKI_STATUS: _to_printable(status),
        scep.TRANSACTION_ID: _to_printable(message.transaction_id),
        scep.SENDER_NONCE: asn1.encode_der(nonce),
        scep.RECIPIENT_NONCE: asn1.encode_der(message.sender_nonce),
    }
    if failure is not None:
        said[scep.FAIL_INFO] = _to_printable(failure)
    attributes = scep.Attributes(
        attributes=asn1.SetOf(
            [Attribute(type=oid, values=asn1.SetOf([_tlv(der)])) for oid, der in said.items()]
        )
    )
    raw = _content_of(asn1.encode_der(attributes))
    signature = recipient.key.sign(b"\x31" + raw[1:], padding.PKCS1v15(), suite.hash)
    own = recipient.certificate
    digest = scep.AlgorithmWithNull(algorithm=suite.digest, parameters=asn1.Null())
    info = scep.SignerInfo(
        version=1,
        sid=IssuerAndSerial(issuer=_tlv(own.issuer.public_bytes()), serial_number=own.serial_number),
        digest_algorithm=digest,
        signed_attributes=_tlv(raw),
        signature_algorithm=scep.AlgorithmWithNull(algorithm=scep.RSA_ENCRYPTION, parameters=asn1.Null()),
        signature=signature,
    )
    signed = scep.SignedData(
        version=1,
        digest_algorithms=asn1.SetOf([digest]),
        content=scep.Content(content_type=scep.DATA, content=content),
        certificates=asn1.SetOf([own]),
        crls=None,
        signers=asn1.SetOf([info]),
    )
    return asn1.encode_der(scep.SignedMessage(content_type=scep.SIGNED_DATA, content=signed))


def _attributes(raw: bytes) -> dict[x509.ObjectIdentifier, asn1.TLV]:
    listed = asn1.decode_der(scep.Attributes, der_sequence(raw)).attributes.as_list()
    found: dict[x509.ObjectIdentifier, asn1.TLV] = {}
    for attribute in listed:
        values = attribute.values.as_list()
        if attribute.type in found or len(values) != 1:
            raise _malformed()
        found[attribute.type] = values[0]
    return found


def _content_of(der: bytes) -> bytes:
    return bytes(_tlv(der).data)


def _is_of(certificate: x509.Certificate, sid: IssuerAndSerial) -> bool:
    return (
        certificate.serial_number == sid.serial_number
        and certificate.issuer.public_bytes() == asn1.encode_der(sid.issuer)
    )


def _printable(value: asn1.TLV) -> str:
    text: str = value.parse(asn1.PrintableString).as_str()
    if not 0 < len(text) <= _MAX_ID:
        raise _malformed()
    return text


def _octets(value: asn1.TLV) -> bytes:
    data: bytes = value.parse(bytes)
    if not 0 < len(data) <= _MAX_ID:
        raise _malformed()
    return data


def _to_printable(text: str) -> bytes:
    return asn1.encode_der(asn1.PrintableString(text))


def _tlv(der: bytes) -> asn1.TLV:
    found: asn1.TLV = asn1.decode_der(asn1.TLV, der)
    return found


def _malformed() -> Malformed:
    return Malformed("expected a SCEP message in DER with one signer and its certificate, got something else")


def bad_algorithm() -> Malformed:
    """What is refused for its algorithms, whichever they are."""
    return Malformed(
        "expected RSA, SHA-256 and AES in a SCEP message, got another algorithm",
        reason="bad-algorithm",
        hint="SHA-1, DES and triple DES are off unless an operator switched them on, MD5 and RC2 always",
    )
