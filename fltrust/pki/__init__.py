"""Certificates: profiles, draft → lint → issue once, chain verification at a time T, trust bundles."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fltrust.pki.authority import (
        CaFiles,
        init_ca,
        load_bundle,
        load_issuer,
        load_issuing_history,
        renew_issuing,
    )
    from fltrust.pki.bundle import (
        bundle_from_json,
        bundle_from_pem,
        bundle_matches_fingerprint,
        bundle_to_json,
        bundle_to_jwks,
        bundle_to_pem,
        certificates_from_pem,
        chain_to_pem,
        make_bundle,
        pin_bundle,
        root_fingerprint,
    )
    from fltrust.pki.ca_certificates import create_issuing, create_root
    from fltrust.pki.csr import create_csr, parse_csr
    from fltrust.pki.issuing import Draft, Issuer, lint
    from fltrust.pki.profiles import BACKDATE, LEAF_PROFILES, LeafProfile
    from fltrust.pki.types import TrustBundle, VerifiedCertificate
    from fltrust.pki.verify import CLOCK_SKEW, verify_certificate

__all__ = [
    "BACKDATE",
    "CLOCK_SKEW",
    "LEAF_PROFILES",
    "CaFiles",
    "Draft",
    "Issuer",
    "LeafProfile",
    "TrustBundle",
    "VerifiedCertificate",
    "bundle_from_json",
    "bundle_from_pem",
    "bundle_matches_fingerprint",
    "bundle_to_json",
    "bundle_to_jwks",
    "bundle_to_pem",
    "certificates_from_pem",
    "chain_to_pem",
    "create_csr",
    "create_issuing",
    "create_root",
    "init_ca",
    "lint",
    "load_bundle",
    "load_issuer",
    "load_issuing_history",
    "make_bundle",
    "parse_csr",
    "pin_bundle",
    "renew_issuing",
    "root_fingerprint",
    "verify_certificate",
]

_HOMES = {
    "ca_certificates": (
        "create_issuing",
        "create_root",
    ),
    "authority": (
        "CaFiles",
        "init_ca",
        "load_bundle",
        "load_issuer",
        "load_issuing_history",
        "renew_issuing",
    ),
    "bundle": (
        "bundle_from_json",
        "bundle_from_pem",
        "bundle_matches_fingerprint",
        "bundle_to_json",
        "bundle_to_jwks",
        "bundle_to_pem",
        "certificates_from_pem",
        "chain_to_pem",
        "make_bundle",
        "pin_bundle",
        "root_fingerprint",
    ),
    "csr": (
        "create_csr",
        "parse_csr",
    ),
    "issuing": (
        "Draft",
        "Issuer",
        "lint",
    ),
    "profiles": (
        "BACKDATE",
        "LEAF_PROFILES",
        "LeafProfile",
    ),
    "types": (
        "TrustBundle",
        "VerifiedCertificate",
    ),
    "verify": (
        "CLOCK_SKEW",
        "verify_certificate",
    ),
}
"""Where each name lives: a module is loaded when one of its names is first used, since whoever verifies a
model needs few of them."""


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
