"""A second chain, in ML-DSA-65, for identities that the first chain names. Experimental.

    root (ML-DSA-65, self-signed)  →  issuing CA (ML-DSA-65)  →  leaf: the same SPIFFE ID, an ML-DSA-65 key

It stands beside the chain of P-256 and never in its place: who is asked for both signatures verifies both,
each under its own root. Only what `issue` makes is accepted: version, names, usages, lifetimes and
algorithms are held to one shape, with no path building and no other algorithm (docs/decisions/0010).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from fltrust.errors import CertificateRefused, Conflict, Malformed, Oversized, Refusal
from fltrust.files import read_bounded
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.keys.mldsa import MLDSA65, MldsaSigner
from fltrust.pki.issuing import Entropy, domain_of_ca, new_serial
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.profiles import BACKDATE, key_usage

MAX_SECOND_CERTIFICATE = 16 * 1024
"""Bytes of one certificate: key and signature alone take 5.3 kB."""

ROOT_LIFETIME = timedelta(days=3652)
ISSUING_LIFETIME = timedelta(days=365)
MAX_LEAF_LIFETIME = timedelta(days=30)
_CLOCK_SKEW = timedelta(seconds=60)
_CA_USAGE = key_usage(key_cert_sign=True, crl_sign=True)
_LEAF_USAGE = key_usage(digital_signature=True)
_LEAF_PURPOSE = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_CA_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
_LEAF_EXTENSIONS = _CA_EXTENSIONS | {ExtensionOID.EXTENDED_KEY_USAGE}


@dataclass(frozen=True, slots=True)
class SecondLeaf:
    """A certificate of the second chain that verified: whose, for which key, until when."""

    spiffe_id: SpiffeId
    public_key: MLDSA65PublicKey
    not_before: datetime
    not_after: datetime


class SecondAuthority:
    """An issuing CA of the second chain."""

    def __init__(
        self, certificate: x509.Certificate, signer: MldsaSigner, *, entropy: Entropy = secrets.token_bytes
    ) -> None:
        if certificate.public_key() != signer.public_key:
            raise Malformed("expected the key of the second issuing certificate, got another key")
        self.certificate = certificate
        self.domain = domain_of_ca(certificate)
        self._signer = signer
        self._entropy = entropy

    def issue(
        self, who: SpiffeId, public_key: MLDSA65PublicKey, *, now: datetime, not_after: datetime
    ) -> tuple[x509.Certificate, ...]:
        """Issue a certificate for `who`, whose identity and key were proved elsewhere; the chain, leaf first.

        It lives `MAX_LEAF_LIFETIME` at most. `CertificateRefused` for a longer life, a key of another kind,
        or an identity of another trust domain.
        """
        start = _start(now)
        if who.domain != self.domain:
            raise CertificateRefused(
                f"expected an identity of {self.domain}, got {who}", reason=Refusal.WRONG_DOMAIN
            )
        if not start < not_after <= start + MAX_LEAF_LIFETIME or not isinstance(public_key, MLDSA65PublicKey):
            raise _refused(f"expected an ML-DSA-65 key and a life of at most {MAX_LEAF_LIFETIME} for {who}")
        if not_after > self.certificate.not_valid_after_utc:
            raise _refused(f"expected a second certificate of {who} that ends before its issuing CA does")
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(who))])
        leaf = (
            _begin(public_key, start=start, end=not_after, entropy=self._entropy)
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage(_LEAF_PURPOSE), critical=False)
            .add_extension(names, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._signer.public_key), critical=False
            )
            .sign(self._signer.private_key, None)
        )
        return (leaf, self.certificate)


def create_second_root(
    domain: TrustDomain, signer: MldsaSigner, *, now: datetime, entropy: Entropy = secrets.token_bytes
) -> x509.Certificate:
    """Make the self-signed ML-DSA-65 root of `domain`: ten years, path length 1."""
    return _ca(domain, "second root", signer, signer, None, now=now, life=ROOT_LIFETIME, entropy=entropy)


def create_second_issuing(
    root: x509.Certificate,
    root_signer: MldsaSigner,
    signer: MldsaSigner,
    *,
    now: datetime,
    entropy: Entropy = secrets.token_bytes,
) -> x509.Certificate:
    """Make the issuing CA's certificate under the second root: one year, as long as the root at most."""
    if signer.key_id == root_signer.key_id:
        raise _refused("expected a key of the second issuing CA's own, got the root's")
    life = min(ISSUING_LIFETIME, root.not_valid_after_utc - _start(now))
    return _ca(
        domain_of_ca(root), "second issuing", signer, root_signer, root, now=now, life=life,
        entropy=entropy,
    )  # fmt: skip


def verify_second_chain(
    chain: Sequence[bytes], *, root: x509.Certificate, at: datetime, expect: SpiffeId
) -> SecondLeaf:
    """Verify a chain of the second kind and return its leaf, or raise `CertificateRefused`.

    1. Two certificates, each within its bound, leaf first; nothing else is looked for.
    2. Each is signed with ML-DSA-65, and by the next: the leaf by the issuing CA, that by `root`, which is
       trusted as it is.
    3. All three are valid at `at`.
    4. Root and issuing CA are CAs of one trust domain, with path lengths 1 and 0.
    5. The leaf has the one shape that `SecondAuthority.issue` makes, and names `expect`.
    """
    # 1.
    if len(chain) != 2:
        raise _refused(f"expected a leaf and its issuing CA of the second chain, got {len(chain)}")
    leaf, issuing = map(_parsed, chain)
    # 2.
    for child, parent in ((leaf, issuing), (issuing, root)):
        _check_signed(child, parent)
    # 3.
    for certificate in (leaf, issuing, root):
        _check_time(certificate, at)
    # 4.
    for certificate, length in ((root, 1), (issuing, 0)):
        _check_ca(certificate, length=length, domain=expect.domain)
    # 5.
    return _read_leaf(leaf, expect)


def second_leaf_of(der: bytes, *, expect: SpiffeId) -> SecondLeaf:
    """What a certificate of the second chain says, if it has the one shape and names `expect`.

    Nothing of it is verified: for the holder of its key, who must know for whom it signs.
    """
    return _read_leaf(_parsed(der), expect)


def require_in_force(leaf: SecondLeaf, *, at: datetime) -> None:
    """Return only if the certificate is valid at `at`, give or take what clocks differ by."""
    _check_period(leaf.not_before, leaf.not_after, at)


def second_roots_of(roots: Iterable[x509.Certificate]) -> Mapping[TrustDomain, x509.Certificate]:
    """Second roots by trust domain; `CertificateRefused` for what is none, `Conflict` for two of a domain."""
    found: dict[TrustDomain, x509.Certificate] = {}
    for root in roots:
        domain = domain_of_ca(root)
        _check_ca(root, length=1, domain=domain)
        if domain in found:
            raise Conflict(f"expected one second root of {domain}, got two")
        found[domain] = root
    return found


def read_second_ca(path: Path) -> x509.Certificate:
    """Read a CA certificate of the second chain, in PEM; `Malformed` for anything else."""
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, limit=2 * MAX_SECOND_CERTIFICATE))
    except PARSE_ERRORS:
        raise Malformed(
            f"expected a CA certificate of the second chain in PEM in {path}, found something else"
        ) from None


def _read_leaf(leaf: x509.Certificate, expect: SpiffeId) -> SecondLeaf:
    try:
        extensions = {extension.oid: extension for extension in leaf.extensions}
        names = list(extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value)
        key, subject = leaf.public_key(), list(leaf.subject)
    except (*PARSE_ERRORS, KeyError):
        raise _refused("expected a well-formed certificate of the second chain", Refusal.MALFORMED) from None
    wanted = {
        ExtensionOID.BASIC_CONSTRAINTS: x509.BasicConstraints(ca=False, path_length=None),
        ExtensionOID.KEY_USAGE: _LEAF_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE: x509.ExtendedKeyUsage(_LEAF_PURPOSE),
    }
    if set(extensions) != _LEAF_EXTENSIONS or any(extensions[o].value != v for o, v in wanted.items()):
        raise _refused(f"expected the extensions of a second certificate for {expect}, found others")
    if not isinstance(key, MLDSA65PublicKey) or subject:
        raise _refused(f"expected an ML-DSA-65 key and an empty subject for {expect}, found others")
    if names != [x509.UniformResourceIdentifier(str(expect))]:
        raise _refused(f"expected a second certificate of {expect}, got another's", Refusal.UNKNOWN_IDENTITY)
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end - start > MAX_LEAF_LIFETIME + BACKDATE:
        raise _refused(f"expected a second certificate of {expect} to live at most {MAX_LEAF_LIFETIME}")
    return SecondLeaf(expect, key, start, end)


def _check_ca(certificate: x509.Certificate, *, length: int, domain: TrustDomain) -> None:
    try:
        extensions = {extension.oid: extension.value for extension in certificate.extensions}
        found = domain_of_ca(certificate)
    except (*PARSE_ERRORS, Malformed):
        raise _refused("expected a CA certificate of the second chain", Refusal.MALFORMED) from None
    if found != domain:
        raise _refused(f"expected a second CA of {domain}, got one of {found}", Refusal.WRONG_DOMAIN)
    if not set(extensions) <= _CA_EXTENSIONS or (
        extensions.get(ExtensionOID.BASIC_CONSTRAINTS) != x509.BasicConstraints(ca=True, path_length=length)
        or extensions.get(ExtensionOID.KEY_USAGE) != _CA_USAGE
    ):
        raise _refused(f"expected a second CA of {domain} with path length {length}, found another shape")


def _check_signed(child: x509.Certificate, parent: x509.Certificate) -> None:
    if child.signature_algorithm_oid != MLDSA65 or not isinstance(parent.public_key(), MLDSA65PublicKey):
        raise _refused("expected the second chain to be signed with ML-DSA-65 throughout, it is not")
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise _refused(
            "expected the second chain to lead to its root, it does not", Refusal.CERTIFICATE_PATH
        ) from None


def _check_time(certificate: x509.Certificate, at: datetime) -> None:
    _check_period(certificate.not_valid_before_utc, certificate.not_valid_after_utc, at)


def _check_period(start: datetime, end: datetime, at: datetime) -> None:
    if at > end:
        raise _refused("expected a second certificate in force, it expired", Refusal.CERTIFICATE_EXPIRED)
    if at < start - _CLOCK_SKEW:
        raise _refused(
            "expected a second certificate in force, it is to come", Refusal.CERTIFICATE_NOT_YET_VALID
        )


def _parsed(der: bytes) -> x509.Certificate:
    if len(der) > MAX_SECOND_CERTIFICATE:
        raise Oversized(f"expected a certificate of at most {MAX_SECOND_CERTIFICATE} bytes, got {len(der)}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
    except PARSE_ERRORS:
        raise _refused("expected a certificate of the second chain in DER", Refusal.MALFORMED) from None
    return certificate


def _ca(
    domain: TrustDomain,
    kind: str,
    signer: MldsaSigner,
    issuer: MldsaSigner,
    parent: x509.Certificate | None,
    *,
    now: datetime,
    life: timedelta,
    entropy: Entropy,
) -> x509.Certificate:
    start = _start(now)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"fltrust {kind} CA {signer.key_id[:16]}"),
        ]
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")])
    builder = (
        _begin(signer.public_key, start=start, end=start + life, entropy=entropy)
        .subject_name(name)
        .issuer_name(name if parent is None else parent.subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(names, critical=False)
    )
    if parent is not None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key)
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(issuer.private_key, None)


def _begin(
    public_key: MLDSA65PublicKey, *, start: datetime, end: datetime, entropy: Entropy
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(new_serial(entropy))
        .not_valid_before(start - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _start(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0)


def _refused(message: str, reason: Refusal = Refusal.CERTIFICATE_PROFILE) -> CertificateRefused:
    return CertificateRefused(message, reason=reason)
