"""Profiles in TOML: the file that ships, and an operator's own, which can only narrow it.

An operator's file has the same tables, each with some of these keys, and ``version = 1``:

    policies = ["2.25.…"]              at the top: certificate policies of every kind of certificate
    [participant]
    default-lifetime = "30m"           within min-lifetime and max-lifetime
    max-lifetime = "2h"                not above the built-in's
    min-lifetime = "1m"                not below the built-in's
    max-dns-names = 4                  not above the built-in's
    path-length = 0                    of a CA: not above the built-in's
    pointers = ["ocsp"]                in place of the built-in's
    policies = ["2.25.…"]              in place of those at the top

Keys, names, usages and who may have what are not the operator's: verifiers know one shape of each kind.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from cryptography import x509

from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Role
from fltrust.pki.profile_values import (
    Table,
    read_at_most,
    read_boolean,
    read_extended,
    read_key_usage,
    read_number,
    read_pointers,
    read_policies,
    read_span,
)
from fltrust.pki.profiles import (
    CaKind,
    CaProfile,
    LeafProfile,
    Profiles,
    ServiceKind,
    ServiceProfile,
)

VERSION: Final = 1
MAX_PROFILE_FILE: Final = 64 * 1024

_Leaf = TypeVar("_Leaf", LeafProfile, ServiceProfile)

_SPANS = {"default-lifetime", "min-lifetime", "max-lifetime"}
_NARROWED = {
    "leaf": frozenset({*_SPANS, "max-dns-names", "pointers", "policies"}),
    "service": frozenset({*_SPANS, "pointers", "policies"}),
    "ca": frozenset({"default-lifetime", "max-lifetime", "path-length", "pointers", "policies"}),
}


def read_builtin() -> Profiles:
    """Read the file that ships. Every role, service and kind of CA has its table, or it is `Malformed`."""
    return parse_profiles(Path(__file__).with_name("profiles.toml").read_text("utf-8"))


def parse_profiles(text: str) -> Profiles:
    """Read a whole set of profiles; `Malformed` names the table and the key that is wrong."""
    found = _document(text)
    tables = {name: value for name, value in found.items() if name != "version"}
    leaves = {role: _leaf(role, _taken(tables, role)) for role in Role}
    services = {kind: _service(kind, _taken(tables, kind)) for kind in ServiceKind}
    authorities = {kind: _authority(kind, _taken(tables, kind)) for kind in CaKind}
    if tables:
        raise Malformed(f"expected no profile {sorted(tables)[0]!r}")
    return Profiles(
        VERSION, MappingProxyType(leaves), MappingProxyType(services), MappingProxyType(authorities)
    )


def read_narrowed(path: Path, base: Profiles) -> Profiles:
    """Read an operator's file at `path` over `base`; where there is none, `base` itself. See `narrow`."""
    if not path.exists():
        return base
    try:
        text = read_bounded(path, limit=MAX_PROFILE_FILE).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"expected {path} in UTF-8") from None
    return narrow(base, text)


def narrow(base: Profiles, text: str) -> Profiles:
    """Apply an operator's file: `Malformed` for anything that `base` does not allow.

    What comes out allows nothing that `base` does not, but for policies and pointers, which it may name.
    """
    found = _document(text)
    policies = read_policies(found, "policies", where="the top") if "policies" in found else None
    tables = {name: value for name, value in found.items() if name not in {"version", "policies"}}
    leaves = {
        role: _narrowed(profile, "leaf", role, tables.pop(role, {}), policies)
        for role, profile in base.leaves.items()
    }
    services = {
        kind: _narrowed(profile, "service", kind, tables.pop(kind, {}), policies)
        for kind, profile in base.services.items()
    }
    authorities = {
        kind: _narrowed_ca(profile, tables.pop(kind, {}), policies)
        for kind, profile in base.authorities.items()
    }
    if tables:
        raise Malformed(f"expected no profile {sorted(tables)[0][:40]!r}")
    return Profiles(
        VERSION, MappingProxyType(leaves), MappingProxyType(services), MappingProxyType(authorities)
    )


def _document(text: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"expected profiles in TOML: {error}") from None
    version = found.get("version")
    if version != VERSION or isinstance(version, bool):
        raise Malformed(f"expected version {VERSION} of the profiles, got {version!r}")
    return found


def _taken(tables: dict[str, Any], name: str) -> Table:
    table = tables.pop(name, None)
    if not isinstance(table, dict):
        raise Malformed(f"expected a profile [{name}], found none")
    return table


def _leaf(role: Role, table: Table) -> LeafProfile:
    _check_keys(
        table,
        role,
        kind="svid",
        keys={
            "key-usage",
            "extended-key-usage",
            "own-dns-name",
            "max-dns-names",
            "pointers",
            *(_SPANS | (table.keys() & {"rsa-keys"})),
        },
    )
    default, least, most = _lifetimes(table, role)
    return LeafProfile(
        role=role,
        key_usage=read_key_usage(table, role),
        extended_key_usage=frozenset(read_extended(table, role)),
        has_dns_name=read_boolean(table, "own-dns-name", role),
        max_dns_names=read_number(table, "max-dns-names", role),
        default_lifetime=default,
        min_lifetime=least,
        max_lifetime=most,
        pointers=read_pointers(table, role),
        may_be_rsa="rsa-keys" in table and read_boolean(table, "rsa-keys", role),
    )


def _service(kind: ServiceKind, table: Table) -> ServiceProfile:
    _check_keys(
        table,
        kind,
        kind="service",
        keys={
            "key-usage",
            "extended-key-usage",
            "critical-extended-key-usage",
            "no-check",
            "pointers",
            *_SPANS,
        },
    )
    default, least, most = _lifetimes(table, kind)
    extended = read_extended(table, kind)
    if len(extended) != 1:
        raise Malformed(f"expected one extended key usage in [{kind}], found {len(extended)}")
    return ServiceProfile(
        kind=kind,
        key_usage=read_key_usage(table, kind),
        extended_key_usage=extended[0],
        is_extended_critical=read_boolean(table, "critical-extended-key-usage", kind),
        has_no_check=read_boolean(table, "no-check", kind),
        default_lifetime=default,
        min_lifetime=least,
        max_lifetime=most,
        pointers=read_pointers(table, kind),
    )


def _authority(kind: CaKind, table: Table) -> CaProfile:
    _check_keys(
        table,
        kind,
        kind="ca",
        keys={
            "key-usage",
            "path-length",
            "name-constraints",
            "default-lifetime",
            "max-lifetime",
            "pointers",
        },
    )
    lifetime, most = read_span(table, "default-lifetime", kind), read_span(table, "max-lifetime", kind)
    if lifetime > most:
        raise Malformed(f"expected a default lifetime of at most {most} in [{kind}], found {lifetime}")
    constraints = table["name-constraints"]
    if constraints not in ("always", "never"):
        raise Malformed(f"expected name-constraints = 'always' or 'never' in [{kind}]")
    return CaProfile(
        kind=kind,
        key_usage=read_key_usage(table, kind),
        path_length=read_number(table, "path-length", kind),
        is_constrained=constraints == "always",
        lifetime=lifetime,
        max_lifetime=most,
        pointers=read_pointers(table, kind),
    )


def _narrowed(
    profile: _Leaf,
    kind: str,
    name: str,
    table: object,
    policies: tuple[x509.ObjectIdentifier, ...] | None,
) -> _Leaf:
    given = _narrowing(table, kind, name)
    least = read_span(given, "min-lifetime", name, default=profile.min_lifetime)
    most = read_span(given, "max-lifetime", name, default=profile.max_lifetime)
    default = read_span(given, "default-lifetime", name, default=min(profile.default_lifetime, most))
    if not profile.min_lifetime <= least <= default <= most <= profile.max_lifetime:
        raise Malformed(
            f"expected min-lifetime ≤ default-lifetime ≤ max-lifetime in [{name}], within "
            f"{profile.min_lifetime} and {profile.max_lifetime}, got {least}, {default} and {most}"
        )
    changes: dict[str, Any] = {
        "min_lifetime": least,
        "default_lifetime": default,
        "max_lifetime": most,
        **_added(given, name, policies),
    }
    if "max-dns-names" in given and isinstance(profile, LeafProfile):
        changes["max_dns_names"] = read_at_most(given, "max-dns-names", name, profile.max_dns_names)
    return replace(profile, **changes)


def _narrowed_ca(
    profile: CaProfile, table: object, policies: tuple[x509.ObjectIdentifier, ...] | None
) -> CaProfile:
    name = profile.kind
    given = _narrowing(table, "ca", name)
    most = read_span(given, "max-lifetime", name, default=profile.max_lifetime)
    default = read_span(given, "default-lifetime", name, default=min(profile.lifetime, most))
    if not default <= most <= profile.max_lifetime:
        raise Malformed(
            f"expected default-lifetime ≤ max-lifetime ≤ {profile.max_lifetime} in [{name}], got {default} "
            f"and {most}"
        )
    changes: dict[str, Any] = {
        "lifetime": default,
        "max_lifetime": most,
        **_added(given, name, policies),
    }
    if "path-length" in given:
        changes["path_length"] = read_at_most(given, "path-length", name, profile.path_length)
    return replace(profile, **changes)


def _narrowing(table: object, kind: str, name: str) -> Table:
    if not isinstance(table, dict):
        raise Malformed(f"expected a table [{name}], found something else")
    if unknown := set(table) - _NARROWED[kind]:
        raise Malformed(
            f"expected no {sorted(unknown)[0][:40]!r} in [{name}]",
            hint=f"an operator sets {', '.join(sorted(_NARROWED[kind]))}",
        )
    return table


def _added(given: Table, name: str, policies: tuple[x509.ObjectIdentifier, ...] | None) -> dict[str, object]:
    added: dict[str, object] = {}
    if "pointers" in given:
        added["pointers"] = read_pointers(given, name)
    if "policies" in given:
        added["policies"] = read_policies(given, "policies", where=f"[{name}]")
    elif policies is not None and name != CaKind.ROOT:  # a root's policies are never looked at
        added["policies"] = policies
    return added


def _check_keys(table: Table, name: str, *, kind: str, keys: set[str]) -> None:
    if table.get("kind") != kind:
        raise Malformed(f"expected kind = {kind!r} in [{name}], got {table.get('kind')!r}")
    if set(table) != keys | {"kind"}:
        differs = sorted(set(table) ^ (keys | {"kind"}))
        raise Malformed(f"expected exactly {', '.join(sorted(keys))} in [{name}]; differs: {differs[0]}")


def _lifetimes(table: Table, name: str) -> tuple[timedelta, timedelta, timedelta]:
    default, least, most = (
        read_span(table, key, name) for key in ("default-lifetime", "min-lifetime", "max-lifetime")
    )
    if not least <= default <= most:
        raise Malformed(f"expected min-lifetime ≤ default-lifetime ≤ max-lifetime in [{name}]")
    return default, least, most
