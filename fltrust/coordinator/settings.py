"""What a coordinator is told when it is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from fltrust.coordinator.status_settings import StatusSettings
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.errors import Malformed
from fltrust.identity import Role, TrustDomain
from fltrust.pki.profiles import Profiles, builtin
from fltrust.tlog.note import KeyType, VerifierKey


@dataclass(frozen=True, slots=True)
class WitnessSetting:
    """A witness to ask: where, and the key that it cosigns with (type 0x04)."""

    url: str
    key: VerifierKey

    def __post_init__(self) -> None:
        if self.key.key_type is not KeyType.COSIGNATURE:
            raise Malformed(f"expected the key of a witness (cosignature/v1) for {self.url[:80]}")

    @classmethod
    def of(cls, url: str, vkey: str) -> WitnessSetting:
        return cls(url, VerifierKey.parse(vkey))


DEFAULT_GRACE = timedelta(hours=72)
"""A weekend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySettings:
    """Names, addresses and bounds. A role without a lifetime takes its profile's default."""

    domain: TrustDomain
    bootstrap: str
    """``host:port`` of the bootstrap port, as sites reach it; it goes into join tokens."""
    address: str
    """``host:port`` of the mTLS port, as sites reach it."""
    lifetimes: Mapping[Role, timedelta] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=builtin)
    """What is issued keeps to these: the built-in profiles, or an operator's narrower ones."""
    approvals: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    """How many operators approve what."""
    max_token_ttl: timedelta = timedelta(days=7)
    status: StatusSettings = field(default_factory=StatusSettings)
    lapsed_grace: timedelta = DEFAULT_GRACE
    """For how long a certificate that ran out brings its holder back; 0 for never."""
    heartbeat: timedelta = timedelta(seconds=5)
    """How often an idle watch is told that there is nothing new."""

    def __post_init__(self) -> None:
        for role, lifetime in self.lifetimes.items():
            profile = self.profiles.leaves[role]
            if not profile.min_lifetime <= lifetime <= profile.max_lifetime:
                raise Malformed(
                    f"expected a lifetime between {profile.min_lifetime} and {profile.max_lifetime} "
                    f"for the role {role}, got {lifetime}"
                )

    def lifetime_of(self, role: Role) -> timedelta:
        return self.lifetimes.get(role, self.profiles.leaves[role].default_lifetime)
