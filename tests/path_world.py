"""A CA with all that a relying party could be shown about what it issued: CRLs, deltas, OCSP answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from fltrust.identity import Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import Draft, Issuer, create_issuing, create_root
from fltrust.pki.crl import CrlDraft, CrlReason, encode_entry, sign_crl
from fltrust.pki.path import Evidence, PathPolicy, ValidatedPath, validate_path
from fltrust.pki.signing import SignerKey

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MADE = NOW - timedelta(days=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Domain:
    """One trust domain's CA: a root, an issuing CA below it, and both keys."""

    name: TrustDomain
    root: x509.Certificate
    signer: FileSigner
    issuer: Issuer
    issuing_signer: FileSigner

    @property
    def issuing(self) -> x509.Certificate:
        return self.issuer.certificate

    def issue(self, name: str = "site-a", *, signer: FileSigner | None = None) -> x509.Certificate:
        who = SpiffeId.of(self.name, Role.PARTICIPANT, name)
        return self.issuer.redeem(Draft.of(who, (signer or generate()).public_key, now=NOW))

    def crl(
        self,
        *revoked: x509.Certificate,
        leaves: bool = False,
        reason: CrlReason = CrlReason.KEY_COMPROMISE,
        revoked_at: datetime = MADE,
        invalid_since: datetime | None = None,
        **changes: Any,
    ) -> bytes:
        """The root's CRL, or with `leaves` the issuing CA's; `changes` are fields of `CrlDraft`."""
        entries = [
            encode_entry(
                Serial(item.serial_number), revoked_at=revoked_at, reason=reason, invalid_since=invalid_since
            )
            for item in revoked
        ]
        asked = {"number": 10, "this_update": MADE, "next_update": NOW + 7 * DAY, **changes}
        return sign_crl(
            CrlDraft(**asked, only_leaves=leaves),
            entries,
            certificate=self.issuing if leaves else self.root,
            signer=self.issuing_signer if leaves else self.signer,
        )

    def answer(
        self,
        about: x509.Certificate,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        reason: x509.ReasonFlags | None = None,
        revoked_at: datetime = MADE,
        this_update: datetime = MADE,
        next_update: datetime | None = NOW + DAY,
        issuer: x509.Certificate | None = None,
        responder: x509.Certificate | None = None,
        signer: FileSigner | None = None,
        algorithm: HashAlgorithm | None = None,
    ) -> bytes:
        """An OCSP answer, signed by the issuing CA unless told otherwise."""
        is_revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=about,
            issuer=issuer or self.issuing,
            algorithm=algorithm or SHA256(),
            cert_status=status,
            this_update=this_update,
            next_update=next_update,
            revocation_time=revoked_at if is_revoked else None,
            revocation_reason=reason,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder or self.issuing)
        if responder is not None:
            builder = builder.certificates([responder])
        key = SignerKey(signer or self.issuing_signer)
        return builder.sign(key, SHA256()).public_bytes(Encoding.DER)

    def validate(
        self,
        leaf: x509.Certificate,
        *,
        crls: list[bytes] | None = None,
        answers: list[bytes] | None = None,
        at: datetime = NOW,
        extra: list[x509.Certificate] | None = None,
        **policy: Any,
    ) -> ValidatedPath:
        """Validate under the root, with the root's own CRL always at hand."""
        return validate_path(
            leaf,
            anchors=[self.root],
            intermediates=[self.issuing, *(extra or [])],
            evidence=Evidence.read(crls=[self.crl(), *(crls or [])], ocsp_answers=answers or []),
            at=at,
            policy=PathPolicy(**policy),
        )


def make_domain(name: str = "hospitals.example") -> Domain:
    signer, issuing_signer = generate(), generate()
    root = create_root(TrustDomain(name), signer=signer, now=MADE)
    issuing = create_issuing(root=root, root_signer=signer, public_key=issuing_signer.public_key, now=MADE)
    issuer = Issuer(certificate=issuing, signer=issuing_signer)
    return Domain(TrustDomain(name), root, signer, issuer, issuing_signer)
