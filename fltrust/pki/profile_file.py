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

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Role
from fltrust.pki.profiles import (
    CaKind,
    CaProfile,
    LeafProfile,
    Pointer,
    Profiles,
    ServiceKind,
    ServiceProfile,
    key_usage,
)

VERSION: Final = 1
MAX_PROFILE_FILE: Final = 64 * 1024
MAX_POLICIES: Final = 8

Table: TypeAlias = Mapping[str, Any]
_Leaf = TypeVar("_Leaf", LeafProfile, ServiceProfile)

_KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
}
_EXTENDED = {
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "codeSigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "timeStamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "OCSPSigning": ExtendedKeyUsageOID.OCSP_SIGNING,
}
EXTENDED_NAMES: Final = MappingProxyType({oid: name for name, oid in _EXTENDED.items()})
"""Extended key usages as RFC 5280 spells them."""
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,38})){1,30}\Z")
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
    policies = _policies(found, "policies", where="the top") if "policies" in found else None
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
        key_usage=_key_usage(table, role),
        extended_key_usage=frozenset(_extended(table, role)),
        has_dns_name=_boolean(table, "own-dns-name", role),
        max_dns_names=_number(table, "max-dns-names", role),
        default_lifetime=default,
        min_lifetime=least,
        max_lifetime=most,
        pointers=_pointers(table, role),
        may_be_rsa="rsa-keys" in table and _boolean(table, "rsa-keys", role),
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
    extended = _extended(table, kind)
    if len(extended) != 1:
        raise Malformed(f"expected one extended key usage in [{kind}], found {len(extended)}")
    return ServiceProfile(
        kind=kind,
        key_usage=_key_usage(table, kind),
        extended_key_usage=extended[0],
        is_extended_critical=_boolean(table, "critical-extended-key-usage", kind),
        has_no_check=_boolean(table, "no-check", kind),
        default_lifetime=default,
        min_lifetime=least,
        max_lifetime=most,
        pointers=_pointers(table, kind),
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
    lifetime, most = _span(table, "default-lifetime", kind), _span(table, "max-lifetime", kind)
    if lifetime > most:
        raise Malformed(f"expected a default lifetime of at most {most} in [{kind}], found {lifetime}")
    constraints = table["name-constraints"]
    if constraints not in ("always", "never"):
        raise Malformed(f"expected name-constraints = 'always' or 'never' in [{kind}]")
    return CaProfile(
        kind=kind,
        key_usage=_key_usage(table, kind),
        path_length=_number(table, "path-length", kind),
        is_constrained=constraints == "always",
        lifetime=lifetime,
        max_lifetime=most,
        pointers=_pointers(table, kind),
    )


def _narrowed(
    profile: _Leaf,
    kind: str,
    name: str,
    table: object,
    policies: tuple[x509.ObjectIdentifier, ...] | None,
) -> _Leaf:
    given = _narrowing(table, kind, name)
    least = _span(given, "min-lifetime", name, default=profile.min_lifetime)
    most = _span(given, "max-lifetime", name, default=profile.max_lifetime)
    default = _span(given, "default-lifetime", name, default=min(profile.default_lifetime, most))
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
        changes["max_dns_names"] = _at_most(given, "max-dns-names", name, profile.max_dns_names)
    return replace(profile, **changes)


def _narrowed_ca(
    profile: CaProfile, table: object, policies: tuple[x509.ObjectIdentifier, ...] | None
) -> CaProfile:
    name = profile.kind
    given = _narrowing(table, "ca", name)
    most = _span(given, "max-lifetime", name, default=profile.max_lifetime)
    default = _span(given, "default-lifetime", name, default=min(profile.lifetime, most))
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
        changes["path_length"] = _at_most(given, "path-length", name, profile.path_length)
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
        added["pointers"] = _pointers(given, name)
    if "policies" in given:
        added["policies"] = _policies(given, "policies", where=f"[{name}]")
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
        _span(table, key, name) for key in ("default-lifetime", "min-lifetime", "max-lifetime")
    )
    if not least <= default <= most:
        raise Malformed(f"expected min-lifetime ≤ default-lifetime ≤ max-lifetime in [{name}]")
    return default, least, most


def _span(table: Table, key: str, name: str, *, default: timedelta | None = None) -> timedelta:
    if default is not None and key not in table:
        return default
    value = table[key]
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None or int(found[1]) * _UNITS[found[2]] > 100_000 * 86_400:
        raise Malformed(f"expected {key} such as '90s', '30m', '12h' or '7d' in [{name}], got {value!r}")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _number(table: Table, key: str, name: str) -> int:
    value = table[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
        raise Malformed(f"expected a number for {key} in [{name}], got {value!r}")
    return value


def _at_most(table: Table, key: str, name: str, most: int) -> int:
    value = _number(table, key, name)
    # None of a name that must be there would be a profile that issues nothing.
    if value > most or (key == "max-dns-names" and most and not value):
        raise Malformed(f"expected {key} of at most {most} in [{name}], got {value}")
    return value


def _boolean(table: Table, key: str, name: str) -> bool:
    value = table[key]
    if not isinstance(value, bool):
        raise Malformed(f"expected true or false for {key} in [{name}], got {value!r}")
    return value


def _words(table: Table, key: str, where: str) -> list[str]:
    value = table[key]
    if (
        not isinstance(value, list)
        or not all(isinstance(word, str) for word in value)
        or len(set(value)) != len(value)
    ):
        raise Malformed(f"expected a list of different words for {key} in {where}")
    return value


def _key_usage(table: Table, name: str) -> x509.KeyUsage:
    words = _words(table, "key-usage", f"[{name}]")
    if not words or not set(words) <= set(_KEY_USAGES):
        raise Malformed(f"expected key usages of {', '.join(_KEY_USAGES)} in [{name}], got {words}")
    return key_usage(**{_KEY_USAGES[word]: True for word in words})


def _extended(table: Table, name: str) -> list[x509.ObjectIdentifier]:
    words = _words(table, "extended-key-usage", f"[{name}]")
    if not words or not set(words) <= set(_EXTENDED):
        raise Malformed(f"expected extended key usages of {', '.join(_EXTENDED)} in [{name}], got {words}")
    return [_EXTENDED[word] for word in words]


def _pointers(table: Table, name: str) -> frozenset[Pointer]:
    words = _words(table, "pointers", f"[{name}]")
    if not set(words) <= set(Pointer):
        raise Malformed(f"expected pointers of {', '.join(Pointer)} in [{name}], got {words}")
    return frozenset(map(Pointer, words))


def _policies(table: Table, key: str, *, where: str) -> tuple[x509.ObjectIdentifier, ...]:
    words = _words(table, key, where)
    if len(words) > MAX_POLICIES or not all(_OID.match(word) for word in words):
        raise Malformed(f"expected at most {MAX_POLICIES} object identifiers for {key} in {where}")
    if any(int(arc) >= 2**31 for word in words for arc in word.split(".")):
        raise Malformed(
            f"expected arcs below 2^31 for {key} in {where}",
            hint="many relying parties read no longer ones, such as those of a UUID: use an arc of your own",
        )
    try:
        return tuple(map(x509.ObjectIdentifier, words))
    except ValueError:
        raise Malformed(f"expected object identifiers for {key} in {where}") from None
