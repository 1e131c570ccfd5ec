"""Draft → lint → issue once.

A draft says what a certificate will say, with names from the enrollment record. An issuer redeems it
once; whatever it signs is parsed again and held against the profile before it leaves.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self, TypeAlias
from weakref import WeakSet

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from fltrust.errors import Conflict, Malformed, Refusal
from fltrust.identity import Role, Serial, SpiffeId, TrustDomain
from fltrust.keys.signer import Signer
from fltrust.keys.usage import CountedSigner
from fltrust.keys.verify import is_p256
from fltrust.pki.leaf import (
    alternative_names,
    check_profile,
    expected_names,
    is_dns_name,
    read_leaf,
    refuse,
    subject_key_identifier,
)
from fltrust.pki.leaf_keys import LeafKey, is_leaf_key
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import (
    BACKDATE,
    LEAF_PROFILES,
    CaProfile,
    LeafProfile,
    Profiles,
    ServiceKind,
    ServiceProfile,
    builtin,
)
from fltrust.pki.signing import SignerKey

Entropy = Callable[[int], bytes]
AnyProfile: TypeAlias = LeafProfile | ServiceProfile


class AnyDraft(Protocol):
    """What drafts of every profile say. A draft is an occasion: hashed and compared by identity."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """Whose certificate it will be."""
        ...

    @property
    def public_key(self) -> LeafKey: ...

    @property
    def not_before(self) -> datetime: ...

    @property
    def not_after(self) -> datetime: ...


class SvidIssuer(Protocol):
    """Issues to enrolled identities: our own issuing CA (`Issuer`), or another's (`pki.upstream`)."""

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate: what follows a leaf in its chain."""
        ...

    @property
    def domain(self) -> TrustDomain: ...

    def redeem(self, draft: Draft) -> x509.Certificate:
        """Issue the draft's certificate, once, held against draft and profile; or raise, with it spent."""
        ...


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Draft:
    """One certificate to be. A draft is an occasion: two with the same content are two drafts."""

    spiffe_id: SpiffeId
    public_key: LeafKey
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...] = ()
    """DNS names beside the role's own, from the record; for roles whose profile has room for them."""
    csr_der: bytes | None = None
    """The request that proved possession of the key, for an issuing CA that wants to see it (upstream)."""

    @classmethod
    def of(
        cls,
        spiffe_id: SpiffeId,
        public_key: LeafKey,
        *,
        now: datetime,
        lifetime: timedelta | None = None,
        dns_names: Sequence[str] = (),
        csr_der: bytes | None = None,
    ) -> Self:
        """Draft a certificate that lives for `lifetime` from `now` (the role's default if None).

        Times are cut to whole seconds, X.509's resolution; notBefore is set back by `BACKDATE`.
        """
        start = now.astimezone(UTC).replace(microsecond=0)
        life = LEAF_PROFILES[spiffe_id.role].default_lifetime if lifetime is None else lifetime
        end = (start + life).replace(microsecond=0)
        return cls(spiffe_id, public_key, start - BACKDATE, end, tuple(dns_names), csr_der)


def lint(draft: Draft, profiles: Profiles | None = None) -> None:
    """Return only if the draft keeps to its role's profile; refuse with ``certificate-profile`` otherwise.

    The profile is of `profiles`, an issuer's own narrower ones, or the built-in one.

    Refused: a key that is not P-256 (nor RSA, where the profile allows it), times that are naive or not
    whole seconds, a life that is shorter or longer than the profile allows (counted from notBefore +
    `BACKDATE`), DNS names that are none, are named twice, or for which the profile has no room, and none
    where it wants one.
    """
    leaves = LEAF_PROFILES if profiles is None else profiles.leaves
    profile, who = leaves[draft.spiffe_id.role], draft.spiffe_id
    if not is_p256(draft.public_key) and not (profile.may_be_rsa and is_leaf_key(draft.public_key)):
        refuse(f"expected a P-256 key for {who}, got a key of another kind")
    for time in (draft.not_before, draft.not_after):
        if time.tzinfo is None or time.microsecond:
            refuse(f"expected aware times in whole seconds for {who}, got {time.isoformat()}")
    life = draft.not_after - draft.not_before - BACKDATE
    if not profile.min_lifetime <= life <= profile.max_lifetime:
        refuse(
            f"expected a life between {profile.min_lifetime} and {profile.max_lifetime} for {who}, got {life}"
        )
    if not profile.min_dns_names <= len(draft.dns_names) <= profile.max_dns_names:
        refuse(
            f"expected {profile.min_dns_names} to {profile.max_dns_names} DNS names "
            f"from the record of {who}, got {len(draft.dns_names)}"
        )
    if len(set(draft.dns_names)) != len(draft.dns_names) or not all(map(is_dns_name, draft.dns_names)):
        refuse(f"expected different, lower-case DNS names for {who}, got others")


class Issuer:
    """An issuing CA: its certificate, its key behind a `Signer`, and where serials come from.

    `profiles` are an operator's narrower ones (the built-in ones if left out); `public_url` is where status
    is published: certificates point there as their profile says, or nowhere without one.
    """

    def __init__(
        self,
        *,
        certificate: x509.Certificate,
        signer: Signer,
        entropy: Entropy = secrets.token_bytes,
        profiles: Profiles | None = None,
        public_url: PublicUrl | None = None,
    ) -> None:
        if certificate.public_key() != signer.public_key:
            raise Conflict("expected the key of the issuing certificate, got another key")
        self._certificate = certificate
        self._domain = domain_of_ca(certificate)
        self._public_key = signer.public_key
        self._signer = signer
        counted = CountedSigner(signer, name="issuing")
        self.counter = counted.counter
        """Of what its key signed: certificates, CRLs and status answers."""
        self._key = SignerKey(counted)
        self._entropy = entropy
        self.profiles = profiles or builtin()
        self.public_url = public_url
        self._additions: dict[Role | ServiceKind, tuple[x509.ExtensionType, ...]] = {}
        self._authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
        self._lock = threading.Lock()
        self._redeemed: WeakSet[AnyDraft] = WeakSet()  # a draft that is gone cannot come back

    @property
    def certificate(self) -> x509.Certificate:
        """The issuing CA's own certificate: what follows a leaf in its chain."""
        return self._certificate

    @property
    def signer(self) -> Signer:
        """The issuing CA's key, for what it signs beside certificates: its CRLs."""
        return self._signer

    @property
    def domain(self) -> TrustDomain:
        return self._domain

    def redeem(self, draft: Draft) -> x509.Certificate:
        """Issue the draft's certificate, once; safe to call from many threads.

        1. The draft is linted, and held against this issuer: its domain, its validity, its key.
        2. The draft is spent, before anything is signed; a spent draft raises `Conflict`.
        3. The certificate is signed with a fresh serial of 20 random octets, top bit clear.
        4. Its bytes are parsed again and held against draft and profile; only then it is returned.

        Refusals are `CertificateRefused`, ``wrong-domain`` or ``certificate-profile``. A draft whose
        signing failed stays spent: make another.
        """
        # 1.
        lint(draft, self.profiles)
        self.check_covers(draft)
        # 2.
        self.spend(draft)
        # 3.
        serial = self.draw_serial()
        certificate = self.sign(self._build(draft, serial))
        # 4.
        self._check_issued(certificate, draft, serial)
        return certificate

    def spend(self, draft: AnyDraft) -> None:
        """Mark a draft as redeemed, once and for good; a spent one raises `Conflict`."""
        with self._lock:
            if draft in self._redeemed:
                raise Conflict(
                    f"expected a fresh draft for {draft.spiffe_id}, this one was redeemed",
                    hint="make a new draft for every certificate",
                )
            self._redeemed.add(draft)

    def draw_serial(self) -> Serial:
        return new_serial(self._entropy)

    def begin(
        self, draft: AnyDraft, serial: Serial, profile: AnyProfile | None = None
    ) -> x509.CertificateBuilder:
        """Start a certificate with what every leaf of this issuer has: the draft's key and times, cA:false,
        the issuer's name, both key identifiers, and the profile's policies and pointers."""
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self._certificate.subject)
            .public_key(draft.public_key)
            .serial_number(serial)
            .not_valid_before(draft.not_before)
            .not_valid_after(draft.not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(subject_key_identifier(draft.public_key), critical=False)
            .add_extension(self._authority_key, critical=False)
        )
        for extension in () if profile is None else self.additions(profile):
            builder = builder.add_extension(extension, critical=False)
        return builder

    def additions(self, profile: AnyProfile) -> tuple[x509.ExtensionType, ...]:
        """The policies and pointers of a profile, as extensions under this issuer; none of them critical."""
        kind = profile.role if isinstance(profile, LeafProfile) else profile.kind
        found = self._additions.get(kind)
        if found is None:
            found = additions(profile, issuer=self._certificate, public_url=self.public_url)
            self._additions[kind] = found
        return found

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign what was linted and spent before. For the profiles of this room alone."""
        return builder.sign(self._key, SHA256())

    def check_signed(self, certificate: x509.Certificate) -> x509.Certificate:
        """Parse what was signed again, from its bytes, and return it if it verifies under this issuer."""
        parsed = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
        try:
            parsed.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            refuse("expected the issued certificate to verify under its issuer, it does not")
        return parsed

    def check_covers(self, draft: AnyDraft) -> None:
        """Return only if the draft is of the issuer's domain, within its validity, not for its own key."""
        who = draft.spiffe_id
        if who.domain != self._domain:
            refuse(
                f"expected an identity of {self._domain}, got {who}",
                reason=Refusal.WRONG_DOMAIN,
            )
        first, last = self._certificate.not_valid_before_utc, self._certificate.not_valid_after_utc
        if draft.not_after > last:
            refuse(
                f"expected {who} to end by {last:%Y-%m-%dT%H:%M:%SZ}, when the issuing certificate does, "
                f"got {draft.not_after:%Y-%m-%dT%H:%M:%SZ}"
            )
        if draft.not_before < first:
            refuse(
                f"expected {who} to begin no earlier than the issuing certificate, "
                f"{first:%Y-%m-%dT%H:%M:%SZ}, got {draft.not_before:%Y-%m-%dT%H:%M:%SZ}"
            )
        if draft.public_key == self._public_key:
            refuse(f"expected a key of {who}'s own, got the issuing CA's")

    def _build(self, draft: Draft, serial: Serial) -> x509.CertificateBuilder:
        profile = self.profiles.leaves[draft.spiffe_id.role]
        names = x509.SubjectAlternativeName(expected_names(draft.spiffe_id, draft.dns_names))
        return (
            self.begin(draft, serial, profile)
            .subject_name(x509.Name([]))
            .add_extension(profile.key_usage, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(sorted(profile.extended_key_usage, key=lambda oid: oid.dotted_string)),
                critical=False,
            )
            .add_extension(names, critical=True)
        )

    def _check_issued(self, certificate: x509.Certificate, draft: Draft, serial: Serial) -> None:
        leaf = read_leaf(self.check_signed(certificate))
        check_profile(leaf)
        extensions, extra = leaf.extensions, self.additions(self.profiles.leaves[draft.spiffe_id.role])
        if (
            (leaf.spiffe_id, leaf.serial, leaf.not_before, leaf.not_after)
            != (draft.spiffe_id, serial, draft.not_before, draft.not_after)
            or leaf.public_key != draft.public_key
            or extensions[ExtensionOID.SUBJECT_KEY_IDENTIFIER].value
            != subject_key_identifier(draft.public_key)
            or extensions[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value != self._authority_key
            or len(extensions) != 6 + len(extra)
            or any(extensions[addition.oid].value != addition for addition in extra)
            or list(leaf.certificate.subject)
            or alternative_names(leaf) != expected_names(draft.spiffe_id, draft.dns_names)
        ):
            refuse(f"expected the issued certificate to say what the draft of {draft.spiffe_id} says")


def additions(
    profile: AnyProfile | CaProfile, *, issuer: x509.Certificate, public_url: PublicUrl | None
) -> tuple[x509.ExtensionType, ...]:
    """The policies and pointers that a certificate of `profile` carries under `issuer`."""
    found: list[x509.ExtensionType] = []
    if profile.policies:
        found.append(
            x509.CertificatePolicies([x509.PolicyInformation(oid, None) for oid in profile.policies])
        )
    if public_url is not None and profile.pointers:
        found.extend(public_url.extensions(profile.pointers, issuer=issuer))
    return tuple(found)


def new_serial(entropy: Entropy) -> Serial:
    """Draw 20 octets and clear the top bit (RFC 5280, 4.1.2.2: positive, at most 20 octets)."""
    octets = entropy(20)
    if len(octets) != 20:
        raise Malformed(f"expected 20 octets of entropy, got {len(octets)}")
    return Serial(int.from_bytes(octets, "big") & (2**159 - 1))


def domain_of_ca(certificate: x509.Certificate) -> TrustDomain:
    """Read the trust domain that a CA certificate of ours is for, from its URI SAN without a path."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        uris = []
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise Malformed("expected one URI 'spiffe://<trust domain>' in the CA certificate, found another")
    return TrustDomain(uris[0].removeprefix("spiffe://"))
