"""A TBSCertificate without its signature, framed so that an X.509 parser reads its fields.

Apart from its siblings, so that they load without an ASN.1 compiler.
"""

from __future__ import annotations

from typing import Annotated

from cryptography.hazmat import asn1


@asn1.sequence
class _TbsCertificate:
    """RFC 5280, 4.1, version 3 without unique identifiers; the fields are not looked into here."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    public_key: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    tbs: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


def frame(tbs: bytes) -> bytes:
    """A certificate of `tbs` with an empty signature; ``ValueError`` if `tbs` is no TBSCertificate."""
    parsed = asn1.decode_der(_TbsCertificate, tbs)
    whole = _Certificate(
        tbs=asn1.decode_der(asn1.TLV, tbs), algorithm=parsed.signature, signature=asn1.BitString(b"", 0)
    )
    return asn1.encode_der(whole)
