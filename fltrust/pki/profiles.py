"""What each kind of certificate may say: one frozen profile per role, one for each CA level.

Everywhere: P-256, ECDSA with SHA-256, X.509 v3, serials of 20 random octets, AKI and SKI.
Leaves are SPIFFE X.509-SVIDs: exactly one URI SAN. Their subject is empty, so that the SPIFFE ID is
the only name there is (the SAN is then critical: X.509-SVID, section 3.1; RFC 5280, 4.1.2.6).
CA certificates carry the trust domain as a URI SAN without a path (X.509-SVID, section 3.2, "SHOULD"):
a folder with a CA in it then says which domain it is for.

One step away from the standard, on purpose: X.509-SVID, section 4.4, wants serverAuth and clientAuth
together. A participant or operator never serves, so its certificate says clientAuth alone, and a stolen
one cannot stand in for the coordinator with any TLS client, ours or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.identity import Role

BACKDATE = timedelta(seconds=60)
"""Every notBefore lies this far before the moment of issue, for verifiers whose clock is behind."""

MIN_LEAF_LIFETIME = timedelta(seconds=5)


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


_LEAF_USAGE = key_usage(digital_signature=True)
_CA_USAGE = key_usage(key_cert_sign=True, crl_sign=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafProfile:
    """What a leaf of one role says. Lifetimes count from the moment of issue, not from notBefore."""

    role: Role
    extended_key_usage: frozenset[x509.ObjectIdentifier]
    has_dns_name: bool
    """Whether its own DNS name (`SpiffeId.dns_name`) is among its names."""
    default_lifetime: timedelta
    max_lifetime: timedelta
    min_lifetime: timedelta = MIN_LEAF_LIFETIME
    key_usage: x509.KeyUsage = _LEAF_USAGE
    max_dns_names: int = 0
    """How many DNS names beside it the record may give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaProfile:
    """What a CA certificate says: keyCertSign and cRLSign, and how long a path may follow."""

    path_length: int
    lifetime: timedelta
    key_usage: x509.KeyUsage = _CA_USAGE


_CLIENT = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH})
_SERVER = frozenset({ExtendedKeyUsageOID.SERVER_AUTH})
_SERVING = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH})

LEAF_PROFILES: Mapping[Role, LeafProfile] = MappingProxyType(
    {
        Role.PARTICIPANT: LeafProfile(
            role=Role.PARTICIPANT,
            extended_key_usage=_CLIENT,
            has_dns_name=False,
            default_lifetime=timedelta(hours=1),
            max_lifetime=timedelta(hours=24),
        ),
        Role.OPERATOR: LeafProfile(
            role=Role.OPERATOR,
            extended_key_usage=_CLIENT,
            has_dns_name=False,
            default_lifetime=timedelta(hours=12),
            max_lifetime=timedelta(days=30),
        ),
        Role.SIGNER: LeafProfile(
            role=Role.SIGNER,
            extended_key_usage=_CLIENT,
            has_dns_name=False,
            default_lifetime=timedelta(hours=12),
            max_lifetime=timedelta(days=30),
        ),
        Role.AGGREGATOR: LeafProfile(
            role=Role.AGGREGATOR,
            extended_key_usage=_SERVING,
            has_dns_name=True,
            default_lifetime=timedelta(hours=1),
            max_lifetime=timedelta(hours=24),
        ),
        Role.SERVER: LeafProfile(
            role=Role.SERVER,
            extended_key_usage=_SERVER,
            has_dns_name=False,
            default_lifetime=timedelta(days=7),
            max_lifetime=timedelta(days=47),
            max_dns_names=16,
        ),
        Role.DEVICE: LeafProfile(
            role=Role.DEVICE,
            extended_key_usage=_CLIENT,
            has_dns_name=False,
            default_lifetime=timedelta(days=7),
            max_lifetime=timedelta(days=90),
        ),
        Role.WORKLOAD: LeafProfile(
            role=Role.WORKLOAD,
            extended_key_usage=_SERVING,
            has_dns_name=True,
            default_lifetime=timedelta(hours=1),
            max_lifetime=timedelta(hours=24),
        ),
        Role.COORDINATOR: LeafProfile(
            role=Role.COORDINATOR,
            extended_key_usage=_SERVING,
            has_dns_name=True,
            default_lifetime=timedelta(hours=24),
            max_lifetime=timedelta(days=7),
        ),
    }
)

ISSUING_CA = CaProfile(path_length=0, lifetime=timedelta(days=365))
ROOT_CA = CaProfile(path_length=1, lifetime=timedelta(days=3652))
