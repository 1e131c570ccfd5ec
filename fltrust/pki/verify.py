"""Certificates, verified at a stated time. Revocation is judged after this, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fltrust.errors import Refusal
from fltrust.identity import Digest, KeyId, Role, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.pki.leaf import PARSE_ERRORS, Leaf, ca_key_id, check_profile, read_leaf, refuse
from fltrust.pki.types import TrustBundle, VerifiedCertificate

MAX_CHAIN = 4
"""Certificates in a presented chain: a leaf, its issuer, and room for a cross-signed root."""

MAX_CERTIFICATE = 16 * 1024
"""Bytes of DER of one certificate."""

CLOCK_SKEW = timedelta(seconds=30)
"""How early a certificate may be shown. It is allowed on notBefore only: an expired one is expired."""

Purpose = Literal["client", "server"]
# The Web PKI's rules, and for CAs two of RFC 5280's that those leave out: a key identifier (4.2.1.2), and
# no policy constraints, which nobody here would process (4.2.1.11). The leaf's extended key usage is left
# to the profile, which judges it exactly (step 6).
_CA_RULES = (
    ExtensionPolicy.webpki_defaults_ca()
    .require_present(x509.SubjectKeyIdentifier, Criticality.NON_CRITICAL, None)
    .require_not_present(x509.PolicyConstraints)
)
_LEAF_RULES = ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
)
_PURPOSES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


def verify_certificate(
    chain: Sequence[bytes | x509.Certificate],
    *,
    bundle: TrustBundle,
    at: datetime,
    expect_domain: TrustDomain | None = None,
    expect_role: Role | None = None,
    purpose: Purpose | None = None,
) -> VerifiedCertificate:
    """Return the verified X.509-SVID at the head of `chain`, or raise `CertificateRefused`.

    `chain` is leaf first, in DER or parsed, with or without the root. The answer depends on the
    arguments alone: no clock is read, nothing is remembered. Revocation is not judged here.

    1. Bounds: 1 to `MAX_CHAIN` certificates of at most `MAX_CERTIFICATE` bytes, else ``oversized``;
       each parses as DER, else ``malformed``.
    2. The leaf is P-256, ECDSA with SHA-256, and names exactly one SPIFFE ID of our shape, else
       ``certificate-profile``. That name is a claim until step 4.
    3. The claimed trust domain is the bundle's (and `expect_domain`), else ``wrong-domain``: the
       domain selects the roots, so nothing is tried against the roots of another.
    4. The path leads to a root of the bundle (RFC 5280, section 6, with the rules of the Web PKI for
       signatures, basic constraints, path length, key usage, name constraints and critical extensions), else
       ``certificate-path``. It is verified at `at`, or, when the leaf is not valid then, at the end of
       its validity that is nearest, so that "expired" is said only of what was once good.
    5. The leaf is valid at `at`: at or before notAfter, else ``certificate-expired``; at or after
       notBefore - `CLOCK_SKEW`, else ``certificate-not-yet-valid``.
    6. The leaf keeps to its role's profile: cA:false, key usage, extended key usages, alternative
       names, life; and it is good for `purpose`; else ``certificate-profile``.
    7. The role is `expect_role`, if one is given, else ``wrong-role``.

    Two DER encodings of one ECDSA signature can exist, so name a certificate by serial, not by
    fingerprint, when judging revocation.
    """
    if at.tzinfo is None:
        raise ValueError("expected an aware time to verify at, got a naive one")
    # 1.
    presented = _parse(chain)
    # 2.
    leaf = read_leaf(presented[0])
    # 3.
    domain = leaf.spiffe_id.domain
    if domain != bundle.domain or (expect_domain is not None and domain != expect_domain):
        refuse(
            f"expected a certificate of {expect_domain or bundle.domain}, got one of {leaf.spiffe_id}",
            reason=Refusal.WRONG_DOMAIN,
        )
    # 4.
    moment = min(max(at, leaf.not_before), leaf.not_after)
    path = verify_path(presented, roots=bundle.roots, at=moment)
    # 5.
    _check_time(leaf, at)
    # 6.
    profile = check_profile(leaf)
    if purpose is not None and _PURPOSES[purpose] not in profile.extended_key_usage:
        refuse(f"expected a certificate good as a {purpose}'s, got {leaf.spiffe_id}, which is not")
    # 7.
    if expect_role is not None and leaf.spiffe_id.role is not expect_role:
        refuse(f"expected the role {expect_role}, got {leaf.spiffe_id}", reason=Refusal.WRONG_ROLE)
    return VerifiedCertificate(
        spiffe_id=leaf.spiffe_id,
        serial=leaf.serial,
        key_id=KeyId.of_spki(spki_der(leaf.public_key)),
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        fingerprint=Digest.sha256_of(leaf.certificate.public_bytes(Encoding.DER)),
        chain=path[:-1],
        issuers=tuple(ca_key_id(authority.public_key()) for authority in path[1:]),
    )


def verify_path(
    presented: Sequence[x509.Certificate], *, roots: Sequence[x509.Certificate], at: datetime
) -> tuple[x509.Certificate, ...]:
    """Return the path from the first certificate to one of `roots`, or refuse with ``certificate-path``.

    RFC 5280, section 6, at `at`, through `cryptography`'s verifier. Says nothing of names, the leaf's
    extended key usage or profile.
    """
    if not roots:
        refuse("expected at least one root in the trust bundle, found none", reason=Refusal.CERTIFICATE_PATH)
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(at)
            .max_chain_depth(MAX_CHAIN - 1)
            .extension_policies(ca_policy=_CA_RULES, ee_policy=_LEAF_RULES)
            .build_client_verifier()
        )
        return tuple(verifier.verify(presented[0], list(presented[1:])).chain)
    except (VerificationError, *PARSE_ERRORS) as error:
        # The tail of the message quotes the certificate's own, possibly hostile, subject.
        why = str(error).partition(" (encountered")[0][:160]
        refuse(
            f"expected a path to a root of the trust domain at {at:%Y-%m-%dT%H:%M:%SZ}, found none: {why}",
            reason=Refusal.CERTIFICATE_PATH,
        )


def _parse(chain: Sequence[bytes | x509.Certificate]) -> list[x509.Certificate]:
    if not 1 <= len(chain) <= MAX_CHAIN:
        refuse(f"expected 1 to {MAX_CHAIN} certificates, got {len(chain)}", reason=Refusal.OVERSIZED)
    parsed = []
    for item in chain:
        der = item.public_bytes(Encoding.DER) if isinstance(item, x509.Certificate) else item
        if len(der) > MAX_CERTIFICATE:
            refuse(
                f"expected a certificate of at most {MAX_CERTIFICATE} bytes, got {len(der)}",
                reason=Refusal.OVERSIZED,
            )
        try:
            parsed.append(item if isinstance(item, x509.Certificate) else x509.load_der_x509_certificate(der))
        except PARSE_ERRORS as error:
            refuse(
                f"expected a certificate in DER, found {type(error).__name__} on reading it",
                reason=Refusal.MALFORMED,
            )
    return parsed


def _check_time(leaf: Leaf, at: datetime) -> None:
    if at > leaf.not_after:
        refuse(
            f"expected {leaf.spiffe_id} to be valid at {at:%Y-%m-%dT%H:%M:%SZ}, "
            f"it expired at {leaf.not_after:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.CERTIFICATE_EXPIRED,
        )
    if at < leaf.not_before - CLOCK_SKEW:
        refuse(
            f"expected {leaf.spiffe_id} to be valid at {at:%Y-%m-%dT%H:%M:%SZ}, "
            f"it begins at {leaf.not_before:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.CERTIFICATE_NOT_YET_VALID,
        )
