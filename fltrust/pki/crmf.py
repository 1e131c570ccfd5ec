"""Certificate requests in CRMF (RFC 4211), as CMP carries them: a key and the proof that its holder asks.

As with PKCS#10, nothing else in one is read. The proof is the one kind that proves something to us by itself:
a signature by the key over the whole CertRequest (4.1, 3).
"""

from __future__ import annotations

from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1

ECDSA_WITH_SHA256: Final = x509.ObjectIdentifier("1.2.840.10045.4.3.2")
RSA_WITH_SHA256: Final = x509.ObjectIdentifier("1.2.840.113549.1.1.11")


@asn1.sequence
class PublicKeyInfo:
    algorithm: asn1.TLV
    key: asn1.BitString


@asn1.sequence
class CertTemplate:
    """RFC 4211, 5. Names, times and extensions are kept as they came, unread."""

    version: Annotated[int | None, asn1.Implicit(0)]
    serial_number: Annotated[int | None, asn1.Implicit(1)]
    signing_algorithm: Annotated[list[asn1.TLV] | None, asn1.Implicit(2)]
    issuer: Annotated[list[asn1.TLV] | None, asn1.Explicit(3)]
    validity: Annotated[list[asn1.TLV] | None, asn1.Implicit(4)]
    subject: Annotated[list[asn1.TLV] | None, asn1.Explicit(5)]
    public_key: Annotated[PublicKeyInfo | None, asn1.Implicit(6)]
    issuer_uid: Annotated[asn1.BitString | None, asn1.Implicit(7)]
    subject_uid: Annotated[asn1.BitString | None, asn1.Implicit(8)]
    extensions: Annotated[list[asn1.TLV] | None, asn1.Implicit(9)]


@asn1.sequence
class CertRequest:
    cert_req_id: int
    template: CertTemplate
    controls: list[asn1.TLV] | None


@asn1.sequence
class AlgorithmId:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class PopoSigningKey:
    """POPOSigningKey without a poposkInput: what was signed is the CertRequest."""

    algorithm: AlgorithmId
    signature: asn1.BitString


@asn1.sequence
class CertReqMsg:
    """RFC 4211, 3, with a signature as its proof; any other kind of proof does not parse."""

    request: asn1.TLV
    proof: Annotated[PopoSigningKey, asn1.Implicit(1)]
    reg_info: list[asn1.TLV] | None
