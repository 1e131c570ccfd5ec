"""Judges the certificates of nodes that slept while they ran out; see `fltrust.enrollment.lapsed`."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger
from fltrust.enrollment.lapsed import KIND, MAX_PROOF, LapsedEvidence, lapsed_challenge
from fltrust.enrollment.ports import CertificateStore, EnrollmentStore, TokenStore
from fltrust.enrollment.types import Approval, EnrollRequest, Evidence
from fltrust.errors import EvidenceRefused, Malformed, Oversized
from fltrust.identity import Digest, Role, SpiffeId
from fltrust.keys.verify import is_p256, verify_signature
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import VerifiedCertificate
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN, verify_certificate

_COMES_BACK = frozenset({Role.PARTICIPANT, Role.AGGREGATOR, Role.SIGNER, Role.DEVICE})
"""An operator that was away comes back by another's word."""


@dataclass(frozen=True, slots=True)
class _Verified:
    certificate: VerifiedCertificate
    node_key: bytes | None

    def binding(self) -> bytes:
        return b"lapsed-verified\x00" + self.certificate.fingerprint.value


class LapsedChecker:
    """Lets a name come back with its last certificate, for `grace` after that ran out."""

    kind = KIND

    def __init__(self, *, ledger: Ledger, ca: CurrentCa, grace: timedelta) -> None:
        self._ledger = ledger
        self._ca = ca
        self._grace = grace

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, LapsedEvidence | _Verified)

    def examine(self, request: EnrollRequest, *, now: datetime) -> Evidence:
        """Verify a certificate that ran out, as of its end.

        1. Bounds, and a leaf with a P-256 key whose signature over `lapsed_challenge` the proof is.
        2. The chain verified when the leaf ended: path, domain, profile.
        3. It is of a role that comes back by itself, and ended no longer ago than the grace.

        Raises `Oversized`, `Malformed`, `SignatureInvalid`, `CertificateRefused` or `EvidenceRefused`.
        """
        evidence = request.evidence
        if not isinstance(evidence, LapsedEvidence):
            raise Malformed("expected a certificate that ran out as evidence")
        # 1.
        leaf = _leaf(evidence)
        key = leaf.public_key()
        if not is_p256(key):
            raise Malformed("expected a P-256 key in the certificate, found another kind")
        challenge = lapsed_challenge(request.csr_der, evidence.chain[0], self._ca.domain)
        verify_signature(key, evidence.proof, challenge)
        # 2.
        certificate = verify_certificate(evidence.chain, bundle=self._ca.bundle, at=leaf.not_valid_after_utc)
        # 3.
        who = certificate.spiffe_id
        if who.role not in _COMES_BACK:
            raise EvidenceRefused(f"expected a role that comes back by itself, got {who}", reason="no-rule")
        if now > certificate.not_after + self._grace:
            raise EvidenceRefused(
                f"expected a certificate of {who} that ran out within {self._grace}, it did so longer ago",
                reason="lapsed",
                hint="an operator creates a token with --replace to enroll it anew",
            )
        return _Verified(certificate, request.node_key)

    def confirm(
        self, evidence: Evidence, *, certificates: CertificateStore, enrollments: EnrollmentStore
    ) -> None:
        """Return only if nothing has happened to the name since; judged under the head's lock.

        4. The identity, the certificate and its key stand well.
        5. The certificate is on record, byte for byte, and is the last that its holder was issued: an
           older one, from a backup, brings nobody back.
        6. A participant shows the node key that it enrolled.
        """
        certificate = _examined(evidence).certificate
        who = certificate.spiffe_id
        # 4.
        self._ledger.judge(certificate, is_on_record=True)
        # 5.
        der, newest = certificate.leaf.public_bytes(Encoding.DER), certificates.newest_of(who)
        if newest is None or not hmac.compare_digest(newest.der, der):
            raise EvidenceRefused(
                f"expected the last certificate that {who} was issued, got another",
                reason="superseded",
                hint="is this an old copy of its state? an operator creates a token with --replace",
            )
        # 6.
        enrolled = enrollments.get(who)
        if enrolled is None or enrolled.node_key != _examined(evidence).node_key:
            raise EvidenceRefused(
                f"expected the node key that {who} enrolled, got another", reason="node-key-taken"
            )

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """Give the name back."""
        del tokens, now
        certificate = _examined(evidence).certificate
        who = certificate.spiffe_id
        if who.name is None:
            raise Malformed("the coordinator does not enroll")
        return Approval(
            who.role, who.name, replace=True, claims={"certificate": str(certificate.fingerprint)}
        )


def check_still_last(who: SpiffeId, approval: Approval, certificates: CertificateStore) -> None:
    """Return only if the certificate that earned an approval is still the last that its holder was issued:
    operators may take days to decide, and the name may have been enrolled anew meanwhile."""
    newest = certificates.newest_of(who)
    if newest is None or str(Digest.sha256_of(newest.der)) != approval.claims.get("certificate"):
        raise EvidenceRefused(
            f"expected the last certificate that {who} was issued, it was issued another since",
            reason="superseded",
        )


def _examined(evidence: Evidence) -> _Verified:
    if not isinstance(evidence, _Verified):
        raise Malformed("expected a certificate that was examined")
    return evidence


def _leaf(evidence: LapsedEvidence) -> x509.Certificate:
    if not 1 <= len(evidence.chain) <= MAX_CHAIN or len(evidence.proof) > MAX_PROOF:
        raise Oversized(f"expected 1 to {MAX_CHAIN} certificates and a proof, got more")
    if len(evidence.chain[0]) > MAX_CERTIFICATE:
        raise Oversized(f"expected a certificate of at most {MAX_CERTIFICATE} bytes")
    try:
        leaf = x509.load_der_x509_certificate(evidence.chain[0])
        _ = leaf.public_key()  # parsed on first use
    except PARSE_ERRORS:
        raise Malformed("expected a certificate in DER, found something else") from None
    return leaf
