"""The structures of CMP, declared; DER comes from `cryptography`, which reads it strictly.

RFC 4210's module tags explicitly. A message holds exactly one request, one answer or one confirmation
(RFC 9483, 4.1): SEQUENCE OF is written as a SEQUENCE with one member, and more than one does not parse.
"""

from __future__ import annotations

from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.pki.crmf import AlgorithmId, CertReqMsg, CertTemplate


@asn1.sequence
class InfoTypeAndValue:
    oid: x509.ObjectIdentifier
    value: asn1.Null | None


@asn1.sequence
class Header:
    """PKIHeader (RFC 4210, 5.1.1). General information is read by `general_info`."""

    pvno: int
    sender: asn1.TLV
    recipient: asn1.TLV
    message_time: Annotated[asn1.GeneralizedTime | None, asn1.Explicit(0)]
    protection_alg: Annotated[list[asn1.TLV] | None, asn1.Explicit(1)]
    sender_kid: Annotated[bytes | None, asn1.Explicit(2)]
    recip_kid: Annotated[bytes | None, asn1.Explicit(3)]
    transaction_id: Annotated[bytes | None, asn1.Explicit(4)]
    sender_nonce: Annotated[bytes | None, asn1.Explicit(5)]
    recip_nonce: Annotated[bytes | None, asn1.Explicit(6)]
    free_text: Annotated[list[str] | None, asn1.Explicit(7)]
    general_info: Annotated[list[asn1.TLV] | None, asn1.Explicit(8)]


@asn1.sequence
class Message:
    """PKIMessage. Header and body stay as they came: protection is over their very bytes."""

    header: asn1.TLV
    body: asn1.TLV
    protection: Annotated[asn1.BitString | None, asn1.Explicit(0)]
    extra_certs: Annotated[list[asn1.TLV] | None, asn1.Explicit(1)]


@asn1.sequence
class ProtectedPart:
    header: asn1.TLV
    body: asn1.TLV


@asn1.sequence
class PbmParameter:
    """RFC 4210, 5.1.3.1."""

    salt: bytes
    owf: AlgorithmId
    iteration_count: int
    mac: AlgorithmId


@asn1.sequence
class PbmAlgorithm:
    oid: x509.ObjectIdentifier
    parameters: PbmParameter


@asn1.sequence
class StatusInfo:
    """PKIStatusInfo."""

    status: int
    status_string: list[str] | None
    fail_info: asn1.BitString | None


@asn1.sequence
class CertReqMessages:
    one: CertReqMsg


@asn1.sequence
class RawCertReqMessages:
    """The same one request, as its own bytes: what the registration authority keeps and verifies."""

    one: asn1.TLV


@asn1.sequence
class Control:
    """AttributeTypeAndValue of RFC 4211, 6."""

    oid: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class CertId:
    issuer: Annotated[list[asn1.TLV], asn1.Explicit(4)]
    serial_number: int


@asn1.sequence
class CertifiedKeyPair:
    certificate: Annotated[x509.Certificate, asn1.Explicit(0)]


@asn1.sequence
class CertResponse:
    cert_req_id: int
    status: StatusInfo
    key_pair: CertifiedKeyPair | None


@asn1.sequence
class OneCertResponse:
    one: CertResponse


@asn1.sequence
class CertRepMessage:
    ca_pubs: Annotated[list[x509.Certificate] | None, asn1.Explicit(1)]
    response: OneCertResponse


@asn1.sequence
class Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class RevDetails:
    details: CertTemplate
    entry_details: list[Extension] | None


@asn1.sequence
class RevReqContent:
    one: RevDetails


@asn1.sequence
class OneStatus:
    one: StatusInfo


@asn1.sequence
class RevRepContent:
    status: OneStatus


@asn1.sequence
class CertStatus:
    cert_hash: bytes
    cert_req_id: int
    status: StatusInfo | None
    hash_alg: Annotated[AlgorithmId | None, asn1.Explicit(0)]


@asn1.sequence
class CertConfirmContent:
    one: CertStatus


@asn1.sequence
class PollReq:
    cert_req_id: int


@asn1.sequence
class PollReqContent:
    one: PollReq


@asn1.sequence
class PollRep:
    cert_req_id: int
    check_after: int


@asn1.sequence
class PollRepContent:
    one: PollRep


@asn1.sequence
class ErrorContent:
    status: StatusInfo
    error_code: int | None
    error_details: list[str] | None
