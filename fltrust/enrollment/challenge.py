"""Proof that a site holds the Flower node key that it enrolls.

The node key signs a challenge that binds it to one certificate request and one piece of evidence:
a proof seen elsewhere says nothing about another request.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fltrust.enrollment.types import Evidence
from fltrust.errors import Malformed, Oversized, SignatureInvalid
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256, verify_signature

_CONTEXT = b"fltrust-node-key-challenge-v1\x00"
MAX_NODE_KEY = 256
"""Bytes of SubjectPublicKeyInfo; one on P-256 has 91."""


def node_key_challenge(csr_der: bytes, evidence: Evidence) -> bytes:
    """Give the bytes that the node key signs (ECDSA over P-256 with SHA-256).

    Context, then SHA-256 of the request, then SHA-256 of the evidence under its kind. The
    evidence goes in hashed twice over, so that the challenge may be shown without giving it away.
    """
    return _CONTEXT + sha256(csr_der).digest() + sha256(evidence.binding()).digest()


def check_node_key_proof(*, node_key: bytes, proof: bytes, csr_der: bytes, evidence: Evidence) -> None:
    """Return only if `node_key` (SubjectPublicKeyInfo, DER) is a P-256 key that signed the challenge.

    1. The key is at most `MAX_NODE_KEY` bytes, else `Oversized`.
    2. It is P-256 and in the one encoding that `KeyId` hashes, else `Malformed`.
    3. The proof is its signature over `node_key_challenge`, else `SignatureInvalid`.
    """
    # 1.
    if len(node_key) > MAX_NODE_KEY:
        raise Oversized(f"expected a node key of at most {MAX_NODE_KEY} bytes, got {len(node_key)}")
    # 2.
    try:
        key = load_der_public_key(node_key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("expected a node key as SubjectPublicKeyInfo in DER, got something else") from None
    if not is_p256(key) or spki_der(key) != node_key:
        raise Malformed("expected a node key on P-256, uncompressed, got another kind or encoding")
    # 3.
    try:
        verify_signature(key, proof, node_key_challenge(csr_der, evidence))
    except SignatureInvalid:
        raise SignatureInvalid(
            "expected a proof by the node key over this request and this evidence, it is not",
            hint="sign node_key_challenge(csr, evidence) with the node key",
        ) from None
