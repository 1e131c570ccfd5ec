"""Certificate revocation lists (RFC 5280, 5), complete and delta, signed through a `Signer`.

An entry is encoded once, when its certificate is revoked; a list is put together from encoded entries, so
that one of 100,000 costs what reading them costs. What is built is read again and held against what was
asked before it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from fltrust.errors import Conflict, Malformed
from fltrust.identity import Serial
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.rfc3161 import ECDSA_WITH_SHA256, Algorithm, as_tlv

MAX_NUMBER: Final = 2**159 - 1
"""A CRL number has at most 20 octets (RFC 5280, 5.2.3)."""

_LAST_UTC_TIME: Final = 2049
_FIRST_YEAR: Final = 1950


class CrlReason(IntEnum):
    """CRLReason (RFC 5280, 5.3.1)."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    REMOVE_FROM_CRL = 8
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10


@asn1.sequence
class Extension:
    """RFC 5280, 4.1."""

    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Entry:
    serial: int
    date: asn1.UTCTime | asn1.GeneralizedTime
    extensions: list[Extension] | None


@asn1.sequence
class _Tbs:
    """TBSCertList; `revoked` is left out where nothing is revoked (RFC 5280, 5.1.2.6)."""

    version: int
    signature: Algorithm
    issuer: asn1.TLV
    this_update: asn1.UTCTime | asn1.GeneralizedTime
    next_update: asn1.UTCTime | asn1.GeneralizedTime
    revoked: list[asn1.TLV] | None
    extensions: Annotated[list[Extension], asn1.Explicit(0)]


@asn1.sequence
class _CertificateList:
    tbs: asn1.TLV
    algorithm: Algorithm
    signature: asn1.BitString


_ALGORITHM = Algorithm(algorithm=ECDSA_WITH_SHA256, parameters=None)
_V2 = 1


def encode_entry(
    serial: Serial, *, revoked_at: datetime, reason: CrlReason, invalid_since: datetime | None = None
) -> bytes:
    """Encode one revokedCertificates entry in DER.

    Times are cut to seconds. *unspecified* is said by leaving the reason out (RFC 5280, 5.3.1).
    `invalid_since` becomes invalidityDate (5.3.2): when the key was, or may have been, in other hands.
    """
    extensions = []
    if reason is not CrlReason.UNSPECIFIED:
        extensions.append(
            Extension(
                oid=CRLEntryExtensionOID.CRL_REASON, critical=False, value=b"\x0a\x01" + bytes((reason,))
            )
        )
    if invalid_since is not None:
        since = asn1.encode_der(asn1.GeneralizedTime(_seconds(invalid_since)))
        extensions.append(Extension(oid=CRLEntryExtensionOID.INVALIDITY_DATE, critical=False, value=since))
    entry = _Entry(serial=int(serial), date=_time(revoked_at), extensions=extensions or None)
    return asn1.encode_der(entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlDraft:
    """One list to be: what it says beside its entries.

    `base` makes it a delta CRL against the complete CRL of that number (RFC 5280, 5.2.4). `point` is the
    address that it is the CRL of, named in issuingDistributionPoint (5.2.5) where it is given: a
    certificate is then covered only if it names that address too. `freshest` is where the delta lies.
    `only_leaves` says that it speaks of no CA certificates.
    """

    number: int
    this_update: datetime
    next_update: datetime
    base: int | None = None
    point: str | None = None
    freshest: str | None = None
    only_leaves: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.number <= MAX_NUMBER or (self.base is not None and not 0 < self.base < self.number):
            raise Malformed("expected a CRL number after its base's, of at most 20 octets")
        if self.this_update >= self.next_update:
            raise Malformed("expected the next CRL to come after this one")


def sign_crl(
    draft: CrlDraft, entries: Sequence[bytes], *, certificate: x509.Certificate, signer: Signer
) -> bytes:
    """Sign a CRL of the CA whose `certificate` this is; `entries` are `encode_entry`'s. Returns DER.

    `Conflict` if the key is not the certificate's; ``certificate-profile`` for a CA without cRLSign. What
    was signed is parsed again and verified.
    """
    if certificate.public_key() != signer.public_key:
        raise Conflict("expected the key of the CA whose CRL is signed, got another key")
    check_may_sign_crls(certificate)
    tbs = asn1.encode_der(
        _Tbs(
            version=_V2,
            signature=_ALGORITHM,
            issuer=as_tlv(certificate.subject.public_bytes()),
            this_update=_time(draft.this_update),
            next_update=_time(draft.next_update),
            revoked=[as_tlv(entry) for entry in entries] or None,
            extensions=_extensions(draft, certificate),
        )
    )
    signature = asn1.BitString(signer.sign(tbs), 0)
    der = asn1.encode_der(_CertificateList(tbs=as_tlv(tbs), algorithm=_ALGORITHM, signature=signature))
    return _checked(der, draft, len(entries), certificate)


def check_may_sign_crls(certificate: x509.Certificate) -> None:
    """Return only if a CA's certificate says cRLSign (RFC 5280, 4.2.1.3)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        usage = None
    if usage is None or not usage.crl_sign:
        refuse("expected cRLSign among the key usages of the CA that signs a CRL, found none")


def crl_to_pem(der: bytes) -> bytes:
    """The same CRL in PEM, as nginx, Envoy and OpenSSL read it from files."""
    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)


def _extensions(draft: CrlDraft, certificate: x509.Certificate) -> list[Extension]:
    name = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    found: list[tuple[x509.ObjectIdentifier, bool, x509.ExtensionType]] = [
        (
            ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
            False,
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(name),
        ),
        (ExtensionOID.CRL_NUMBER, False, x509.CRLNumber(draft.number)),
    ]
    if draft.only_leaves or draft.point is not None:
        found.append((ExtensionOID.ISSUING_DISTRIBUTION_POINT, True, _scope(draft)))
    if draft.base is not None:
        found.append((ExtensionOID.DELTA_CRL_INDICATOR, True, x509.DeltaCRLIndicator(draft.base)))
    elif draft.freshest is not None:
        found.append((ExtensionOID.FRESHEST_CRL, False, x509.FreshestCRL([_point(draft.freshest)])))
    return [
        Extension(oid=oid, critical=critical, value=value.public_bytes()) for oid, critical, value in found
    ]


def _scope(draft: CrlDraft) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=None if draft.point is None else [x509.UniformResourceIdentifier(draft.point)],
        relative_name=None,
        only_contains_user_certs=draft.only_leaves,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


def _point(address: str) -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier(address)], None, None, None)


def _checked(der: bytes, draft: CrlDraft, count: int, certificate: x509.Certificate) -> bytes:
    """What was signed, read again: the key, the issuer, the number and how many entries there are."""
    crl = x509.load_der_x509_crl(der)
    public_key = certificate.public_key()
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    if (
        not is_p256(public_key)
        or not crl.is_signature_valid(public_key)
        or crl.issuer != certificate.subject
        or number != draft.number
        or len(crl) != count
    ):
        refuse("expected the signed CRL to say what its draft says, it does not")
    return der


def _seconds(at: datetime) -> datetime:
    if at.tzinfo is None or at.year < _FIRST_YEAR:
        raise Malformed("expected an aware time from 1950 on")
    return at.replace(microsecond=0)


def _time(at: datetime) -> asn1.UTCTime | asn1.GeneralizedTime:
    """UTCTime through 2049, GeneralizedTime from then on (RFC 5280, 5.1.2.4)."""
    cut = _seconds(at)
    return asn1.UTCTime(cut) if cut.year <= _LAST_UTC_TIME else asn1.GeneralizedTime(cut)
