"""What each kind of certificate may say: one frozen profile per kind, read from `profiles.toml` beside this.

Everywhere: P-256 (a device's key may be RSA), ECDSA with SHA-256, X.509 v3, serials of 20 random octets,
AKI and SKI.
Leaves are SPIFFE X.509-SVIDs: exactly one URI SAN. Their subject is empty, so that the SPIFFE ID is
the only name there is (the SAN is then critical: X.509-SVID, section 3.1; RFC 5280, 4.1.2.6).
CA certificates carry the trust domain as a URI SAN without a path (X.509-SVID, section 3.2, "SHOULD"):
a folder with a CA in it then says which domain it is for.

One step away from the standard, on purpose: X.509-SVID, section 4.4, wants serverAuth and clientAuth
together. A participant or operator never serves, so its certificate says clientAuth alone, and a stolen
one cannot stand in for the coordinator with any TLS client, ours or not.

The built-in profiles are what verifiers hold certificates against. An issuer may be given narrower ones
(`fltrust.pki.profile_file.narrow`); nothing that is configured can widen them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache

from cryptography import x509

from fltrust.clock import BACKDATE as BACKDATE
from fltrust.identity import Role


class Pointer(StrEnum):
    """What a certificate may point to, under the public URL (`fltrust.pki.pointers`)."""

    CRL = "crl"
    """cRLDistributionPoints: the complete CRL of its issuer."""
    OCSP = "ocsp"
    """authorityInfoAccess, ocsp."""
    ISSUER = "issuer"
    """authorityInfoAccess, caIssuers: its issuer's certificate."""


class ServiceKind(StrEnum):
    """Leaves that are nobody's identity at the door: what the authority itself signs with."""

    CODE_SIGNING = "code-signing"
    TIMESTAMPING = "timestamping"
    OCSP_RESPONDER = "ocsp-responder"


class CaKind(StrEnum):
    """Certificates that certificates can be issued under."""

    ROOT = "root-ca"
    ISSUING = "issuing-ca"
    CROSS = "cross-certificate"
    """Another domain's CA, under name constraints."""
    ROLLOVER = "rollover-certificate"
    """Our own old root under the new one, and the new one under the old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafProfile:
    """What a leaf of one role says. Lifetimes count from the moment of issue, not from notBefore."""

    role: Role
    key_usage: x509.KeyUsage
    extended_key_usage: frozenset[x509.ObjectIdentifier]
    has_dns_name: bool
    """Whether its own DNS name (`SpiffeId.dns_name`) is among its names."""
    max_dns_names: int
    """How many DNS names beside it the record may give."""
    default_lifetime: timedelta
    min_lifetime: timedelta
    max_lifetime: timedelta
    pointers: frozenset[Pointer]
    policies: tuple[x509.ObjectIdentifier, ...] = ()
    """Certificate policies (RFC 5280, 4.2.1.4); the built-in profiles name none."""
    may_be_rsa: bool = False
    """Whether its key may be RSA (`fltrust.pki.leaf_keys`) instead of P-256."""

    @property
    def min_dns_names(self) -> int:
        """How many DNS names the record must give: a server has one, its own or from there."""
        return 1 if self.max_dns_names and not self.has_dns_name else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProfile:
    """What a leaf of a service says: exactly one extended key usage."""

    kind: ServiceKind
    key_usage: x509.KeyUsage
    extended_key_usage: x509.ObjectIdentifier
    is_extended_critical: bool
    has_no_check: bool
    """Whether it says that its own status is not to be asked for (RFC 6960, 4.2.2.2.1)."""
    default_lifetime: timedelta
    min_lifetime: timedelta
    max_lifetime: timedelta
    pointers: frozenset[Pointer]
    policies: tuple[x509.ObjectIdentifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaProfile:
    """What a CA certificate says: keyCertSign and cRLSign, and how long a path may follow at most."""

    kind: CaKind
    key_usage: x509.KeyUsage
    path_length: int
    is_constrained: bool
    """Whether it must carry name constraints; otherwise it must carry none."""
    lifetime: timedelta
    max_lifetime: timedelta
    pointers: frozenset[Pointer]
    policies: tuple[x509.ObjectIdentifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """A whole set: one profile for every role, service and kind of CA. `version` names its file format."""

    version: int
    leaves: Mapping[Role, LeafProfile]
    services: Mapping[ServiceKind, ServiceProfile]
    authorities: Mapping[CaKind, CaProfile]


@cache
def builtin() -> Profiles:
    """The profiles that ship with this version: what every verifier holds certificates against."""
    from fltrust.pki.profile_file import read_builtin  # here: who verifies a model needs no profile

    return read_builtin()


class _BuiltinLeaves(Mapping[Role, LeafProfile]):
    """`builtin().leaves`, read when first asked."""

    def __getitem__(self, role: Role) -> LeafProfile:
        return builtin().leaves[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(builtin().leaves)

    def __len__(self) -> int:
        return len(builtin().leaves)


LEAF_PROFILES: Mapping[Role, LeafProfile] = _BuiltinLeaves()


def key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """Build a KeyUsage with these bits and no other."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
