"""Foreign trust domains: what is agreed with one, and what is kept of it.

Federation is agreed on both sides: each coordinator keeps where the other publishes its bundle, where it
answers, and which participants of its own it lends. Nothing here makes an identity of theirs anybody here: a
participant of theirs is admitted by name and node key, by an operation of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fltrust.errors import Conflict, Malformed
from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256
from fltrust.pki.bundle import MAX_BUNDLE, bundle_from_json, bundle_to_json
from fltrust.pki.types import TrustBundle
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.strictjson import Fields

FEDERATE = "federate"
ADMIT_FOREIGN = "admit-foreign"
END_FEDERATION = "end-federation"

MAX_LENT = 1_000
"""Participants of ours that one foreign domain may use."""
MAX_NODE_KEY = 512
_MAX_URL = 512
_MAX_SPIFFE_ID = 512
_ADDRESS = re.compile(r"[A-Za-z0-9.\[\]:-]{1,253}:[0-9]{1,5}\Z")
_ENDPOINT_ID = re.compile(r"spiffe://[a-z0-9._-]{1,128}(?:/[A-Za-z0-9._-]{1,64}){0,8}\Z")


class BundleProfile(StrEnum):
    """How the other side's bundle endpoint proves who it is (SPIFFE Federation, section 5.2)."""

    HTTPS_SPIFFE = "https_spiffe"
    """By an X.509-SVID of its own trust domain: its present bundle authenticates the next."""
    HTTPS_WEB = "https_web"
    """By a certificate of the Web PKI for the URL's host name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDomain:
    """One foreign domain. `address` is ``host:port`` of its coordinator's mTLS port.

    `heard_at` is when its trust feed last confirmed what is known of it. One that has ended is kept: its
    bundle still verifies what was sealed before.
    """

    bundle: TrustBundle
    address: str
    endpoint_url: str
    profile: BundleProfile
    endpoint_spiffe_id: str | None = None
    """Of the endpoint, with ``https_spiffe``."""
    lent: frozenset[Name] = frozenset()
    """Participants of ours that may take part in its rounds, and whose standing it is told."""
    has_ended: bool = False
    heard_at: datetime | None = None

    def __post_init__(self) -> None:
        if not _ADDRESS.match(self.address):
            raise Malformed(f"expected 'host:port' of the coordinator of {self.domain}")
        _check_url(self.endpoint_url)
        wanted = self.profile is BundleProfile.HTTPS_SPIFFE
        if wanted != (self.endpoint_spiffe_id is not None):
            raise Malformed(
                f"expected the SPIFFE ID of the endpoint with {BundleProfile.HTTPS_SPIFFE}, and only then"
            )
        if self.endpoint_spiffe_id is not None and (
            not _ENDPOINT_ID.match(self.endpoint_spiffe_id)
            or self.endpoint_spiffe_id.removeprefix("spiffe://").partition("/")[0] != self.domain
        ):
            raise Malformed(f"expected the SPIFFE ID of an endpoint of {self.domain} itself")
        if len(self.lent) > MAX_LENT:
            raise Malformed(f"expected at most {MAX_LENT} participants to be lent to {self.domain}")

    @property
    def domain(self) -> TrustDomain:
        return self.bundle.domain

    def with_bundle(self, bundle: TrustBundle) -> ForeignDomain:
        """The same with a newer bundle. `Conflict` for another domain's, and for one that is not newer and
        not the same: a bundle is never set back, and one sequence says one thing."""
        if bundle.domain != self.domain:
            raise Conflict(f"expected a bundle of {self.domain}, got one of {bundle.domain}")
        if bundle.sequence < self.bundle.sequence:
            raise Conflict(
                f"expected a bundle of {self.domain} at or after sequence {self.bundle.sequence}, "
                f"got {bundle.sequence}",
                reason="bundle-downgrade",
                hint="an older bundle is being shown: ask that domain's operators",
            )
        if bundle.sequence == self.bundle.sequence and bundle != self.bundle:
            raise Conflict(
                f"expected one bundle of {self.domain} with sequence {bundle.sequence}, got another",
                reason="bundle-equivocation",
                hint="ask that domain's operators: a bundle that changes takes the next sequence",
            )
        return replace(self, bundle=bundle)

    def to_parameters(self) -> dict[str, object]:
        """The parameters of ``federate``."""
        return {
            "bundle": to_base64(bundle_to_json(self.bundle)),
            "address": self.address,
            "endpointUrl": self.endpoint_url,
            "profile": self.profile.value,
            "endpointSpiffeId": self.endpoint_spiffe_id,
            "lent": sorted(self.lent),
        }

    @classmethod
    def from_parameters(cls, parameters: object) -> Self:
        """Read what `to_parameters` writes, and nothing else."""
        fields = Fields(parameters, "the parameters of federate")
        lent = fields.texts("lent", limit=MAX_LENT, each=63)
        if lent != sorted(set(lent)):
            raise Malformed("expected the names that are lent in order, each once")
        found = cls(
            bundle=bundle_from_json(_bytes(fields, "bundle", limit=MAX_BUNDLE)),
            address=fields.text("address", limit=260),
            endpoint_url=fields.text("endpointUrl", limit=_MAX_URL),
            profile=fields.choice("profile", BundleProfile),
            endpoint_spiffe_id=None
            if fields.is_null("endpointSpiffeId")
            else fields.text("endpointSpiffeId", limit=_MAX_SPIFFE_ID),
            lent=frozenset(map(Name, lent)),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class ForeignParticipant:
    """A participant of another domain, to be admitted: its name there and its Flower node key (SPKI, DER)."""

    who: SpiffeId
    node_key: bytes

    def __post_init__(self) -> None:
        if self.who.role is not Role.PARTICIPANT:
            raise Malformed(f"expected a participant of another domain to admit, got {self.who}")
        try:
            key = load_der_public_key(self.node_key[:MAX_NODE_KEY])
        except Exception as error:
            raise Malformed(f"expected a node key, found {type(error).__name__} on reading it") from None
        if (
            not isinstance(key, ec.EllipticCurvePublicKey)
            or not is_p256(key)
            or spki_der(key) != self.node_key
        ):
            raise Malformed("expected a node key on P-256, in its one form")

    def to_parameters(self) -> dict[str, object]:
        """The parameters of ``admit-foreign``."""
        return {"participant": str(self.who), "nodeKey": to_base64(self.node_key)}

    @classmethod
    def from_parameters(cls, parameters: object) -> Self:
        fields = Fields(parameters, "the parameters of admit-foreign")
        found = cls(fields.spiffe_id("participant"), _bytes(fields, "nodeKey", limit=MAX_NODE_KEY))
        fields.done()
        return found


class ForeignStore(Protocol):
    """Foreign domains, inside the caller's transaction."""

    def get(self, domain: TrustDomain) -> ForeignDomain | None: ...

    def all(self) -> tuple[ForeignDomain, ...]:
        """Every domain that was ever federated with, by name."""
        ...

    def put(self, record: ForeignDomain) -> None:
        """Write one domain, in place of what was there."""
        ...

    def hear(self, domain: TrustDomain, at: datetime) -> None:
        """Note when its feed last confirmed what is known."""
        ...


def lent_identities(domain: TrustDomain, names: Iterable[Name]) -> frozenset[SpiffeId]:
    """The participants of `domain` with these names."""
    return frozenset(SpiffeId(domain, Role.PARTICIPANT, name) for name in names)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Malformed("expected the URL of a bundle endpoint, got something else") from None
    if (
        parts.scheme != "https"
        or not parts.hostname
        or parts.username is not None
        or parts.password is not None
        or parts.fragment
        or port == 0
        or len(url) > _MAX_URL
        or not url.isascii()
        or any(char <= " " or char in '"\\' for char in url)
    ):
        raise Malformed(f"expected 'https://host…' as the URL of a bundle endpoint, got {url[:80]!r}")


def _bytes(fields: Fields, name: str, *, limit: int) -> bytes:
    return from_base64(fields.text(name, limit=limit * 4 // 3 + 4), what=name)
