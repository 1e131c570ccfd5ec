"""An OCSP answer about one's own certificate, for a server to staple to its handshakes (RFC 6066, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder
from cryptography.x509.oid import AuthorityInformationAccessOID

from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, Refusal, Revoked
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.evidence import Evidence
from fltrust.pki.path.facts import Facts, read_facts
from fltrust.pki.path.ocsp import is_exempt, judge_by_ocsp
from fltrust.pki.path.types import PathLimits, StatusKind

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that is read; ours have about 1 KiB."""


@dataclass(frozen=True, slots=True)
class Staple:
    """An answer that says *good*, of whom the issuer delegated; relying parties take it `until` then."""

    der: bytes
    until: datetime


def staple_request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """The question about `leaf`, in DER. Without a nonce: the answer is for everybody."""
    builder = OCSPRequestBuilder().add_certificate(leaf, issuer, SHA1())  # noqa: S303 - every responder takes it
    return builder.build().public_bytes(Encoding.DER)


def responder_of(leaf: x509.Certificate) -> str:
    """Where the certificate says to ask; `EvidenceMissing` where it does not say."""
    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        found = [
            entry.access_location.value
            for entry in access
            if entry.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(entry.access_location, x509.UniformResourceIdentifier)
        ]
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        found = []
    if not found:
        raise EvidenceMissing(
            "expected the certificate to say where to ask for its status, it does not",
            hint="name the responder with --url, such as http://coordinator:8080/ocsp",
        )
    return found[0]


def check_staple(der: bytes, *, leaf: x509.Certificate, issuer: x509.Certificate, at: datetime) -> Staple:
    """Return the answer if a server may staple it at `at`.

    1. At most `MAX_ANSWER` bytes of DER, *successful*, and about this certificate under this issuer.
    2. Signed by the issuer, or by a responder that it delegated and that nobody need check (4.2.2.2).
    3. It says *good*, and is fresh; `Revoked` where it says *revoked*, else `EvidenceInvalid`.
    """
    # 1.
    if len(der) > MAX_ANSWER:
        raise Malformed(f"expected an OCSP answer of at most {MAX_ANSWER} bytes, got {len(der)}")
    (answer,) = Evidence.read(ocsp_answers=(der,)).answers
    if not answer.is_successful:
        raise EvidenceInvalid(
            f"expected an answer from the OCSP responder, got {answer.response.response_status.name.lower()}",
            hint="is the responder one of this certificate's issuer?",
        )
    # 2.
    limit = PathLimits().certificate_bytes
    verdict = judge_by_ocsp(
        read_facts(leaf, limit=limit),
        read_facts(issuer, limit=limit),
        (answer,),
        at=at,
        limits=PathLimits(),
        is_signed=_is_signed,
        is_good=is_exempt,
        count_signature=lambda: None,
    )
    # 3.
    if verdict.revoked is not None:
        raise Revoked(
            f"the certificate was revoked at {verdict.revoked.at:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.REVOKED,
            hint="get another certificate; do not serve with this one",
        )
    if verdict.status.kind is not StatusKind.GOOD or verdict.status.fresh_until is None:
        raise EvidenceInvalid(
            f"expected a fresh answer that says good, for the certificate's issuer, got {verdict.status.kind}"
        )
    return Staple(der, verdict.status.fresh_until)


def _is_signed(facts: Facts, issuer: Facts) -> bool:
    try:
        facts.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True
