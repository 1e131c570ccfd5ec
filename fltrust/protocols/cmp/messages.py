"""CMP messages: one in, taken apart within bounds and its kind known; one out, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.errors import Malformed, Oversized
from fltrust.pki.rfc3161 import general_time
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN
from fltrust.protocols.cmp.asn1 import (
    CertifiedKeyPair,
    CertRepMessage,
    CertResponse,
    ErrorContent,
    Header,
    InfoTypeAndValue,
    Message,
    OneCertResponse,
    OneStatus,
    PollRep,
    PollRepContent,
    RevRepContent,
    StatusInfo,
)
from fltrust.protocols.cmp.protection import as_tlv, protected_bytes
from fltrust.protocols.der import tagged

MAX_MESSAGE: Final = 64 * 1024
CONTENT_TYPE: Final = "application/pkixcmp"
_IMPLICIT_CONFIRM: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.4.13")
_MAX_ID = 64


class Body(IntEnum):
    """Kinds of body that are known here, by their tags (RFC 4210, 5.1.2). No other is let in."""

    IR = 0
    IP = 1
    CR = 2
    CP = 3
    P10CR = 4
    KUR = 7
    KUP = 8
    RR = 11
    RP = 12
    PKICONF = 19
    ERROR = 23
    CERT_CONF = 24
    POLL_REQ = 25
    POLL_REP = 26


REQUESTS: Final = frozenset({Body.IR, Body.CR, Body.P10CR, Body.KUR, Body.RR, Body.CERT_CONF, Body.POLL_REQ})
"""What a client may send."""
ANSWERS: Final = {Body.IR: Body.IP, Body.CR: Body.CP, Body.P10CR: Body.CP, Body.KUR: Body.KUP}


class Failure(IntEnum):
    """Bits of PKIFailureInfo (RFC 4210, 5.2.3)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_CERT_ID = 4
    BAD_DATA_FORMAT = 5
    BAD_POP = 9
    CERT_REVOKED = 10
    BAD_RECIPIENT_NONCE = 13
    BAD_SENDER_NONCE = 18
    BAD_CERT_TEMPLATE = 19
    TRANSACTION_ID_IN_USE = 21
    UNSUPPORTED_VERSION = 22
    NOT_AUTHORIZED = 23
    SYSTEM_UNAVAIL = 24
    SYSTEM_FAILURE = 25


class Status(IntEnum):
    """PKIStatus."""

    ACCEPTED = 0
    REJECTION = 2
    WAITING = 3


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message taken apart. Nothing of it is proven until its protection was checked."""

    header: Header
    tag: bytes
    """Of the body; `kind_of` says what it means."""
    content: bytes
    """What the body's tag holds, in DER."""
    protection: bytes
    protected: bytes
    extra_certs: tuple[bytes, ...]
    transaction_id: bytes
    sender_nonce: bytes
    wants_implicit_confirm: bool


def read_message(der: bytes) -> Incoming:
    """Take one message apart.

    1. At most `MAX_MESSAGE` bytes, else `Oversized`; DER of a PKIMessage of version 2 or 3.
    2. It has a transaction id and a sender nonce of 8 to 64 bytes (RFC 9483, 3.1), and is protected.
    What kind of body it has is `kind_of`'s to say.
    """
    # 1.
    if len(der) > MAX_MESSAGE:
        raise Oversized(f"expected a CMP message of at most {MAX_MESSAGE} bytes, got {len(der)}")
    try:
        message = asn1.decode_der(Message, der)
        header = message.header.parse(Header)
    except ValueError:
        raise Malformed("expected a CMP message in DER, got something else") from None
    if header.pvno not in (2, 3):
        raise Malformed(f"expected CMP of version 2 or 3, got {header.pvno}", reason="unsupported-version")
    # 2.
    transaction_id, nonce = header.transaction_id or b"", header.sender_nonce or b""
    if not 8 <= len(transaction_id) <= _MAX_ID or not 8 <= len(nonce) <= _MAX_ID:
        raise Malformed("expected a transaction id and a nonce of 8 to 64 bytes in a CMP message")
    if message.protection is None or message.protection.padding_bits():
        raise Malformed("expected a protected message, got one without protection")
    extra = [asn1.encode_der(tlv) for tlv in (message.extra_certs or [])[:MAX_CHAIN]]
    if len(message.extra_certs or []) > 16 or any(len(item) > MAX_CERTIFICATE for item in extra):
        raise Oversized("expected at most 16 certificates beside a CMP message")
    return Incoming(
        header=header,
        tag=message.body.tag_bytes,
        content=bytes(message.body.data),
        protection=message.protection.as_bytes(),
        protected=protected_bytes(message.header, message.body),
        extra_certs=tuple(extra),
        transaction_id=transaction_id,
        sender_nonce=nonce,
        wants_implicit_confirm=_wants_implicit_confirm(header),
    )


def kind_of(message: Incoming) -> Body:
    """The kind of a message, if it is one that a client may send (`REQUESTS`).

    `Malformed` (``unknown-type``) for every other: none is passed over, none is taken for another.
    """
    tag = message.tag
    number = tag[0] & 0x1F if len(tag) == 1 and tag[0] & 0xE0 == 0xA0 else -1
    if number not in set(REQUESTS):
        raise Malformed("expected a CMP message of a kind that is known here", reason="unknown-type")
    return Body(number)


def status(of: Status, words: str = "", failure: Failure | None = None) -> StatusInfo:
    """A PKIStatusInfo."""
    return StatusInfo(
        status=of,
        status_string=[words[:500]] if words else None,
        fail_info=None if failure is None else named_bit(failure),
    )


def named_bit(number: int) -> asn1.BitString:
    """A named bit list with one bit, without the zeros behind it (X.690, 11.2.2)."""
    octets, rest = divmod(number, 8)
    return asn1.BitString(bytes(octets) + bytes([0x80 >> rest]), 7 - rest)


def certificate_answer(
    cert_req_id: int, leaf: x509.Certificate, *, ca_pubs: Sequence[x509.Certificate] = ()
) -> bytes:
    response = CertResponse(
        cert_req_id=cert_req_id,
        status=status(Status.ACCEPTED),
        key_pair=CertifiedKeyPair(certificate=leaf),
    )
    return _cert_rep(response, ca_pubs)


def negative_answer(cert_req_id: int, of: Status, words: str = "", failure: Failure | None = None) -> bytes:
    """No certificate, or not yet."""
    return _cert_rep(CertResponse(cert_req_id=cert_req_id, status=status(of, words, failure), key_pair=None))


def revocation_answer(info: StatusInfo) -> bytes:
    return asn1.encode_der(RevRepContent(status=OneStatus(one=info)))


def poll_answer(cert_req_id: int, check_after: int) -> bytes:
    return asn1.encode_der(PollRepContent(one=PollRep(cert_req_id=cert_req_id, check_after=check_after)))


def error_answer(words: str, failure: Failure) -> bytes:
    content = ErrorContent(
        status=status(Status.REJECTION, words, failure), error_code=None, error_details=None
    )
    return asn1.encode_der(content)


def confirmation() -> bytes:
    """PKIConfirmContent: NULL."""
    return asn1.encode_der(asn1.Null())


def directory_name(name: x509.Name) -> asn1.TLV:
    """A GeneralName [4] EXPLICIT of a distinguished name."""
    return as_tlv(tagged(4, name.public_bytes()))


def answer_header(
    *,
    sender: x509.Name,
    to: Incoming | None,
    at: datetime,
    algorithm: asn1.TLV,
    kid: bytes,
    nonce: bytes,
    is_implicitly_confirmed: bool = False,
) -> asn1.TLV:
    """The header of an answer: same transaction, the client's nonce given back."""
    confirm = as_tlv(asn1.encode_der(InfoTypeAndValue(oid=_IMPLICIT_CONFIRM, value=asn1.Null())))
    header = Header(
        pvno=2 if to is None else to.header.pvno,
        sender=directory_name(sender),
        recipient=directory_name(x509.Name([])) if to is None else to.header.sender,
        message_time=general_time(at),
        protection_alg=parts_of(algorithm),
        sender_kid=kid,
        recip_kid=None,
        transaction_id=None if to is None else to.transaction_id,
        sender_nonce=nonce,
        recip_nonce=None if to is None else to.sender_nonce,
        free_text=None,
        general_info=[confirm] if is_implicitly_confirmed else None,
    )
    return as_tlv(asn1.encode_der(header))


def write_message(header: asn1.TLV, body: asn1.TLV, protection: bytes, extra: Sequence[bytes]) -> bytes:
    return asn1.encode_der(
        Message(
            header=header,
            body=body,
            protection=asn1.BitString(protection, 0),
            extra_certs=[as_tlv(der) for der in extra] or None,
        )
    )


def body_tlv(kind: Body, content: bytes) -> asn1.TLV:
    """A body under its tag."""
    return as_tlv(tagged(kind, content))


@asn1.sequence
class _Parameterless:
    oid: x509.ObjectIdentifier


@asn1.sequence
class _Parameterised:
    oid: x509.ObjectIdentifier
    parameters: asn1.TLV


def parts_of(algorithm: asn1.TLV) -> list[asn1.TLV]:
    """The members of an AlgorithmIdentifier, as `Header` holds them."""
    try:
        found = algorithm.parse(_Parameterised)
        return [as_tlv(asn1.encode_der(found.oid)), found.parameters]
    except ValueError:
        return [as_tlv(asn1.encode_der(algorithm.parse(_Parameterless).oid))]


def _cert_rep(response: CertResponse, ca_pubs: Sequence[x509.Certificate] = ()) -> bytes:
    return asn1.encode_der(
        CertRepMessage(ca_pubs=list(ca_pubs) or None, response=OneCertResponse(one=response))
    )


def _wants_implicit_confirm(header: Header) -> bool:
    for info in header.general_info or []:
        try:
            if info.parse(InfoTypeAndValue).oid == _IMPLICIT_CONFIRM:
                return True
        except ValueError:  # an information that carries something else, and asks for nothing of us
            continue
    return False
