"""The OCSP responder's certificate (RFC 6960, 4.2.2.2): issued by the CA whose certificates it answers for.

It says OCSPSigning and nothing else, lives for days, and says that its own status is not to be asked for
(4.2.2.2.1): what protects against a stolen responder key is that its certificate soon ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from fltrust.identity import KeyId, Role, SpiffeId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256
from fltrust.pki.issuing import Issuer
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.profiles import BACKDATE, ServiceKind, builtin


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ResponderDraft:
    """One OCSP responder's certificate to be. A draft is an occasion, as `fltrust.pki.Draft` is."""

    domain: TrustDomain
    public_key: ec.EllipticCurvePublicKey
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, issuer: Issuer, public_key: ec.EllipticCurvePublicKey, *, now: datetime) -> Self:
        """Draft what the profile says from `now`, or to the issuing certificate's end, if that is sooner."""
        start = now.astimezone(UTC).replace(microsecond=0)
        first, last = issuer.certificate.not_valid_before_utc, issuer.certificate.not_valid_after_utc
        lifetime = issuer.profiles.services[ServiceKind.OCSP_RESPONDER].default_lifetime
        return cls(issuer.domain, public_key, max(start - BACKDATE, first), min(start + lifetime, last))

    @property
    def spiffe_id(self) -> SpiffeId:
        """The coordinator's: the responder is part of it. The certificate does not say so."""
        return SpiffeId(self.domain, Role.COORDINATOR, None)


def issue_responder(issuer: Issuer, draft: ResponderDraft) -> x509.Certificate:
    """Issue an OCSP responder's certificate, once. Parsed again and held against the profile.

    It has a name of its own and no SAN: it is nobody's identity. Refuses as `Issuer.redeem` does.
    """
    profile = issuer.profiles.services[ServiceKind.OCSP_RESPONDER]
    if not is_p256(draft.public_key):
        refuse("expected a P-256 key for the OCSP responder, got a key of another kind")
    life = draft.not_after - draft.not_before - BACKDATE
    if not profile.min_lifetime - BACKDATE <= life <= profile.max_lifetime:
        refuse(f"expected an OCSP responder's certificate to live at most {profile.max_lifetime}, got {life}")
    issuer.check_covers(draft)
    issuer.spend(draft)
    builder = (
        issuer.begin(draft, issuer.draw_serial(), profile)
        .subject_name(_name(draft))
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([profile.extended_key_usage]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
    )
    certificate = issuer.check_signed(issuer.sign(builder))
    check_responder_profile(certificate)
    if certificate.public_key() != draft.public_key:
        refuse("expected the issued certificate to carry the draft's key, it does not")
    return certificate


def check_responder_profile(certificate: x509.Certificate) -> None:
    """Return only if a certificate may answer for its issuer and do nothing else: P-256, OCSPSigning alone,
    digitalSignature alone, no-check, no CA, no alternative name, a life within the built-in profile's.

    For ours. Who answers for a stranger's CA is judged by `cryptography` and RFC 6960, 4.2.2.2.
    """
    profile = builtin().services[ServiceKind.OCSP_RESPONDER]
    try:
        extensions = {extension.oid: extension for extension in certificate.extensions}
        public_key = certificate.public_key()
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    except PARSE_ERRORS as error:
        refuse(f"expected an OCSP responder's certificate, found {type(error).__name__} on reading it")
    if not is_p256(public_key):
        refuse("expected a P-256 key of an OCSP responder, found a key of another kind")
    wanted: dict[x509.ObjectIdentifier, tuple[bool, x509.ExtensionType]] = {
        ExtensionOID.KEY_USAGE: (True, profile.key_usage),
        ExtensionOID.EXTENDED_KEY_USAGE: (False, x509.ExtendedKeyUsage([profile.extended_key_usage])),
        ExtensionOID.OCSP_NO_CHECK: (False, x509.OCSPNoCheck()),
        ExtensionOID.BASIC_CONSTRAINTS: (True, x509.BasicConstraints(ca=False, path_length=None)),
    }
    for oid, (critical, value) in wanted.items():
        found = extensions.get(oid)
        if found is None or found.critical is not critical or found.value != value:
            refuse(f"expected extension {oid.dotted_string} of an OCSP responder, found another")
    if ExtensionOID.SUBJECT_ALTERNATIVE_NAME in extensions:
        refuse("expected an OCSP responder without alternative names, found some")
    if life > profile.max_lifetime + BACKDATE:
        refuse(f"expected an OCSP responder's certificate to live at most {profile.max_lifetime}")


def _name(draft: ResponderDraft) -> x509.Name:
    key_id = KeyId.of_spki(spki_der(draft.public_key))
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, draft.domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"fltrust OCSP responder {key_id[:16]}"),
        ]
    )
