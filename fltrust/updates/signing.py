"""A signed statement as it travels: the envelope, and the certificates to verify it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.errors import Malformed, Oversized, Refusal, StatementRefused
from fltrust.identity import Digest, KeyId
from fltrust.keys.signer import Signer
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN
from fltrust.updates.dsse import MAX_ENVELOPE_BYTES, MAX_SEALED_ENVELOPE_BYTES, Envelope
from fltrust.updates.intoto import MAX_PAYLOAD_BYTES, MAX_SEALED_PAYLOAD_BYTES
from fltrust.updates.statement import SealedRoundStatement, Statement

MAX_SIGNED_BYTES = 128 * 1024
MAX_SEALED_SIGNED_BYTES = MAX_SEALED_ENVELOPE_BYTES + MAX_SIGNED_BYTES - MAX_ENVELOPE_BYTES

_MAGIC = b"fltrust-signed-v1\x00"


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """An envelope's JSON and its signer's chain, leaf first, in DER. Nothing of it is verified yet."""

    envelope_json: bytes
    chain_der: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.envelope_json) <= MAX_SEALED_ENVELOPE_BYTES:
            raise Oversized(f"expected an envelope of 1 to {MAX_SEALED_ENVELOPE_BYTES} bytes")
        if not 1 <= len(self.chain_der) <= MAX_CHAIN:
            raise Malformed(f"expected 1 to {MAX_CHAIN} certificates, got {len(self.chain_der)}")
        if not all(0 < len(der) <= MAX_CERTIFICATE for der in self.chain_der):
            raise Oversized(f"expected certificates of 1 to {MAX_CERTIFICATE} bytes")

    def to_bytes(self) -> bytes:
        """The one byte form: magic ‖ u32 size ‖ envelope ‖ u8 count ‖ (u32 size ‖ DER) for each."""
        sized = b"".join(len(der).to_bytes(4, "big") + der for der in self.chain_der)
        head = _MAGIC + len(self.envelope_json).to_bytes(4, "big") + self.envelope_json
        return head + len(self.chain_der).to_bytes(1, "big") + sized

    @classmethod
    def from_bytes(cls, data: bytes, *, limit: int = MAX_SIGNED_BYTES) -> Self:
        """Read what `to_bytes` writes; raises `Oversized` or `Malformed`, looking inside nothing.

        Receipts of sealed rounds may be larger: give them `MAX_SEALED_SIGNED_BYTES`.
        """
        if len(data) > limit:
            raise Oversized(f"expected a signed statement of at most {limit} bytes, got {len(data)}")
        if data[: len(_MAGIC)] != _MAGIC:
            raise Malformed("expected a signed statement of version 1, got something else")
        envelope, at = _sized(data, len(_MAGIC))
        chain = []
        count, at = int.from_bytes(data[at : at + 1], "big"), at + 1
        for _ in range(min(count, MAX_CHAIN + 1)):
            der, at = _sized(data, at)
            chain.append(der)
        if at != len(data):
            raise Malformed("expected a signed statement to end with its last certificate")
        return cls(envelope, tuple(chain))

    @property
    def envelope(self) -> Envelope:
        """The envelope, read strictly but not verified. Raises as `Envelope.from_json`."""
        return Envelope.from_json(self.envelope_json, limit=MAX_SEALED_ENVELOPE_BYTES)


def sign_statement(statement: Statement, *, signer: Signer, chain: Sequence[bytes]) -> SignedStatement:
    """Sign a statement and put the signer's chain (leaf first, DER, without the root) beside it.

    Refuses with `StatementRefused` (``wrong-certificate``) to sign what no verifier would accept:
    a statement that names another certificate than the leaf, or a leaf of another key.
    """
    if not chain or statement.certificate != Digest.sha256_of(chain[0]):
        raise _wrong_certificate("expected the statement to name the signing certificate, it does not")
    if _key_of(chain[0]) != signer.key_id:
        raise _wrong_certificate("expected the certificate of the signing key, got another key's")
    payload = statement.to_payload()
    limit = MAX_SEALED_PAYLOAD_BYTES if isinstance(statement, SealedRoundStatement) else MAX_PAYLOAD_BYTES
    if len(payload) > limit:
        raise Oversized(f"expected a statement of at most {limit} bytes, got {len(payload)}")
    return SignedStatement(Envelope.sign(payload, signer=signer).to_json(), tuple(chain))


def _key_of(der: bytes) -> KeyId:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except PARSE_ERRORS:
        raise Malformed("expected the signer's certificate in DER, got something else") from None
    return KeyId.of_spki(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _wrong_certificate(message: str) -> StatementRefused:
    return StatementRefused(message, reason=Refusal.WRONG_CERTIFICATE)


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + int.from_bytes(data[at:start], "big")
    if start > len(data) or end > len(data):
        raise Malformed("expected a signed statement, got one that ends early")
    return data[start:end], end
