"""Join tokens: one string that an operator hands to a site.

    fltrust-join-v1.<base64url of {"address":…,"bootstrap":…,"root":…,"secret":…}>

The secret has 256 bits of entropy, so its plain SHA-256 is safe to store: there is nothing to guess.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from hashlib import sha256

from fltrust.enrollment.types import JoinToken
from fltrust.errors import Malformed, Oversized
from fltrust.strictbase64 import from_base64url, to_base64url

PREFIX = "fltrust-join-v1."
MAX_TOKEN = 2048
"""Characters of an encoded token."""
SECRET_BYTES = 32
MAX_ROOT = 1024
"""Bytes of DER of the root certificate in a token; one of ours has about 500."""

_ADDRESS = re.compile(r"[A-Za-z0-9._\-\[\]:%]{1,255}:[0-9]{1,5}\Z")
_FIELDS = {"address", "bootstrap", "root", "secret"}


def new_secret(entropy: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
    """Make the one-time secret of a token."""
    return entropy(SECRET_BYTES)


def hash_of(secret: bytes) -> bytes:
    """Give what the coordinator stores of a secret: its SHA-256."""
    return sha256(secret).digest()


def token_id_of(secret_hash: bytes) -> str:
    """Give the public id of a token, 16 hex digits; neither secret nor stored hash follow from it."""
    return sha256(b"fltrust-token-id-v1\n" + secret_hash).hexdigest()[:16]


def encode_token(token: JoinToken) -> str:
    """Write the token as one string of at most 2 KiB. It carries the secret: never log it."""
    _check(token)
    body = json.dumps(
        {
            "address": token.address,
            "bootstrap": token.bootstrap,
            "root": to_base64url(token.root_der),
            "secret": to_base64url(token.secret),
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    text = PREFIX + to_base64url(body.encode("ascii"))
    if len(text) > MAX_TOKEN:
        raise Oversized(f"expected a join token of at most {MAX_TOKEN} characters, got {len(text)}")
    return text


def decode_token(text: str) -> JoinToken:
    """Read what `encode_token` writes, and nothing else.

    `Oversized` above 2 KiB, before anything is parsed; `Malformed` for every other string. No
    message quotes what came, since it may hold a secret.
    """
    text = text.strip()
    if len(text) > MAX_TOKEN:
        raise Oversized(f"expected a join token of at most {MAX_TOKEN} characters, got {len(text)}")
    if not text.startswith(PREFIX):
        raise Malformed(
            f"expected a join token that begins with {PREFIX!r}",
            hint="paste the whole line that 'fltrust token create' printed",
        )
    try:
        fields = json.loads(_from_base64url(text[len(PREFIX) :]))
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise _malformed()
    if not all(isinstance(value, str) for value in fields.values()):
        raise _malformed()
    token = JoinToken(
        bootstrap=fields["bootstrap"],
        address=fields["address"],
        root_der=_from_base64url(fields["root"]),
        secret=_from_base64url(fields["secret"]),
    )
    if encode_token(token) != text:  # one byte form only
        raise _malformed()
    return token


def _check(token: JoinToken) -> None:
    for address in (token.bootstrap, token.address):
        if not _ADDRESS.match(address) or not 0 < int(address.rpartition(":")[2]) < 65536:
            raise Malformed(f"expected an address 'host:port' in a join token, got {address[:80]!r}")
    if not 0 < len(token.root_der) <= MAX_ROOT:
        raise Malformed(f"expected a root certificate of at most {MAX_ROOT} bytes in a join token")
    if len(token.secret) != SECRET_BYTES:
        raise Malformed(f"expected a secret of {SECRET_BYTES} bytes in a join token, got {len(token.secret)}")


def _malformed() -> Malformed:
    return Malformed(
        "expected a join token, got a string that is damaged or was cut",
        hint="paste the whole line that 'fltrust token create' printed",
    )


def _from_base64url(text: str) -> bytes:
    try:
        return from_base64url(text, "a join token")
    except Malformed:
        raise _malformed() from None
