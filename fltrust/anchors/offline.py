"""What a site holds that is seldom connected: its anchors, the CAs below them, and CRLs with their age.

An offline bundle is a file that anybody may carry. It is not signed, and need not be: everything in it is,
by somebody, and `OfflineView.take` keeps only what the anchors that the site holds already vouch for. It can
only add: a bundle that is older, or cut, takes nothing away, so the worst that a carrier can do is to bring
nothing. How old the view is, is told by the CRLs themselves; the relying party's mode says what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust import strictjson
from fltrust.anchors.update import MAX_UPDATE, MAX_UPDATES, apply_updates
from fltrust.errors import CertificateRefused, Malformed, Oversized, Refusal, StatementRefused
from fltrust.identity import TrustDomain
from fltrust.pki.bundle import MAX_BUNDLE, bundle_from_json, bundle_to_json
from fltrust.pki.path import Evidence, PathPolicy, ValidatedPath, validate_path
from fltrust.pki.path.authentic import authentic_crls
from fltrust.pki.path.evidence import Crl
from fltrust.pki.path.types import PathLimits, RevocationMode
from fltrust.pki.types import TrustBundle
from fltrust.strictbase64 import from_base64, to_base64

MAX_OFFLINE_BUNDLE: Final = 96 * 1024 * 1024
MAX_OFFLINE_VIEW: Final = 4 * MAX_OFFLINE_BUNDLE // 3 + 2**20
_LIMITS: Final = PathLimits()
_CHECK: Final = PathPolicy(strict=False, revocation=RevocationMode.BEST_EFFORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineBundle:
    """What is carried to a site. Nothing of it is believed before `OfflineView.take`."""

    TYPE: ClassVar[str] = "urn:fltrust:offline-bundle:v1"
    domain: TrustDomain
    updates: tuple[bytes, ...] = ()
    """Signed updates of the trust anchors, in order."""
    certificates: tuple[bytes, ...] = ()
    """CAs below the anchors and signers of CRLs, in DER."""
    crls: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if (
            len(self.updates) > MAX_UPDATES
            or len(self.certificates) > _LIMITS.certificates
            or len(self.crls) > _LIMITS.crls
            or sum(map(len, self.crls)) > _LIMITS.crl_bytes
            or any(len(der) > _LIMITS.certificate_bytes for der in self.certificates)
            or any(len(update) > MAX_UPDATE for update in self.updates)
        ):
            raise Oversized("expected an offline bundle within its bounds, got more or larger parts")

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": self.TYPE,
                "trustDomain": str(self.domain),
                "updates": [to_base64(update) for update in self.updates],
                "certificates": [to_base64(der) for der in self.certificates],
                "crls": [to_base64(der) for der in self.crls],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` writes, and nothing else: `Oversized`, else `Malformed`."""
        what = "an offline bundle"
        fields = strictjson.Fields(strictjson.decode(data, limit=MAX_OFFLINE_BUNDLE, what=what), what)
        if fields.text("type", limit=64) != cls.TYPE:
            raise StatementRefused(
                f"expected an offline bundle of the type {cls.TYPE}, got another",
                reason=Refusal.UNKNOWN_TYPE,
            )

        def parts(name: str, *, count: int, size: int) -> tuple[bytes, ...]:
            return tuple(
                from_base64(text, f"one of {name}")
                for text in fields.texts(name, limit=count, each=size * 4 // 3 + 4)
            )

        found = cls(
            domain=fields.domain("trustDomain"),
            updates=parts("updates", count=MAX_UPDATES, size=MAX_UPDATE),
            certificates=parts("certificates", count=_LIMITS.certificates, size=_LIMITS.certificate_bytes),
            crls=parts("crls", count=_LIMITS.crls, size=_LIMITS.crl_bytes),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineView:
    """What a site believes: taken in piece by piece, never taken back by an older bundle."""

    TYPE: ClassVar[str] = "urn:fltrust:offline-view:v1"
    bundle: TrustBundle
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    def take(self, offered: OfflineBundle, *, at: datetime) -> OfflineView:
        """Return the view with what is new and genuine in an offline bundle.

        1. It is of the view's trust domain, else `CertificateRefused` (``wrong-domain``).
        2. Updates of anchors that follow the view's are applied; one that does not hold refuses all of it
           (`fltrust.anchors.update.apply_updates`).
        3. Certificates are kept that have a path to the anchors now in force.
        4. CRLs are kept that somebody signed who has such a path; of each issuer and scope the newest,
           whether it was there before or came now.
        """
        # 1.
        if offered.domain != self.bundle.domain:
            raise CertificateRefused(
                f"expected an offline bundle of {self.bundle.domain}, got one of {offered.domain}",
                reason=Refusal.WRONG_DOMAIN,
            )
        # 2.
        bundle = apply_updates(self.bundle, offered.updates, at=at)
        # 3.
        certificates = _with_paths((*self.certificates, *offered.certificates), bundle, at=at)
        # 4.
        known = Evidence.read(crls=self.crls).crls
        offers = Evidence.read(crls=offered.crls).crls
        fresh = authentic_crls(offers, anchors=bundle.roots, intermediates=certificates, at=at)
        crls = tuple(crl.crl.public_bytes(Encoding.DER) for crl in _newest((*known, *fresh)))
        return OfflineView(bundle=bundle, certificates=certificates, crls=crls)

    def validate(
        self,
        leaf: bytes | x509.Certificate,
        *,
        intermediates: Sequence[bytes | x509.Certificate] = (),
        at: datetime,
        policy: PathPolicy | None = None,
    ) -> ValidatedPath:
        """Validate a path by what the site holds (`validate_path`); its mode decides about stale CRLs."""
        return validate_path(
            leaf,
            anchors=self.bundle.roots,
            intermediates=[*self.certificates, *intermediates],
            evidence=Evidence.read(crls=self.crls),
            at=at,
            policy=policy,
        )

    @property
    def fresh_until(self) -> datetime | None:
        """When the first CRL of the view is over, and with it hard-fail for its issuer; None without CRLs."""
        ends = [crl.next_update or crl.this_update for crl in Evidence.read(crls=self.crls).crls]
        return min(ends, default=None)

    def to_json(self) -> bytes:
        """The view as the site keeps it. Whoever can write this file is believed: guard it as a key."""
        return strictjson.encode(
            {
                "type": self.TYPE,
                "anchors": to_base64(bundle_to_json(self.bundle)),
                "held": to_base64(self.to_bundle().to_json()),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` writes, and nothing else: `Oversized`, else `Malformed`."""
        what = "an offline view"
        fields = strictjson.Fields(strictjson.decode(data, limit=MAX_OFFLINE_VIEW, what=what), what)
        if fields.text("type", limit=64) != cls.TYPE:
            raise StatementRefused(
                f"expected an offline view of the type {cls.TYPE}, got another", reason=Refusal.UNKNOWN_TYPE
            )
        anchors = from_base64(fields.text("anchors", limit=2 * MAX_BUNDLE), "the anchors")
        held = OfflineBundle.from_json(from_base64(fields.text("held", limit=MAX_OFFLINE_VIEW), "the rest"))
        fields.done()
        return cls(bundle=bundle_from_json(anchors), certificates=held.certificates, crls=held.crls)

    def to_bundle(self) -> OfflineBundle:
        """The view as a bundle, for the next site; the anchors stay home, since each site has its own."""
        return OfflineBundle(domain=self.bundle.domain, certificates=self.certificates, crls=self.crls)


def _with_paths(certificates: Sequence[bytes], bundle: TrustBundle, *, at: datetime) -> tuple[bytes, ...]:
    distinct = tuple(dict.fromkeys(certificates))
    pool = distinct[: _LIMITS.certificates]
    found = []
    for der in distinct:
        try:
            validate_path(der, anchors=bundle.roots, intermediates=pool, at=at, policy=_CHECK)
        except CertificateRefused:
            continue
        found.append(der)
    if len(found) > _LIMITS.certificates:
        raise Malformed(f"expected at most {_LIMITS.certificates} CAs of one domain, got {len(found)}")
    return tuple(found)


def _newest(crls: Sequence[Crl]) -> list[Crl]:
    found: dict[tuple[object, ...], Crl] = {}
    for crl in crls:
        key = (crl.issuer, crl.authority_key, crl.scope, crl.base is None)
        age = (crl.number or -1, crl.this_update)
        if key not in found or (found[key].number or -1, found[key].this_update) < age:
            found[key] = crl
    return list(found.values())
