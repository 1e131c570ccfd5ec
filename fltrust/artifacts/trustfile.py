"""The trust file: all that offline verification needs, in one document.

    {"type": "urn:fltrust:trust:v1", "sequence": 7, "trustDomain": "hospitals.example", "created": "…Z",
     "trustedRoot": {a Sigstore trusted_root.json}, "status": {a Sigstore bundle of the status} | null}

Canonical JSON. A plain Sigstore ``trusted_root.json`` is accepted in its place; it has no status and
no trust domain, so nothing is known of revocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import TrustDomain
from fltrust.strictjson import Fields

TRUST_TYPE = "urn:fltrust:trust:v1"
TRUSTED_ROOT_PREFIX = "application/vnd.dev.sigstore.trustedroot"
MAX_TRUST = 16 * 2**20
_CLIENT_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
_SIGNING_CONFIG = "application/vnd.dev.sigstore.signingconfig.v0.2+json"


@dataclass(frozen=True, slots=True)
class TrustFile:
    """What a trust file says. `trusted_root` and `status` are documents of their own, not yet read."""

    trusted_root: dict[str, object]
    sequence: int | None = None
    domain: TrustDomain | None = None
    created: datetime | None = None
    status: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a trust file, or a plain ``trusted_root.json``; `Oversized` or `Malformed`."""
        value = strictjson.decode_any(data, limit=MAX_TRUST, what="a trust file")
        if isinstance(value, dict) and str(value.get("mediaType", "")).startswith(TRUSTED_ROOT_PREFIX):
            return cls(value)
        fields = Fields(strictjson.decode(data, limit=MAX_TRUST, what="a trust file"), "a trust file")
        kind = fields.text("type", limit=64)
        if kind != TRUST_TYPE:
            raise Malformed(
                f"expected a trust file of type {TRUST_TYPE!r}, got {kind[:80]!r}",
                reason="unknown-trust-type",
                hint="a newer version of fltrust may have written it",
            )
        root, status = fields.any("trustedRoot"), fields.any("status")
        if not isinstance(root, dict) or not isinstance(status, dict | None):
            raise Malformed("expected objects as 'trustedRoot' and 'status' in a trust file")
        found = cls(
            trusted_root=root,
            sequence=fields.number("sequence"),
            domain=fields.domain("trustDomain"),
            created=fields.time("created"),
            status=None if status is None else strictjson.encode(status),
        )
        fields.done()
        return found

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.parse(read_bounded(path, limit=MAX_TRUST))

    def to_client_trust_config(self) -> bytes:
        """The trusted root as Sigstore's ``ClientTrustConfig``, which model-signing and sigstore take as
        ``--trust-config``. It names no service to sign at: these clients verify with it."""
        return strictjson.encode(
            {
                "mediaType": _CLIENT_CONFIG,
                "trustedRoot": self.trusted_root,
                "signingConfig": {"mediaType": _SIGNING_CONFIG},
            }
        )

    def to_json(self) -> bytes:
        """The one byte form of a trust file; all of its fields must be known."""
        if self.sequence is None or self.domain is None or self.created is None:
            raise Malformed("expected sequence, trust domain and time of a trust file to write")
        status = None
        if self.status is not None:
            status = strictjson.decode_any(self.status, limit=MAX_TRUST, what="the status")
        return strictjson.encode(
            {
                "type": TRUST_TYPE,
                "sequence": self.sequence,
                "trustDomain": str(self.domain),
                "created": to_rfc3339(self.created),
                "trustedRoot": self.trusted_root,
                "status": status,
            }
        )


def read_status(path: Path) -> bytes:
    """The status in a file of its own (a Sigstore bundle), or in another trust file."""
    data = read_bounded(path, limit=MAX_TRUST)
    value = strictjson.decode_any(data, limit=MAX_TRUST, what="a status")
    if not isinstance(value, dict) or value.get("type") != TRUST_TYPE:
        return data
    status = TrustFile.parse(data).status
    if status is None:
        raise Malformed(f"expected a status in the trust file {path.name}, it has none")
    return status
