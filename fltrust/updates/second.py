"""A second signature over the same payload, by an ML-DSA-65 key of the same identity. Experimental.

It travels in an envelope of its own, with a chain of its own, beside what it is about: whoever knows nothing
of it verifies the first signature as ever. Updates, instructions, receipts and models are all DSSE envelopes,
so one form serves for all of them:

    {"chain":[<DER>, <DER>],"envelope":{"payload":…,"payloadType":…,"signatures":[{"keyid":…,"sig":…}]},
     "type":"urn:fltrust:second-signature:v1"}
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cryptography import x509

from fltrust import strictjson
from fltrust.errors import Malformed, Refusal, Refused, SignatureInvalid, StatementRefused
from fltrust.identity import KeyId, SpiffeId, TrustDomain
from fltrust.keys.mldsa import SIGNATURE_BYTES, MldsaSigner, key_id_of, verify_mldsa
from fltrust.pki.second import (
    MAX_SECOND_CERTIFICATE,
    SecondLeaf,
    second_leaf_of,
    verify_second_chain,
)
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.updates.dsse import PAYLOAD_TYPE, pae

TYPE = "urn:fltrust:second-signature:v1"
MAX_SECOND = 8 * 2**20
"""Bytes of one second signature, payload and all."""
MAX_SECOND_OF_UPDATE = 128 * 1024
"""Bytes of an update's: its payload is small."""


@dataclass(frozen=True, slots=True)
class SecondSignature:
    """A payload, an ML-DSA-65 signature over it and its chain. Nothing of it is verified yet."""

    payload: bytes
    key_id: KeyId
    signature: bytes
    chain_der: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.signature) != SIGNATURE_BYTES:
            raise Malformed(f"expected an ML-DSA-65 signature of {SIGNATURE_BYTES} bytes")
        if len(self.chain_der) != 2 or not all(
            0 < len(der) <= MAX_SECOND_CERTIFICATE for der in self.chain_der
        ):
            raise Malformed("expected two certificates of the second chain, within their bound")

    @classmethod
    def sign(cls, payload: bytes, *, signer: MldsaSigner, chain: Sequence[bytes]) -> Self:
        """Sign the payload that the first signature is over."""
        return cls(payload, signer.key_id, signer.sign(pae(PAYLOAD_TYPE, payload)), tuple(chain))

    def to_json(self) -> bytes:
        """The one byte form."""
        return strictjson.encode(
            {
                "type": TYPE,
                "envelope": {
                    "payload": to_base64(self.payload),
                    "payloadType": PAYLOAD_TYPE,
                    "signatures": [{"keyid": self.key_id, "sig": to_base64(self.signature)}],
                },
                "chain": [to_base64(der) for der in self.chain_der],
            }
        )

    @classmethod
    def from_json(cls, data: bytes, *, limit: int = MAX_SECOND) -> Self:
        """Read what `to_json` writes. `Oversized` before parsing, `Malformed`, or ``unknown-type``."""
        what = "a second signature"
        fields = strictjson.Fields(strictjson.decode(data, limit=limit, what=what), what)
        envelope, kind = fields.object("envelope"), fields.text("type", limit=128)
        encoded = fields.texts("chain", limit=2, each=2 * MAX_SECOND_CERTIFICATE)
        fields.done()
        payload_type = envelope.text("payloadType", limit=128)
        if (kind, payload_type) != (TYPE, PAYLOAD_TYPE):
            raise StatementRefused(
                f"expected {TYPE} over {PAYLOAD_TYPE}, got {kind[:80]!r} over {payload_type[:80]!r}",
                reason=Refusal.UNKNOWN_TYPE,
            )
        payload = from_base64(envelope.text("payload", limit=limit), "the payload")
        signatures = envelope.objects("signatures", limit=1)
        envelope.done()
        if len(signatures) != 1:
            raise Malformed("expected exactly one signature in the second envelope")
        key_id = signatures[0].key_id("keyid")
        signature = from_base64(signatures[0].text("sig", limit=2 * SIGNATURE_BYTES), "the signature")
        signatures[0].done()
        chain = tuple(from_base64(der, "a certificate") for der in encoded)
        return cls(payload, key_id, signature, chain)

    @classmethod
    def of_update(cls, data: bytes) -> Self:
        """Read an update's second signature: `from_json`, within an update's bound."""
        return cls.from_json(data, limit=MAX_SECOND_OF_UPDATE)


def require_second(
    second: SecondSignature, *, payload: bytes, who: SpiffeId, root: x509.Certificate, at: datetime
) -> SecondLeaf:
    """Verify a second signature over `payload`, whose first one was verified to be by `who`.

    1. Its chain leads to the root, is valid at `at`, and its leaf names `who`, else `CertificateRefused`.
    2. It is over that payload, by the leaf's key (`require_consistent`).
    """
    # 1.
    leaf = verify_second_chain(second.chain_der, root=root, at=at, expect=who)
    # 2.
    require_consistent(second, payload=payload, who=who)
    return leaf


def require_consistent(second: SecondSignature, *, payload: bytes, who: SpiffeId) -> None:
    """Hold a second signature against its own leaf, for who has no root to verify that under.

    1. It is over the same payload, byte for byte, else ``digest-mismatch``.
    2. Its leaf has the one shape and names `who`, else `CertificateRefused`.
    3. The signature is the leaf key's over that payload, else `SignatureInvalid`.
    """
    # 1.
    if not hmac.compare_digest(second.payload, payload):
        raise StatementRefused(
            f"expected the second signature of {who} over the same payload, it is over another",
            reason=Refusal.DIGEST_MISMATCH,
        )
    # 2.
    leaf = second_leaf_of(second.chain_der[0], expect=who)
    # 3.
    if second.key_id != key_id_of(leaf.public_key):
        raise SignatureInvalid(f"expected a second signature by the key of {who}, got another key's")
    verify_mldsa(leaf.public_key, second.signature, pae(PAYLOAD_TYPE, payload))


def demand_second(
    data: bytes | None,
    *,
    payload: bytes,
    who: SpiffeId,
    roots: Mapping[TrustDomain, x509.Certificate],
    at: datetime,
) -> SecondLeaf:
    """Demand a second signature beside an update whose first one was verified.

    `payload` is what the first signature is over, and `who` the identity that it was verified to be by.

    1. One must have come (``second-signature-missing``), and `roots` must hold one of that identity's trust
       domain to verify it under (``second-root-missing``): nothing makes two signatures into one.
    2. It reads (`SecondSignature.of_update`).
    3. It verifies (`require_second`).
    """
    # 1.
    if not data:
        raise StatementRefused(
            f"expected a second signature (ML-DSA-65) of {who}, got none",
            reason="second-signature-missing",
            hint="both are demanded: the signer must sign with both keys",
        )
    root = roots.get(who.domain)
    if root is None:
        raise Refused(
            f"expected a root to verify the second signature of {who} under, have none",
            reason="second-root-missing",
        )
    # 2. and 3.
    return require_second(SecondSignature.of_update(data), payload=payload, who=who, root=root, at=at)
