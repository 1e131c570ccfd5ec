"""An invitation: where the coordinator is and its root, for a site that asks without a token. No secret.

fltrust-invite-v1.<base64url of {"address":…,"bootstrap":…,"root":…}>
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.enrollment.token import SECRET_BYTES, encode_token
from fltrust.enrollment.types import JoinToken
from fltrust.errors import Malformed, Oversized
from fltrust.strictbase64 import from_base64url, to_base64url

PREFIX = "fltrust-invite-v1."
MAX_INVITATION = 2048


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a site is shown; it can stand on a web page. Compare the root's fingerprint by telephone."""

    bootstrap: str
    address: str
    root_der: bytes

    def __post_init__(self) -> None:
        # The same bounds as a join token's, which is what a site sends it through.
        encode_token(JoinToken(self.bootstrap, self.address, self.root_der, bytes(SECRET_BYTES)))

    @classmethod
    def of(cls, bootstrap: str, address: str, root: x509.Certificate) -> Self:
        return cls(bootstrap, address, root.public_bytes(Encoding.DER))

    def as_token(self) -> JoinToken:
        """Where and to whom to speak, as a token says it; its secret is empty, and opens nothing."""
        return JoinToken(self.bootstrap, self.address, self.root_der, b"")


def encode_invitation(invitation: Invitation) -> str:
    """Write it as one string of at most 2 KiB."""
    body = json.dumps(
        {
            "address": invitation.address,
            "bootstrap": invitation.bootstrap,
            "root": to_base64url(invitation.root_der),
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    return PREFIX + to_base64url(body.encode("ascii"))


def decode_invitation(text: str) -> Invitation:
    """Read what `encode_invitation` writes, and nothing else; `Oversized` before anything is parsed."""
    text = text.strip()
    if len(text) > MAX_INVITATION:
        raise Oversized(f"expected an invitation of at most {MAX_INVITATION} characters, got {len(text)}")
    if not text.startswith(PREFIX):
        raise _malformed()
    try:
        fields = json.loads(_from_base64url(text[len(PREFIX) :]))
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(fields, dict) or set(fields) != {"address", "bootstrap", "root"}:
        raise _malformed()
    if not all(isinstance(value, str) for value in fields.values()):
        raise _malformed()
    invitation = Invitation(fields["bootstrap"], fields["address"], _from_base64url(fields["root"]))
    if encode_invitation(invitation) != text:  # one byte form only
        raise _malformed()
    return invitation


def _malformed() -> Malformed:
    return Malformed(
        "expected an invitation, got a string that is damaged or is something else",
        hint="paste the whole line that 'fltrust requests invite' printed",
    )


def _from_base64url(text: str) -> bytes:
    try:
        return from_base64url(text, "an invitation")
    except Malformed:
        raise _malformed() from None
