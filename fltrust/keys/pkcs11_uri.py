"""PKCS#11 URIs (RFC 7512): which token, which key, through which module, and where its PIN lies.

    pkcs11:token=hospital;object=issuing;id=%01?module-path=/usr/lib/hsm.so&pin-source=file:/run/pin

What is understood: ``token``, ``serial``, ``manufacturer``, ``model`` choose the token; ``object``, ``id``
and ``type=private`` the key; ``module-path`` the library and ``pin-source`` (``file:/path``, or our own
``env:NAME``) the PIN. Everything else is refused: an attribute that is ignored would choose another key
than was meant. ``pin-value`` is refused and never repeated: a URI ends up in settings, logs and shells.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self
from urllib.parse import quote

from fltrust.errors import Malformed
from fltrust.keys.pin import check_pin_source, find_pin, no_pin, pin_in_uri

MODULE_VARIABLE = "FLTRUST_PKCS11_MODULE"
MAX_URI = 2_048
_PATH_CHARACTERS = ":[]@!$'()*+,=&"
_QUERY_CHARACTERS = ":[]@!$'()*+,=/?|"
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9._~:\[\]@!$'()*+,=&/?|%-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Uri:
    """A token and, with `object` or `id`, a key in it. ``str()`` gives the URI; it never holds a PIN."""

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: str | None = None
    pin_source: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and self.serial is None:
            raise Malformed("expected 'token' or 'serial' in a PKCS#11 URI: which token is it?")
        if self.module_path is not None and not Path(self.module_path).is_absolute():
            raise Malformed("expected an absolute 'module-path' in a PKCS#11 URI")
        if self.pin_source is not None:
            check_pin_source(self.pin_source)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; `Malformed` for one that is damaged, or says what we do not understand."""
        if len(text) > MAX_URI or not text.startswith("pkcs11:"):
            raise Malformed("expected a PKCS#11 URI 'pkcs11:token=…;object=…'")
        path, _, query = text.removeprefix("pkcs11:").partition("?")
        found = _pairs(path, ";", _IN_PATH) | _pairs(query, "&", _IN_QUERY)
        if found.pop("type", b"private") != b"private":
            raise Malformed("expected type=private in the URI of a key that signs")
        identifier = found.pop("id", None)
        words = {name.replace("-", "_"): _text(name, value) for name, value in found.items()}
        return cls(id=identifier, **words)

    def __str__(self) -> str:
        path = [
            f"{name}={quote(value, safe=_PATH_CHARACTERS)}"
            for name in ("token", "serial", "manufacturer", "model", "object")
            if (value := getattr(self, name)) is not None
        ]
        if self.id is not None:
            path.append("id=" + "".join(f"%{octet:02x}" for octet in self.id))
        query = [
            f"{name}={quote(value, safe=_QUERY_CHARACTERS)}"
            for name, value in (("module-path", self.module_path), ("pin-source", self.pin_source))
            if value is not None
        ]
        return "pkcs11:" + ";".join(path) + ("?" + "&".join(query) if query else "")

    @property
    def names_a_key(self) -> bool:
        return self.object is not None or self.id is not None

    def with_key(self, *, object: str | None, id: bytes | None) -> Self:  # noqa: A002 - RFC 7512's words
        """The same token, and this key in it."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("object", "id")}
        return type(self)(object=object, id=id, **rest)

    def module(self) -> str:
        """The library to load: the URI's, else the one that ``FLTRUST_PKCS11_MODULE`` names."""
        path = self.module_path or os.environ.get(MODULE_VARIABLE)
        if not path or not Path(path).is_absolute():
            raise Malformed(
                "expected the PKCS#11 module's absolute path in the key's URI, got none",
                hint=f"add ?module-path=/usr/lib/… to it, or set {MODULE_VARIABLE}",
            )
        return path

    def read_pin(self) -> str:
        """The PIN, from where `find_pin` finds it; `Refused` (``pin-missing``) where there is none."""
        pin = find_pin(self.pin_source)
        if pin is None:
            raise no_pin("expected a PIN for the token, got none")
        return pin


_IN_PATH = frozenset({"token", "serial", "manufacturer", "model", "object", "id", "type"})
_IN_QUERY = frozenset({"module-path", "pin-source"})


def _pairs(text: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise pin_in_uri()
        if name not in known or not equals:
            raise Malformed(f"expected one of {', '.join(sorted(known))} in a PKCS#11 URI, got {name[:40]!r}")
        if name in found:
            raise Malformed(f"expected {name!r} once in a PKCS#11 URI, got it twice")
        found[name] = _decoded(name, value)
    return found


def _decoded(name: str, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    if not _PLAIN.match(value) or raw.count(b"%") != len(_PERCENT.findall(raw)):
        raise Malformed(f"expected a percent-encoded value of {name!r} in a PKCS#11 URI")
    decoded = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), raw)
    if not decoded:
        raise Malformed(f"expected a value of {name!r} in a PKCS#11 URI, got nothing")
    return decoded


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"expected UTF-8 as {name!r} in a PKCS#11 URI") from None
    if not text.isprintable():
        raise Malformed(f"expected printable text as {name!r} in a PKCS#11 URI")
    return text
