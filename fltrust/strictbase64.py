"""Base64 that can be read in one way only: canonical, in the standard alphabet, padded (RFC 4648, 4), or in
the one for URLs, without padding (RFC 4648, 5; RFC 7515, 2)."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode, urlsafe_b64encode

from fltrust.errors import Malformed


def to_base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def from_base64(text: str, what: str) -> bytes:
    """Read what `to_base64` writes, and nothing else; `Malformed` naming `what` it is."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"expected {what} in standard base64, got {text[:40]!r}") from None
    if to_base64(data) != text:
        raise Malformed(f"expected {what} in base64's one form for these bytes, got {text[:40]!r}")
    return data


def to_base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str, what: str) -> bytes:
    """Read what `to_base64url` writes, and nothing else; `Malformed` naming `what` it is.

    The message does not quote what came: secrets are handed over in this form.
    """
    try:
        data = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"expected {what} in base64url, got something else") from None
    if to_base64url(data) != text:
        raise Malformed(f"expected {what} in base64url without padding, in its one form")
    return data
