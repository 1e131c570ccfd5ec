"""Another CA that issues for us: what comes back is held against draft and profile as if it were our own.

It issues X.509-SVIDs to enrolled identities and nothing else. What only our own issuing CA can make stays
there: code-signing certificates (they carry the log's promise and Sigstore's extensions), those of the
timestamp authority (a critical extended key usage) and of OCSP responders (no-check), and the coordinator's
own, so that it comes up while the upstream is away. Its CRLs are its own too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from weakref import WeakSet

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from fltrust.errors import Conflict, Malformed, Refusal
from fltrust.identity import Serial, SpiffeId, TrustDomain
from fltrust.keys.verify import is_p256
from fltrust.pki.ca_certificates import is_issued_by
from fltrust.pki.csr import parse_csr
from fltrust.pki.issuing import Draft, domain_of_ca, lint
from fltrust.pki.leaf import Leaf, alternative_names, check_profile, expected_names, read_leaf, refuse
from fltrust.pki.profiles import BACKDATE, Profiles, builtin

_KNOWN = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
)


@dataclass(frozen=True, slots=True)
class SigningOrder:
    """What a mount is asked to sign: the names and times are ours, the request proves the key."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    not_after: datetime
    csr_der: bytes


class UpstreamMount(Protocol):
    """Somebody else's issuing CA, over a network. Every failure is `Unavailable`; all end in time."""

    def authority(self) -> tuple[x509.Certificate, ...]:
        """The CA that signs, then what leads to its root."""
        ...

    def sign(self, order: SigningOrder) -> x509.Certificate:
        """A certificate for the order. Whoever asks believes nothing of it before checking."""
        ...

    def revoke(self, serial: Serial) -> None:
        """Revoke what it signed; for a serial that is revoked already, nothing more happens."""
        ...


class UpstreamIssuer:
    """An issuing CA behind a mount; safe to call from many threads."""

    def __init__(
        self, mount: UpstreamMount, *, certificate: x509.Certificate, profiles: Profiles | None = None
    ) -> None:
        """`certificate` is the mount's own CA. `Malformed` if it is none of ours: P-256, and the trust domain
        as its URI, which is what our rules know a CA's domain by (X.509-SVID, section 3.2)."""
        if not is_p256(certificate.public_key()):
            raise Malformed("expected an upstream CA with a P-256 key, found another kind")
        self._mount = mount
        self._certificate = certificate
        self._domain = domain_of_ca(certificate)
        self._profiles = profiles or builtin()
        self._lock = threading.Lock()
        self._redeemed: WeakSet[Draft] = WeakSet()

    @property
    def certificate(self) -> x509.Certificate:
        return self._certificate

    @property
    def domain(self) -> TrustDomain:
        return self._domain

    def redeem(self, draft: Draft) -> x509.Certificate:
        """Have the draft's certificate issued, once.

        1. The draft is linted, of this domain, ends no later than the CA, and brings the request of its key.
        2. The draft is spent, before anything is asked; a spent draft raises `Conflict`.
        3. The mount signs; it is told names and end, and everything else stands in its role.
        4. What came is parsed, verifies under the CA, and says what the draft says, no more: key, names,
           empty subject, times no wider than asked, the profile's usages, no extension beyond those of ours.

        Refusals as `Issuer.redeem`'s; `Unavailable` when the mount does not sign.
        """
        # 1.
        lint(draft, self._profiles)
        who = draft.spiffe_id
        if who.domain != self._domain:
            refuse(f"expected an identity of {self._domain}, got {who}", reason=Refusal.WRONG_DOMAIN)
        if draft.not_after > self._certificate.not_valid_after_utc:
            refuse(f"expected {who} to end before the upstream CA does, it would not")
        if draft.csr_der is None or parse_csr(draft.csr_der) != draft.public_key:
            refuse(f"expected the certificate request of {who} for an upstream CA, found none of its key")
        # 2.
        with self._lock:
            if draft in self._redeemed:
                raise Conflict(f"expected a fresh draft for {who}, this one was redeemed")
            self._redeemed.add(draft)
        # 3.
        order = SigningOrder(who, draft.dns_names, draft.not_after, draft.csr_der)
        certificate = self._mount.sign(order)
        # 4.
        parsed = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
        if not is_issued_by(parsed, self._certificate):
            refuse("expected the upstream's certificate to verify under its CA, it does not")
        leaf = read_leaf(parsed)
        check_profile(leaf)
        self._check_says(leaf, draft)
        return parsed

    def revoke(self, serial: Serial) -> None:
        """Tell the upstream CA that a certificate of its is revoked, so that its CRL says so too."""
        self._mount.revoke(serial)

    def _check_says(self, leaf: Leaf, draft: Draft) -> None:
        who = draft.spiffe_id
        if (
            leaf.spiffe_id != who
            or leaf.public_key != draft.public_key
            or set(alternative_names(leaf)) != set(expected_names(who, draft.dns_names))
            or list(leaf.certificate.subject)
        ):
            refuse(f"expected the upstream's certificate to say what the draft of {who} says, it does not")
        if leaf.not_after > draft.not_after or leaf.not_before < draft.not_before - BACKDATE:
            refuse(
                f"expected the upstream's certificate of {who} within the times that were asked for, got "
                f"{leaf.not_before:%Y-%m-%dT%H:%M:%SZ} to {leaf.not_after:%Y-%m-%dT%H:%M:%SZ}"
            )
        if others := set(leaf.extensions) - _KNOWN:
            refuse(
                f"expected no extension {min(oid.dotted_string for oid in others)} in the upstream's "
                f"certificate of {who}, found one"
            )
        if ExtensionOID.AUTHORITY_KEY_IDENTIFIER not in leaf.extensions:
            refuse(f"expected the issuer's key identifier in the upstream's certificate of {who}, found none")


def open_upstream(
    mount: UpstreamMount, *, roots: Sequence[x509.Certificate], profiles: Profiles | None = None
) -> UpstreamIssuer:
    """Ask a mount which CA it is, and take it if one of `roots` signed it directly (``certificate-path``).

    A root that issues by itself is refused: it is what everybody trusts, and belongs offline.
    """
    certificate = mount.authority()[0]
    if certificate in roots or not any(is_issued_by(certificate, root) for root in roots):
        refuse(
            "expected the upstream's issuing CA to be signed by a root of the trust bundle, it is not",
            reason=Refusal.CERTIFICATE_PATH,
        )
    return UpstreamIssuer(mount, certificate=certificate, profiles=profiles)
