"""What OCSP answers say of a certificate (RFC 6960)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.hashes import SHA1, Hash, HashAlgorithm
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponse, OCSPSingleResponse
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fltrust.errors import CertificateRefused
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.crls import UNKNOWN, Verdict
from fltrust.pki.path.evidence import Entry, OcspAnswer
from fltrust.pki.path.facts import Facts, read_facts
from fltrust.pki.path.names import name_key
from fltrust.pki.path.processing import PROCESSED
from fltrust.pki.path.signatures import is_signed_by
from fltrust.pki.path.types import CertificateStatus, PathLimits, StatusKind

MAX_RESPONDER_CERTIFICATES: Final = 4

IsSigned = Callable[[Facts, Facts], bool]
"""Whether the second signed the first."""
IsGood = Callable[[Facts], bool]
"""Whether CRLs prove good the certificate of a responder who does not say that nobody need check it."""


@asn1.sequence
class _PublicKeyInfo:
    algorithm: asn1.TLV
    key: asn1.BitString


def judge_by_ocsp(
    facts: Facts,
    issuer: Facts,
    answers: Sequence[OcspAnswer],
    *,
    at: datetime,
    limits: PathLimits,
    is_signed: IsSigned,
    is_good: IsGood,
    count_signature: Callable[[], None],
) -> Verdict:
    """Say what the OCSP answers that may be believed say of one certificate at `at`.

    1. An answer counts that names the certificate by the hashes of its issuer's name and key, and its serial.
    2. It is signed by the issuer, or by a responder whom the issuer itself certified for that (4.2.2.2):
       with id-kp-OCSPSigning, valid at `at`, and with id-pkix-ocsp-nocheck or else proven good by CRLs.
    3. Of answers made by `at` the newest decides, but one that revoked for good stays true. One made after
       `at` can only revoke, by what was in force at `at`. "Unknown" is no evidence.
    4. A good answer is fresh until its next update; without one it was fresh when it was made.
    """
    newest: OCSPSingleResponse | None = None
    for answer in answers:
        for single in answer.singles:
            try:
                if not _names(single, facts, issuer):
                    continue
                count_signature()
                if not _is_believed(answer.response, issuer, at, limits, is_signed, is_good):
                    continue
                entry = _entry(single)
                if single.this_update_utc > at:
                    if entry is not None and entry.is_in_force(at):
                        return Verdict(entry, UNKNOWN)
                    continue
            except PARSE_ERRORS:
                continue
            if entry is not None and entry.reason is not x509.ReasonFlags.certificate_hold:
                return Verdict(entry, UNKNOWN)
            if newest is None or single.this_update_utc > newest.this_update_utc:
                newest = single
    if newest is None:
        return Verdict(None, UNKNOWN)
    if newest.certificate_status is not OCSPCertStatus.GOOD:
        return Verdict(_entry(newest), UNKNOWN)
    end = newest.next_update_utc
    is_fresh = end is not None and at <= end
    kind = StatusKind.GOOD if is_fresh else StatusKind.STALE
    return Verdict(None, CertificateStatus(kind, "ocsp", end or newest.this_update_utc))


def _names(single: OCSPSingleResponse, facts: Facts, issuer: Facts) -> bool:
    algorithm = single.hash_algorithm
    return (
        single.serial_number == facts.serial
        and single.issuer_name_hash == _hash(facts.certificate.issuer.public_bytes(), algorithm)
        and single.issuer_key_hash == _hash(key_bits(issuer), algorithm)
    )


def _is_believed(
    response: OCSPResponse,
    issuer: Facts,
    at: datetime,
    limits: PathLimits,
    is_signed: IsSigned,
    is_good: IsGood,
) -> bool:
    return any(
        _is_responder(response, responder)
        and is_signed_by(
            responder.certificate.public_key(),
            response.signature,
            response.tbs_response_bytes,
            algorithm=response.signature_hash_algorithm,
        )
        and (responder is issuer or is_good(responder))
        for responder in (issuer, *_delegates(response, issuer, at, limits, is_signed))
    )


def _delegates(
    response: OCSPResponse, issuer: Facts, at: datetime, limits: PathLimits, is_signed: IsSigned
) -> Iterator[Facts]:
    for certificate in response.certificates[:MAX_RESPONDER_CERTIFICATES]:
        try:
            facts = read_facts(certificate, limit=limits.certificate_bytes)
        except CertificateRefused:
            continue
        usage = facts.get(x509.ExtendedKeyUsage)
        key_usage = facts.get(x509.KeyUsage)
        if (
            facts.issuer == issuer.subject
            and usage is not None
            and ExtendedKeyUsageOID.OCSP_SIGNING in usage
            and (key_usage is None or key_usage.digital_signature)
            and facts.not_before <= at <= facts.not_after
            and not any(e.critical and oid not in PROCESSED for oid, e in facts.extensions.items())
            and is_signed(facts, issuer)
        ):
            yield facts


def is_exempt(responder: Facts) -> bool:
    """Whether its issuer says that a responder's own status need not be checked (4.2.2.2.1)."""
    return ExtensionOID.OCSP_NO_CHECK in responder.extensions


def key_bits(facts: Facts) -> bytes:
    """The subjectPublicKey of a certificate, without tag, length and unused bits: what OCSP hashes."""
    return bytes(asn1.decode_der(_PublicKeyInfo, facts.spki).key.as_bytes())


def _is_responder(response: OCSPResponse, responder: Facts) -> bool:
    name, key_hash = response.responder_name, response.responder_key_hash
    if name is not None:
        return name_key(name) == responder.subject
    return key_hash == _hash(key_bits(responder), SHA1())  # noqa: S303 - the hash that RFC 6960 names keys by


def _entry(single: OCSPSingleResponse) -> Entry | None:
    """The revocation that an answer tells of; None where it says good or unknown."""
    if single.certificate_status is not OCSPCertStatus.REVOKED or single.revocation_time_utc is None:
        return None
    return Entry(single.revocation_time_utc, single.revocation_reason or x509.ReasonFlags.unspecified, None)


def _hash(data: bytes, algorithm: HashAlgorithm) -> bytes:
    digest = Hash(algorithm)
    digest.update(data)
    return digest.finalize()
