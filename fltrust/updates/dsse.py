"""DSSE v1 envelopes: bytes of a stated type, signed once with ECDSA over P-256.

The signature covers the pre-authentication encoding (DSSE protocol, "Signature definition"):

    PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body      LEN in ASCII decimal

Ours is the strict subset of the format: exactly one signature, standard padded base64, a key
id that names the signing key, and one byte form of the JSON. Any DSSE reader reads it.
An ECDSA signature has a twin that verifies as well, so two envelopes may carry one statement:
what identifies a statement is the SHA-256 of its payload, never that of the envelope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fltrust import strictjson
from fltrust.errors import Malformed, Refusal, SignatureInvalid, StatementRefused
from fltrust.identity import Digest, KeyId
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_signature
from fltrust.pki.types import VerifiedCertificate
from fltrust.strictbase64 import from_base64, to_base64

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 64 * 1024
MAX_SEALED_ENVELOPE_BYTES = 8 * 2**20
"""A sealed round lists its whole cohort, so its envelope may be larger."""
_MAX_SIGNATURE_BYTES = 72  # two integers of 33 bytes in DER


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed. `payload` is arbitrary; `payload_type` is text."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with one signature ``(key id, DER)``. Holding one says nothing about its validity."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def __post_init__(self) -> None:
        if self.payload_type != PAYLOAD_TYPE:
            raise StatementRefused(
                f"expected an envelope of {PAYLOAD_TYPE!r}, got {self.payload_type[:80]!r}",
                reason=Refusal.UNKNOWN_TYPE,
            )
        if len(self.signatures) != 1:
            raise Malformed(f"expected exactly one signature in an envelope, got {len(self.signatures)}")
        keyid, signature = self.signatures[0]
        KeyId(keyid)
        if not 8 <= len(signature) <= _MAX_SIGNATURE_BYTES:
            raise Malformed(f"expected an ECDSA signature in DER, got {len(signature)} bytes")

    @classmethod
    def sign(cls, payload: bytes, *, signer: Signer) -> Self:
        """Sign an in-toto statement's bytes."""
        return cls(PAYLOAD_TYPE, payload, ((signer.key_id, signer.sign(pae(PAYLOAD_TYPE, payload))),))

    @classmethod
    def from_json(cls, data: bytes, *, limit: int = MAX_ENVELOPE_BYTES) -> Self:
        """Read what `to_json` writes, byte for byte. Raises `Oversized` before parsing, `Malformed`,
        or `StatementRefused` with ``unknown-type`` for another payload type."""
        fields = strictjson.Fields(strictjson.decode(data, limit=limit, what="an envelope"), "an envelope")
        payload_type = fields.text("payloadType", limit=128)
        payload = from_base64(fields.text("payload", limit=limit), "the payload")
        signatures = []
        for entry in fields.objects("signatures", limit=1):
            signatures.append(
                (entry.text("keyid", limit=64), from_base64(entry.text("sig", limit=128), "the signature"))
            )
            entry.done()
        fields.done()
        return cls(payload_type, payload, tuple(signatures))

    def to_json(self) -> bytes:
        """The one byte form of this envelope."""
        return strictjson.encode(
            {
                "payload": to_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": keyid, "sig": to_base64(sig)} for keyid, sig in self.signatures],
            }
        )

    @property
    def payload_digest(self) -> Digest:
        """SHA-256 of the payload: the statement's name everywhere in fltrust."""
        return Digest.sha256_of(self.payload)

    def verify(self, certificate: VerifiedCertificate) -> None:
        """Raise `SignatureInvalid` unless the one signature is the certificate's key's over this payload."""
        keyid, signature = self.signatures[0]
        if keyid != certificate.key_id:
            raise SignatureInvalid(f"expected a signature by {certificate.spiffe_id}, got another key's")
        public_key = certificate.leaf.public_key()
        if not is_p256(public_key):
            raise SignatureInvalid(f"expected a P-256 key in the certificate of {certificate.spiffe_id}")
        verify_signature(public_key, signature, pae(self.payload_type, self.payload))
