"""The query part of a key's URI: known names, once each, percent-encoded."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from fltrust.errors import Malformed
from fltrust.keys.pin import pin_in_uri

_ENCODED = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=/?|-]|%[0-9A-Fa-f]{2})+\Z")


def parse_query(text: str, known: Collection[str], *, separator: str = "&") -> dict[str, str]:
    """Read ``name=value&name=value``; `Malformed` for a name that is not known or stands twice.

    `Refused` (``pin-in-uri``) for a PIN or a password.
    """
    given: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name in ("pin-value", "pin", "password", "passphrase", "auth"):
            raise pin_in_uri()
        if name not in known or not equals or name in given:
            raise Malformed(
                f"expected one of {', '.join(sorted(known))}, once, in the URI of a key, got {name[:40]!r}"
            )
        if not _ENCODED.match(value):
            raise Malformed(f"expected a percent-encoded value of {name!r} in the URI of a key")
        try:
            given[name] = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"expected UTF-8 as {name!r} in the URI of a key") from None
    return given
