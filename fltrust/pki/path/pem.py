"""Certificates, CRLs and OCSP answers out of files that people have: PEM with any number in it, or DER."""

from __future__ import annotations

import base64
import binascii
import re

from fltrust.errors import Malformed, Oversized

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,32})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----")


def der_of(data: bytes, *, label: str, limit: int) -> list[bytes]:
    """Give the DER of every PEM block `label` in `data`, or `data` itself where it is DER.

    Raises `Oversized` for more than `limit` blocks, and `Malformed` where there is none, or one of another
    label: a private key in a file of certificates is somebody's mistake.
    """
    if data[:1] == b"\x30":
        return [data]
    count = data.count(b"-----BEGIN ")
    if count > limit:
        raise Oversized(f"expected at most {limit} of '{label}', got {count}")
    blocks = _BLOCK.findall(data)
    if not blocks or len(blocks) != count:
        raise Malformed(f"expected '{label}' in PEM or DER, found something else")
    found = []
    for name, text in blocks:
        if name.decode() != label:
            raise Malformed(f"expected nothing but '{label}' in PEM, found '{name.decode()}'")
        try:
            found.append(base64.b64decode(re.sub(rb"[\r\n]", b"", text), validate=True))
        except binascii.Error:
            raise Malformed(f"expected '{label}' in base64, found something else") from None
    return found
