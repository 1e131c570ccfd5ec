"""Certificates of CAs: the root, the issuing CA, and what ties one root to another.

Pure but for the key behind the `Signer`: nothing is read from a disk, and nothing is kept.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from fltrust.errors import Conflict, Refusal
from fltrust.identity import KeyId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256
from fltrust.pki.issuing import Entropy, additions, domain_of_ca, new_serial
from fltrust.pki.leaf import PARSE_ERRORS, refuse, subject_key_identifier
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import BACKDATE, CaKind, CaProfile, Profiles, builtin
from fltrust.pki.signing import SignerKey

_CA_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
)


@dataclass(frozen=True, slots=True)
class RootSuccession:
    """A new root and what ties it to the old one (RFC 4210, 4.4): four certificates, two keys, one name.

    Who trusts the old root alone follows `new_with_old` to what the new one issues; who trusts the new
    one alone follows `old_with_new` to what the old one issued.
    """

    old: x509.Certificate
    new: x509.Certificate
    new_with_old: x509.Certificate
    """The new key, certified by the old one."""
    old_with_new: x509.Certificate
    """The old key, certified by the new one."""


def create_root(
    domain: TrustDomain,
    *,
    signer: Signer,
    now: datetime,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
) -> x509.Certificate:
    """Make the self-signed root of `domain`: ten years, for a path of at most three CAs below it."""
    profile = (profiles or builtin()).authorities[CaKind.ROOT]
    name = _ca_name("root", domain, signer.public_key)
    builder = _ca_builder(domain, profile, signer.public_key, now=now, entropy=entropy)
    return builder.subject_name(name).issuer_name(name).sign(SignerKey(signer), SHA256())


def create_issuing(
    *,
    root: x509.Certificate,
    root_signer: Signer,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> x509.Certificate:
    """Make an issuing CA's certificate under `root`, for the root's domain: one year, path length 0.

    Refuses (``certificate-profile``) one that would outlive the root or carries the root's key.
    """
    require_key(root, root_signer)
    profile = (profiles or builtin()).authorities[CaKind.ISSUING]
    if public_key == root_signer.public_key:
        refuse("expected a key of the issuing CA's own, got the root's")
    domain = domain_of_ca(root)
    if whole_seconds(now) + profile.lifetime > root.not_valid_after_utc:
        refuse(f"expected the issuing CA of {domain} to end before its root, it would not")
    builder = _ca_builder(domain, profile, public_key, now=now, entropy=entropy).subject_name(
        _ca_name("issuing", domain, public_key)
    )
    return _signed(builder, profile, root, root_signer, public_url)


def create_root_succession(
    *,
    old: x509.Certificate,
    old_signer: Signer,
    new_signer: Signer,
    now: datetime,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> RootSuccession:
    """Make the next root of the old one's domain, and each certified by the other (RFC 4210, 4.4).

    The new root keeps the old one's name, so that both cross-certificates are self-issued and no path
    length counts them (RFC 5280, 6.1.4 (l)); the keys tell them apart. A cross-certificate ends with the
    root that it is signed by or the one that it speaks of, whichever is sooner. `Conflict` for an
    `old_signer` that is not the old root's or a key that stays the same; ``certificate-expired`` for an old
    root that is over.
    """
    require_key(old, old_signer)
    if new_signer.public_key == old_signer.public_key:
        raise Conflict("expected a new key for the new root, got the old root's")
    if now > old.not_valid_after_utc:
        refuse(
            f"expected an old root that is valid at {now:%Y-%m-%dT%H:%M:%SZ}, it ended",
            reason=Refusal.CERTIFICATE_EXPIRED,
        )
    chosen, domain = profiles or builtin(), domain_of_ca(old)
    root, cross = chosen.authorities[CaKind.ROOT], chosen.authorities[CaKind.ROLLOVER]
    new = (
        _ca_builder(domain, root, new_signer.public_key, now=now, entropy=entropy)
        .subject_name(old.subject)
        .issuer_name(old.subject)
        .sign(SignerKey(new_signer), SHA256())
    )
    until = min(old.not_valid_after_utc, new.not_valid_after_utc)

    def certify(
        public_key: ec.EllipticCurvePublicKey, by: x509.Certificate, signer: Signer
    ) -> x509.Certificate:
        builder = _ca_builder(domain, cross, public_key, now=now, entropy=entropy, until=until)
        return _signed(builder.subject_name(old.subject), cross, by, signer, public_url)

    return RootSuccession(
        old=old,
        new=new,
        new_with_old=certify(new_signer.public_key, old, old_signer),
        old_with_new=certify(old_signer.public_key, new, new_signer),
    )


def check_root_succession(succession: RootSuccession) -> None:
    """Return only if the four certificates are one succession; refuse with ``certificate-path`` otherwise.

    1. Both roots are P-256 CAs of one domain and one name, with different keys, each signed by itself.
    2. Each cross-certificate carries one root's key and name and verifies under the other.
    """
    old, new = succession.old, succession.new
    # 1.
    for root in (old, new):
        _require_issued(root, root)
    if domain_of_ca(old) != domain_of_ca(new) or old.subject != new.subject:
        _broken("expected roots of one trust domain and one name, got two")
    if old.public_key() == new.public_key():
        _broken("expected a new key in the new root, got the old one")
    # 2.
    for cross, about, by in (
        (succession.new_with_old, new, old),
        (succession.old_with_new, old, new),
    ):
        _require_issued(cross, by)
        if cross.public_key() != about.public_key() or cross.subject != about.subject:
            _broken("expected a cross-certificate about the other root, got another")
        if domain_of_ca(cross) != domain_of_ca(about):
            _broken("expected a cross-certificate of the same trust domain, got another")


def create_cross_certificate(
    *,
    subject: x509.Certificate,
    issuer: x509.Certificate,
    signer: Signer,
    constraints: x509.NameConstraints,
    now: datetime,
    lifetime: timedelta | None = None,
    path_length: int | None = None,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> x509.Certificate:
    """Certify another domain's CA (its self-signed `subject`) under ours, within name constraints.

    Names, key and trust domain come from `subject`; everything else from the profile, which `lifetime` and
    `path_length` can only narrow. `constraints` are critical and must permit something (RFC 5280, 4.2.1.10).
    Refused (``certificate-profile``): a subject that is no P-256 CA, one of our own domain, constraints
    that permit nothing by name, times or lengths beyond the profile.
    """
    require_key(issuer, signer)
    profile = (profiles or builtin()).authorities[CaKind.CROSS]
    public_key, domain = subject.public_key(), domain_of_ca(subject)
    if not is_p256(public_key):
        refuse("expected a P-256 key in the CA to certify, found another kind")
    _require_issued(subject, subject)
    if domain == domain_of_ca(issuer):
        refuse(f"expected a CA of another trust domain than {domain}, got one of the same")
    if not constraints.permitted_subtrees:
        refuse(f"expected name constraints that permit something to {domain}, got none")
    life, length = lifetime or profile.lifetime, profile.path_length if path_length is None else path_length
    if life > profile.max_lifetime or not 0 <= length <= profile.path_length:
        refuse(
            f"expected a cross-certificate for at most {profile.max_lifetime} and a path length of at most "
            f"{profile.path_length}, got {life} and {length}"
        )
    until = min(whole_seconds(now) + life, issuer.not_valid_after_utc, subject.not_valid_after_utc)
    builder = _ca_builder(
        domain, profile, public_key, now=now, entropy=entropy, until=until, path_length=length
    )
    return _signed(
        builder.subject_name(subject.subject).add_extension(constraints, critical=True),
        profile,
        issuer,
        signer,
        public_url,
    )


def check_authority(certificate: x509.Certificate, kind: CaKind) -> None:
    """Return only if a CA certificate keeps to the built-in profile of its kind (``certificate-profile``).

    P-256, ECDSA with SHA-256; critical cA:true with a path length within the profile's; exactly its key
    usage, critical; critical name constraints where the profile has them, else none; one trust domain as
    its only alternative name; a key identifier; a life within the profile's.
    """
    profile = builtin().authorities[kind]
    try:
        extensions = {extension.oid: extension for extension in certificate.extensions}
        public_key, algorithm = certificate.public_key(), certificate.signature_algorithm_oid
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    except PARSE_ERRORS as error:
        refuse(f"expected a CA certificate, found {type(error).__name__} on reading it")
    if not is_p256(public_key) or algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        refuse(f"expected P-256 and ECDSA with SHA-256 in a certificate [{kind}], found others")
    basic = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if (
        basic is None
        or not basic.critical
        or not isinstance(basic.value, x509.BasicConstraints)
        or not basic.value.ca
        or basic.value.path_length is None
        or basic.value.path_length > profile.path_length
    ):
        refuse(f"expected critical cA:true and a path length of at most {profile.path_length} in [{kind}]")
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if usage is None or not usage.critical or usage.value != profile.key_usage:
        refuse(f"expected exactly critical keyCertSign and cRLSign in [{kind}], found another key usage")
    constraints = extensions.get(ExtensionOID.NAME_CONSTRAINTS)
    if (constraints is not None and constraints.critical) is not profile.is_constrained or (
        constraints is not None and not profile.is_constrained
    ):
        refuse(f"expected {'critical' if profile.is_constrained else 'no'} name constraints in [{kind}]")
    names = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if (
        names is None
        or not isinstance(names.value, x509.SubjectAlternativeName)
        or len(list(names.value)) != 1
    ):
        refuse(f"expected one alternative name, the trust domain's, in [{kind}], found others")
    domain_of_ca(certificate)
    if ExtensionOID.SUBJECT_KEY_IDENTIFIER not in extensions:
        refuse(f"expected a key identifier in [{kind}], found none")
    if others := set(extensions) - _CA_EXTENSIONS:
        refuse(f"expected no extension {min(oid.dotted_string for oid in others)} in [{kind}], found one")
    if life > profile.max_lifetime + BACKDATE:
        refuse(f"expected a certificate [{kind}] to live at most {profile.max_lifetime}, found {life}")


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s name and key signed a certificate. Says nothing of time or profile."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True


def _signed(
    builder: x509.CertificateBuilder,
    profile: CaProfile,
    issuer: x509.Certificate,
    signer: Signer,
    public_url: PublicUrl | None,
) -> x509.Certificate:
    builder = builder.issuer_name(issuer.subject).add_extension(authority_key(issuer), critical=False)
    for extension in additions(profile, issuer=issuer, public_url=public_url):
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(SignerKey(signer), SHA256())
    parsed = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
    _require_issued(parsed, issuer)
    check_authority(parsed, profile.kind)
    return parsed


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What certificates and CRLs by `issuer` name it by."""
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _ca_builder(
    domain: TrustDomain,
    profile: CaProfile,
    public_key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    entropy: Entropy,
    until: datetime | None = None,
    path_length: int | None = None,
) -> x509.CertificateBuilder:
    start = whole_seconds(now)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")])
    length = profile.path_length if path_length is None else path_length
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(new_serial(entropy))
        .not_valid_before(start - BACKDATE)
        .not_valid_after(until or start + profile.lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(names, critical=False)
        .add_extension(subject_key_identifier(public_key), critical=False)
    )


def _ca_name(kind: str, domain: TrustDomain, public_key: ec.EllipticCurvePublicKey) -> x509.Name:
    # The key's id keeps two CAs of one domain apart; RFC 5280 allows 64 characters in either field.
    key_id = KeyId.of_spki(spki_der(public_key))
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"fltrust {kind} CA {key_id[:16]}"),
        ]
    )


def whole_seconds(now: datetime) -> datetime:
    """A moment in UTC, cut to X.509's resolution."""
    return now.astimezone(UTC).replace(microsecond=0)


def require_key(certificate: x509.Certificate, signer: Signer) -> None:
    """Return only if the signer holds a CA certificate's key; `Conflict` otherwise."""
    if certificate.public_key() != signer.public_key:
        raise Conflict("expected the key of the root certificate, got another key")


def _require_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        is_ca = False
    if not is_ca or not is_issued_by(certificate, issuer) or not is_p256(certificate.public_key()):
        _broken("expected a P-256 CA certificate that verifies under its issuer, it does not")


def _broken(message: str) -> NoReturn:
    refuse(message, reason=Refusal.CERTIFICATE_PATH)
