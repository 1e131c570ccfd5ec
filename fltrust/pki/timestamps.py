"""RFC 3161 timestamps, verified: when a message existed, by the word of an authority that is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fltrust.errors import CertificateRefused, EvidenceInvalid, Malformed, Oversized
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.timestamping import TIMESTAMP_POLICY, check_own_form, check_tsa_profile
from fltrust.pki.types import TrustedChain

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

MAX_TIMESTAMP: Final = 64 * 1024
"""Bytes of a TimeStampResp; one with three certificates has about 2,000."""

_REASON = "timestamp-invalid"


def verify_timestamp(response: bytes, *, message: bytes, authorities: Sequence[TrustedChain]) -> datetime:
    """Return the time that a TimeStampResp (DER) gives `message`, or raise why it does not count.

    1. At most `MAX_TIMESTAMP` bytes, else `Oversized`; a TimeStampResp with a token, else `Malformed`.
    2. Of `authorities`, whose first certificate is the authority's own, one is trusted at that time, else
       `EvidenceInvalid` (``timestamp-untrusted``).
    3. Its certificates were all valid then, each signed by the next, the last by itself, and the first may
       timestamp (RFC 3161, 2.3: critical timeStamping and nothing else).
    4. It was granted, is signed by exactly that certificate, and its imprint is of `message`.
    5. Under the policy of our own authority, the rest of it is in the one form that we write, so that not
       a bit can be another one (`fltrust.pki.timestamping.check_own_form`).

    Steps 3 to 5 raise `EvidenceInvalid` (``timestamp-invalid``). No clock is read: a timestamp by an
    authority that ended since still counts. A token without a certificate is as good as one with.
    """
    # 1.
    if len(response) > MAX_TIMESTAMP:
        raise Oversized(f"expected a timestamp of at most {MAX_TIMESTAMP} bytes, got {len(response)}")
    read = _read(response)
    at = read.tst_info.gen_time
    # 2.
    trusted = [authority for authority in authorities if authority.covers(at)]
    if not trusted:
        raise EvidenceInvalid(
            f"expected a timestamp authority that is trusted at {at:%Y-%m-%dT%H:%M:%SZ}, found none",
            reason="timestamp-untrusted",
        )
    refusals = []
    for authority in trusted:
        try:
            # 3.
            _check_chain(authority.certificates, at)
            # 4.
            _verify(read, message, authority.certificates)
            # 5.
            if read.tst_info.policy == TIMESTAMP_POLICY:
                check_own_form(response, authority.certificates)
        except (EvidenceInvalid, CertificateRefused, Malformed) as error:
            refusals.append(error.message)
        else:
            return at
    raise EvidenceInvalid(
        f"expected a timestamp of this signature by a trusted authority, it is not: {refusals[-1]}",
        reason=_REASON,
    )


def _read(response: bytes) -> TimeStampResponse:
    from rfc3161_client import decode_timestamp_response  # here: what verifies without one need not load it

    try:
        read = decode_timestamp_response(response)
        _ = read.tst_info.gen_time  # of a refusal there is none
    except (ValueError, TypeError) as error:
        raise Malformed(
            f"expected a TimeStampResp with a token in DER, found {type(error).__name__} on reading it",
            reason="timestamp-malformed",
        ) from None
    return read


def _verify(read: TimeStampResponse, message: bytes, chain: tuple[x509.Certificate, ...]) -> None:
    from rfc3161_client import VerificationError, VerifierBuilder

    builder = VerifierBuilder().tsa_certificate(chain[0]).add_root_certificate(chain[-1])
    for intermediate in chain[1:-1]:
        builder = builder.add_intermediate_certificate(intermediate)
    try:
        builder.build().verify_message(read, message)
    except (VerificationError, *PARSE_ERRORS) as error:
        why = str(error).partition(": ErrorStack")[0][:160]
        raise EvidenceInvalid(why or type(error).__name__) from None


def _check_chain(chain: tuple[x509.Certificate, ...], at: datetime) -> None:
    """Step 3. The certificates come from the trusted root; what is checked is that they were in force."""
    if len(chain) < 2:
        raise EvidenceInvalid("expected the authority's certificate and its issuer's in the trusted root")
    check_tsa_profile(chain[0])
    for certificate in chain:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise EvidenceInvalid(
                f"expected certificates of the authority that were valid at {at:%Y-%m-%dT%H:%M:%SZ}"
            )
    for certificate, issuer in pairwise((*chain, chain[-1])):
        try:
            is_ca = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, x509.ExtensionNotFound, *PARSE_ERRORS):
            is_ca = False
        if not is_ca:
            raise EvidenceInvalid(
                "expected each certificate of the authority to be issued by the next, the last by itself"
            )
