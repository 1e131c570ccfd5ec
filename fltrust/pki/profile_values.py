"""One value of a profile's table in TOML each: read as what it means, or `Malformed` naming key and table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.errors import Malformed
from fltrust.pki.profiles import Pointer, key_usage

MAX_POLICIES: Final = 8

Table: TypeAlias = Mapping[str, Any]

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


def read_span(table: Table, key: str, name: str, *, default: timedelta | None = None) -> timedelta:
    if default is not None and key not in table:
        return default
    value = table[key]
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None or int(found[1]) * _UNITS[found[2]] > 100_000 * 86_400:
        raise Malformed(f"expected {key} such as '90s', '30m', '12h' or '7d' in [{name}], got {value!r}")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def read_number(table: Table, key: str, name: str) -> int:
    value = table[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
        raise Malformed(f"expected a number for {key} in [{name}], got {value!r}")
    return value


def read_at_most(table: Table, key: str, name: str, most: int) -> int:
    value = read_number(table, key, name)
    # None of a name that must be there would be a profile that issues nothing.
    if value > most or (key == "max-dns-names" and most and not value):
        raise Malformed(f"expected {key} of at most {most} in [{name}], got {value}")
    return value


def read_boolean(table: Table, key: str, name: str) -> bool:
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


def read_key_usage(table: Table, name: str) -> x509.KeyUsage:
    words = _words(table, "key-usage", f"[{name}]")
    if not words or not set(words) <= set(_KEY_USAGES):
        raise Malformed(f"expected key usages of {', '.join(_KEY_USAGES)} in [{name}], got {words}")
    return key_usage(**{_KEY_USAGES[word]: True for word in words})


def read_extended(table: Table, name: str) -> list[x509.ObjectIdentifier]:
    words = _words(table, "extended-key-usage", f"[{name}]")
    if not words or not set(words) <= set(_EXTENDED):
        raise Malformed(f"expected extended key usages of {', '.join(_EXTENDED)} in [{name}], got {words}")
    return [_EXTENDED[word] for word in words]


def read_pointers(table: Table, name: str) -> frozenset[Pointer]:
    words = _words(table, "pointers", f"[{name}]")
    if not set(words) <= set(Pointer):
        raise Malformed(f"expected pointers of {', '.join(Pointer)} in [{name}], got {words}")
    return frozenset(map(Pointer, words))


def read_policies(table: Table, key: str, *, where: str) -> tuple[x509.ObjectIdentifier, ...]:
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
