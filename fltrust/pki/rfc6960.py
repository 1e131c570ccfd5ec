"""The structures of OCSP (RFC 6960, 4), declared; DER comes from `cryptography`, which reads it strictly."""

from __future__ import annotations

from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.pki.rfc3161 import Algorithm

BASIC_RESPONSE: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.1")
NONCE: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.2")
EXTENDED_REVOKE: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.9")
SHA1: Final = x509.ObjectIdentifier("1.3.14.3.2.26")


@asn1.sequence
class Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class CertId:
    """Which certificate is meant: the digests of its issuer's name and key, and its serial (4.1.1)."""

    hash_algorithm: Algorithm
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int


@asn1.sequence
class SingleRequest:
    cert_id: CertId
    extensions: Annotated[list[Extension] | None, asn1.Explicit(0)]


@asn1.sequence
class TbsRequest:
    """Who asks (`requestor`, one GeneralName) is not read."""

    version: Annotated[int | None, asn1.Explicit(0)]
    requestor: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]
    requests: list[SingleRequest]
    extensions: Annotated[list[Extension] | None, asn1.Explicit(2)]


@asn1.sequence
class OcspRequest:
    """4.1.1. `signature` is a requestor's own, which nobody here needs."""

    tbs: TbsRequest
    signature: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]


@asn1.sequence
class RevokedSince:
    """RevokedInfo that states no reason."""

    time: asn1.GeneralizedTime


@asn1.sequence
class RevokedFor:
    """RevokedInfo with its reason, an ENUMERATED."""

    time: asn1.GeneralizedTime
    reason: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class SingleResponse:
    """4.2.1. Exactly one of the four statuses is set."""

    cert_id: CertId
    good: Annotated[asn1.Null | None, asn1.Implicit(0)]
    revoked_since: Annotated[RevokedSince | None, asn1.Implicit(1)]
    revoked_for: Annotated[RevokedFor | None, asn1.Implicit(1)]
    unknown: Annotated[asn1.Null | None, asn1.Implicit(2)]
    this_update: asn1.GeneralizedTime
    next_update: Annotated[asn1.GeneralizedTime | None, asn1.Explicit(0)]


@asn1.sequence
class ResponseData:
    responder_key_hash: Annotated[bytes, asn1.Explicit(2)]
    produced_at: asn1.GeneralizedTime
    responses: list[SingleResponse]
    extensions: Annotated[list[Extension] | None, asn1.Explicit(1)]


@asn1.sequence
class BasicResponse:
    tbs: asn1.TLV
    algorithm: Algorithm
    signature: asn1.BitString
    certificates: Annotated[list[x509.Certificate], asn1.Explicit(0)]


@asn1.sequence
class ResponseBytes:
    type: x509.ObjectIdentifier
    response: bytes


@asn1.sequence
class OcspResponse:
    """An answer that says something; `status` is ENUMERATED *successful*."""

    status: asn1.TLV
    content: Annotated[ResponseBytes, asn1.Explicit(0)]
