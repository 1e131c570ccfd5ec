"""The signed part of an artifact's bundle: a DSSE v1 envelope around an in-toto statement.

`fltrust.updates.dsse` writes envelopes that name their key; an artifact's names none, since its
certificate stands beside it, and it may be large: a model of 100,000 files is listed in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fltrust import strictjson
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest
from fltrust.keys.signer import Signer
from fltrust.keys.verify import verify_signature
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.updates.dsse import PAYLOAD_TYPE, pae

MAX_STATEMENT = 96 * 2**20
"""Bytes of one statement: 250,000 files, 200,000 tensors, or a cohort of thousands, fit."""

MAX_ENVELOPE = 4 * (MAX_STATEMENT // 3 + 1) + 1024

_MAX_SIGNATURE = 72  # two integers of 33 bytes in DER
_MAX_KEY_ID = 256


@dataclass(frozen=True, slots=True)
class SignedEnvelope:
    """A statement's bytes and one ECDSA signature over them. Holding one says nothing about its validity."""

    payload: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.payload) > MAX_STATEMENT:
            raise Oversized(f"expected a statement of at most {MAX_STATEMENT} bytes, got {len(self.payload)}")
        if not 8 <= len(self.signature) <= _MAX_SIGNATURE:
            raise Malformed(f"expected an ECDSA signature in DER, got {len(self.signature)} bytes")

    @classmethod
    def sign(cls, payload: bytes, *, signer: Signer) -> Self:
        """Sign a statement's bytes."""
        return cls(payload, signer.sign(pae(PAYLOAD_TYPE, payload)))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read an envelope in any JSON form; `Oversized` before it is parsed, else `Malformed`."""
        value = strictjson.decode_any(data, limit=MAX_ENVELOPE, what="an envelope")
        return cls.from_fields(strictjson.Fields(value, "an envelope"))

    @classmethod
    def from_fields(cls, fields: strictjson.Fields) -> Self:
        """Take an envelope out of a larger document: exactly one signature, the payload type of in-toto."""
        kind = fields.text("payloadType", limit=128)
        payload = from_base64(fields.text("payload", limit=MAX_ENVELOPE), "the payload")
        signatures = fields.objects("signatures", limit=16)
        fields.done()
        if kind != PAYLOAD_TYPE:
            raise Malformed(
                f"expected an envelope of {PAYLOAD_TYPE!r}, got {kind[:80]!r}", reason="unknown-payload-type"
            )
        if len(signatures) != 1:
            raise Malformed(
                f"expected exactly one signature in an envelope, got {len(signatures)}",
                reason="signature-count",
            )
        signature = from_base64(signatures[0].text("sig", limit=128), "the signature")
        optional_text(signatures[0], "keyid", limit=_MAX_KEY_ID)  # a hint, unauthenticated: not used
        signatures[0].done()
        return cls(payload, signature)

    def as_fields(self) -> dict[str, object]:
        return {
            "payload": to_base64(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": to_base64(self.signature)}],
        }

    def to_json(self) -> bytes:
        """The one byte form that is written."""
        return strictjson.encode(self.as_fields())

    @property
    def signed_bytes(self) -> bytes:
        """The pre-authentication encoding: what the signature is over."""
        return pae(PAYLOAD_TYPE, self.payload)

    @property
    def pae_digest(self) -> bytes:
        return sha256(self.signed_bytes).digest()

    @property
    def payload_digest(self) -> Digest:
        """SHA-256 of the statement: its name everywhere in fltrust."""
        return Digest.sha256_of(self.payload)

    def verify(self, public_key: EllipticCurvePublicKey) -> None:
        """Raise `SignatureInvalid` unless the signature is this key's over this statement."""
        verify_signature(public_key, self.signature, self.signed_bytes)


def optional_text(fields: strictjson.Fields, name: str, *, limit: int) -> str:
    """Text that may be absent, null or empty: protobuf's JSON makes no difference between these."""
    value = fields.take(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed(f"expected text of at most {limit} characters as {name!r}")
    return value
