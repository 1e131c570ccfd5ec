"""Trust bundles and chains on disk and on the wire, and the fingerprint that a join token carries."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.errors import CertificateRefused, Malformed, Oversized
from fltrust.identity import Digest, TrustDomain
from fltrust.keys.verify import is_p256
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import TrustBundle
from fltrust.strictbase64 import to_base64, to_base64url

MAX_ROOTS = 16
MAX_BUNDLE = 256 * 1024
BUNDLE_TYPE = "fltrust.trust-bundle.v1"


def root_fingerprint(root: x509.Certificate) -> Digest:
    """Give the SHA-256 of the root's DER: what a join token names the root by."""
    return Digest.sha256_of(root.public_bytes(Encoding.DER))


def bundle_matches_fingerprint(bundle: TrustBundle, fingerprint: Digest) -> bool:
    """Say whether one root of the bundle has this fingerprint. Constant time in the digests.

    It vouches for that root alone: to trust a bundle that came unauthenticated, use `pin_bundle`.
    """
    return bool(_matching(bundle, fingerprint))


def pin_bundle(bundle: TrustBundle, *fingerprints: Digest, unnamed: bool = False) -> TrustBundle:
    """Return the bundle cut down to the roots that `fingerprints` name; refuse if there is none.

    For a bundle fetched before there was trust: a root that somebody added on the way is dropped, and so is
    one that does not name the bundle's trust domain (its one URI SAN): no root may speak for another.
    With `unnamed`, a root without any URI passes: those of foreign domains may be of CAs that are not ours.
    """
    named = {root for fingerprint in fingerprints for root in _matching(bundle, fingerprint)}
    roots = tuple(root for root in bundle.roots if root in named and _may_speak(root, bundle.domain, unnamed))
    if not roots:
        raise CertificateRefused(
            f"expected a root of {bundle.domain} with fingerprint {', '.join(map(str, fingerprints))}, "
            "found none",
            hint="is it of the same federation? its operators know the fingerprint, join tokens carry it",
        )
    return TrustBundle(bundle.domain, roots, bundle.sequence)


def bundle_to_json(bundle: TrustBundle) -> bytes:
    """Write the bundle as one JSON object: type, trust domain, sequence, roots in PEM."""
    return json.dumps(
        {
            "type": BUNDLE_TYPE,
            "trust_domain": str(bundle.domain),
            "sequence": bundle.sequence,
            "roots": [_pem(root) for root in bundle.roots],
        },
        indent=1,
    ).encode()


def bundle_from_json(data: bytes) -> TrustBundle:
    """Read what `bundle_to_json` wrote; `Oversized` above 256 KiB, `Malformed` for anything else."""
    if len(data) > MAX_BUNDLE:
        raise Oversized(f"expected a trust bundle of at most {MAX_BUNDLE} bytes, got {len(data)}")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("expected a trust bundle in JSON, found something else") from None
    if not isinstance(fields, dict) or fields.get("type") != BUNDLE_TYPE:
        raise Malformed(f"expected a trust bundle of type {BUNDLE_TYPE}, found another")
    domain, sequence, roots = (fields.get(k) for k in ("trust_domain", "sequence", "roots"))
    if (
        set(fields) != {"type", "trust_domain", "sequence", "roots"}
        or not isinstance(domain, str)
        or not isinstance(sequence, int)
        or isinstance(sequence, bool)
        or not isinstance(roots, list)
        or not all(isinstance(root, str) for root in roots)
    ):
        raise Malformed("expected type, trust_domain, sequence and roots in a trust bundle, found others")
    certificates = certificates_from_pem("".join(roots).encode(), limit=MAX_ROOTS)
    if len(certificates) != len(roots):
        raise Malformed(f"expected one certificate in each of {len(roots)} roots, found {len(certificates)}")
    return make_bundle(TrustDomain(domain), certificates, sequence=sequence)


def make_bundle(domain: TrustDomain, roots: Sequence[x509.Certificate], *, sequence: int = 1) -> TrustBundle:
    """Make a bundle of 1 to 16 distinct roots; `Malformed` if one of them is no CA certificate."""
    if not 1 <= len(roots) <= MAX_ROOTS or len(set(roots)) != len(roots):
        raise Malformed(f"expected 1 to {MAX_ROOTS} different roots for {domain}, got {len(roots)}")
    if not 0 <= sequence < 2**63:
        raise Malformed(f"expected a sequence between 0 and 2^63-1, got {sequence}")
    for root in roots:
        try:
            is_ca = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, *PARSE_ERRORS):
            is_ca = False
        if not is_ca:
            raise Malformed(f"expected CA certificates as roots of {domain}, found one that is not")
    return TrustBundle(domain, tuple(roots), sequence)


def bundle_to_pem(bundle: TrustBundle) -> bytes:
    """Write the roots as PEM, one after the other: what TLS libraries and OpenSSL take."""
    return chain_to_pem(bundle.roots)


def bundle_from_pem(data: bytes, *, domain: TrustDomain, sequence: int = 1) -> TrustBundle:
    """Read roots in PEM; domain and sequence are not in the file and must come from the caller."""
    return make_bundle(domain, certificates_from_pem(data, limit=MAX_ROOTS), sequence=sequence)


def bundle_to_jwks(bundle: TrustBundle) -> bytes:
    """Export as a SPIFFE bundle for other verifiers: a JWK Set (Trust Domain and Bundle, section 4)."""
    keys = []
    for root in bundle.roots:
        key = root.public_key()
        if not is_p256(key):
            raise Malformed(f"expected P-256 roots of {bundle.domain} to export, found another kind of key")
        numbers = key.public_numbers()
        keys.append(
            {
                "use": "x509-svid",
                "kty": "EC",
                "crv": "P-256",
                "x": to_base64url(numbers.x.to_bytes(32, "big")),
                "y": to_base64url(numbers.y.to_bytes(32, "big")),
                "x5c": [to_base64(root.public_bytes(Encoding.DER))],
            }
        )
    return json.dumps({"keys": keys, "spiffe_sequence": bundle.sequence}).encode()


def chain_to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """Write certificates as PEM, in order."""
    return "".join(_pem(certificate) for certificate in chain).encode()


def certificates_from_pem(data: bytes, *, limit: int) -> tuple[x509.Certificate, ...]:
    """Read 1 to `limit` certificates in PEM; `Oversized` above 256 KiB or `limit`, else `Malformed`."""
    if len(data) > MAX_BUNDLE:
        raise Oversized(f"expected at most {MAX_BUNDLE} bytes of certificates, got {len(data)}")
    count = data.count(b"-----BEGIN ")
    if count > limit:
        raise Oversized(f"expected at most {limit} certificates, got {count}")
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except PARSE_ERRORS:
        raise Malformed("expected certificates in PEM, found something else") from None


def _may_speak(root: x509.Certificate, domain: TrustDomain, unnamed: bool) -> bool:
    try:
        return domain_of_ca(root) == domain
    except Malformed:
        pass
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return unnamed
    except PARSE_ERRORS:
        return False
    return unnamed and not names.get_values_for_type(x509.UniformResourceIdentifier)


def _matching(bundle: TrustBundle, fingerprint: Digest) -> tuple[x509.Certificate, ...]:
    if fingerprint.algorithm != "sha256":
        raise Malformed(f"expected a fingerprint of sha256, got {fingerprint.algorithm}")
    return tuple(
        root for root in bundle.roots if hmac.compare_digest(root_fingerprint(root).value, fingerprint.value)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
