"""Base64 that can be read in one way only: the standard alphabet, padded, canonical (RFC 4648, 4)."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

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
