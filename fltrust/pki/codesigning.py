"""Code-signing certificates: what a model, a provenance or a status statement is signed with.

They live for minutes and are Sigstore's in shape, so that stock clients take them (Fulcio's certificate
specification; field numbers are arcs of 1.3.6.1.4.1.57264.1):

    subject      empty
    SAN          one URI, critical: the SPIFFE ID (no DNS name: it serves nothing)
    keyUsage     digitalSignature, critical        extendedKeyUsage  codeSigning, alone
    .1 and .8    the issuer of the identity: ``spiffe://<trust domain>``, raw in .1, UTF8String in .8
                 (Sigstore's own command line asks for .1)
    SCT list     exactly one timestamp of the certificate log

The certificate is never signed without its timestamp: the TBSCertificate is taken from a draft that carries
a signature of zero bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys.verify import is_p256
from fltrust.pki.issuing import Issuer
from fltrust.pki.leaf import Leaf, read_leaf, refuse, subject_key_identifier
from fltrust.pki.profiles import BACKDATE, ServiceKind, ServiceProfile, key_usage
from fltrust.pki.sct import (
    SCT_LIST_OID,
    SignedCertificateTimestamp,
    embedded_scts,
    issuer_key_hash,
    sct_extension,
)
from fltrust.pki.signing import SignerKey

ISSUER_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SIGNING_ROLES: Final = frozenset({Role.SIGNER, Role.AGGREGATOR, Role.COORDINATOR})
# The built-in profile's, said here again for verifiers, who do not read the file; a test holds them to it.
DEFAULT_SIGNING_LIFETIME: Final = timedelta(minutes=10)
MAX_SIGNING_LIFETIME: Final = timedelta(hours=1)
_USAGE = key_usage(digital_signature=True)
_EXTENDED = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])

_OPTIONAL = frozenset(
    {
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
)
"""What an operator's profile may add: it says nothing about who signs."""

Promise = Callable[[bytes, bytes], SignedCertificateTimestamp]
"""Gives the log's timestamp for (issuer key hash, TBSCertificate); the log must have the entry, or get it
in the same transaction."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SigningDraft:
    """One code-signing certificate to be. A draft is an occasion, as `fltrust.pki.Draft` is."""

    spiffe_id: SpiffeId
    public_key: ec.EllipticCurvePublicKey
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(
        cls,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey,
        *,
        now: datetime,
        lifetime: timedelta = DEFAULT_SIGNING_LIFETIME,
    ) -> Self:
        """Draft a certificate that lives for `lifetime` from `now`; notBefore is set back by `BACKDATE`."""
        start = now.astimezone(UTC).replace(microsecond=0)
        return cls(spiffe_id, public_key, start - BACKDATE, (start + lifetime).replace(microsecond=0))


@dataclass(frozen=True, slots=True)
class IssuedSigner:
    """A code-signing certificate with what its entry in the log is made of."""

    certificate: x509.Certificate
    issuer_key_hash: bytes
    """SHA-256 of the issuing CA's SubjectPublicKeyInfo."""
    precert_tbs: bytes
    """The TBSCertificate without the list of timestamps."""
    sct: SignedCertificateTimestamp


def issuer_claim(domain: TrustDomain) -> str:
    """What stands as the issuer of an identity in our certificates: ``spiffe://<trust domain>``."""
    return f"spiffe://{domain}"


def lint_signer(draft: SigningDraft, profile: ServiceProfile) -> None:
    """Return only if the draft keeps to the profile; refuse with ``certificate-profile`` otherwise."""
    who, most = draft.spiffe_id, min(profile.max_lifetime, MAX_SIGNING_LIFETIME)
    if who.role not in SIGNING_ROLES:
        refuse(f"expected a signer, an aggregator or the coordinator to sign, got {who}")
    if not is_p256(draft.public_key):
        refuse(f"expected a P-256 key for {who}, got a key of another kind")
    for time in (draft.not_before, draft.not_after):
        if time.tzinfo is None or time.microsecond:
            refuse(f"expected aware times in whole seconds for {who}, got {time.isoformat()}")
    life = draft.not_after - draft.not_before - BACKDATE
    if not timedelta(0) < life <= most:
        refuse(f"expected a signing certificate of {who} to live at most {most}, got {life}")


def issue_signer(issuer: Issuer, draft: SigningDraft, *, promise: Promise) -> IssuedSigner:
    """Issue the draft's code-signing certificate, once, with the log's timestamp embedded.

    1. The draft is linted and held against the issuer, then spent; a spent one raises `Conflict`.
    2. The TBSCertificate is built without the timestamp and shown to `promise`.
    3. The same certificate with the timestamp is signed; its TBSCertificate less the timestamp is that of 2.
    4. Its bytes are parsed again and held against draft and profile.

    `promise` may raise; then nothing was issued and the draft stays spent.
    """
    # 1.
    lint_signer(draft, issuer.profiles.services[ServiceKind.CODE_SIGNING])
    issuer.check_covers(draft)
    issuer.spend(draft)
    # 2.
    builder = _build(issuer, draft)
    tbs = builder.sign(_Unsigned(draft.public_key), SHA256()).tbs_certificate_bytes
    key_hash = issuer_key_hash(issuer.certificate)
    sct = promise(key_hash, tbs)
    # 3.
    certificate = issuer.check_signed(
        issuer.sign(builder.add_extension(sct_extension([sct]), critical=False))
    )
    if certificate.tbs_precertificate_bytes != tbs:
        refuse(f"expected the issued certificate of {draft.spiffe_id} to be the precertificate's, it is not")
    # 4.
    leaf = read_leaf(certificate)
    check_signing_profile(leaf)
    if (
        (leaf.spiffe_id, leaf.not_before, leaf.not_after)
        != (draft.spiffe_id, draft.not_before, draft.not_after)
        or leaf.public_key != draft.public_key
        or embedded_scts(certificate) != (sct,)
    ):
        refuse(f"expected the issued certificate to say what the draft of {draft.spiffe_id} says")
    return IssuedSigner(certificate, key_hash, tbs, sct)


def check_signing_profile(leaf: Leaf) -> None:
    """Return only if the leaf is a code-signing certificate of ours; refuse with ``certificate-profile``.

    Everything the profile names must be so exactly, and nothing else may be there but policies and pointers
    to status. Path and time are
    `fltrust.artifacts.signers`'s to verify, which reads certificates of other Sigstore deployments as well.
    """
    who, extensions = leaf.spiffe_id, leaf.extensions
    claim = issuer_claim(who.domain)
    exact: dict[x509.ObjectIdentifier, tuple[bool, x509.ExtensionType]] = {
        ExtensionOID.BASIC_CONSTRAINTS: (True, x509.BasicConstraints(ca=False, path_length=None)),
        ExtensionOID.KEY_USAGE: (True, _USAGE),
        ExtensionOID.EXTENDED_KEY_USAGE: (False, _EXTENDED),
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: (True, _names(who)),
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: (False, subject_key_identifier(leaf.public_key)),
        ISSUER_OID: (False, x509.UnrecognizedExtension(ISSUER_OID, claim.encode())),
        ISSUER_V2_OID: (False, x509.UnrecognizedExtension(ISSUER_V2_OID, asn1.encode_der(claim))),
    }
    if who.role not in SIGNING_ROLES:
        refuse(f"expected a signer, an aggregator or the coordinator to sign, got {who}")
    for oid, (critical, value) in exact.items():
        found = extensions.get(oid)
        if found is None or found.critical is not critical or found.value != value:
            refuse(
                f"expected extension {oid.dotted_string} of a signing certificate for {who}, found another"
            )
    others = set(extensions) - set(exact)
    if others - _OPTIONAL != {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, SCT_LIST_OID} or list(
        leaf.certificate.subject
    ):
        refuse(f"expected exactly the extensions of a signing certificate for {who}, found others")
    if leaf.not_after - leaf.not_before > MAX_SIGNING_LIFETIME + BACKDATE:
        refuse(f"expected a signing certificate of {who} to live at most {MAX_SIGNING_LIFETIME}")


def _build(issuer: Issuer, draft: SigningDraft) -> x509.CertificateBuilder:
    claim = issuer_claim(draft.spiffe_id.domain)
    return (
        issuer.begin(draft, issuer.draw_serial(), issuer.profiles.services[ServiceKind.CODE_SIGNING])
        .subject_name(x509.Name([]))
        .add_extension(_USAGE, critical=True)
        .add_extension(_EXTENDED, critical=False)
        .add_extension(_names(draft.spiffe_id), critical=True)
        .add_extension(x509.UnrecognizedExtension(ISSUER_OID, claim.encode()), critical=False)
        .add_extension(x509.UnrecognizedExtension(ISSUER_V2_OID, asn1.encode_der(claim)), critical=False)
    )


def _names(who: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(who))])


class _Unsigned(SignerKey):
    """Stands in for the issuer's key where a TBSCertificate is wanted and no certificate."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        self._public_key = public_key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        del data, signature_algorithm
        return b""
