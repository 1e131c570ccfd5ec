from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.enrollment.challenge import check_node_key_proof, node_key_challenge
from fltrust.enrollment.types import JoinTokenEvidence
from fltrust.errors import FltrustError, Malformed, Oversized, SignatureInvalid
from fltrust.keys import generate, spki_der

CSR = b"a certificate request"
EVIDENCE = JoinTokenEvidence(b"\x01" * 32)


def test_the_challenge_differs_for_every_request_and_every_evidence() -> None:
    challenges = {
        node_key_challenge(csr, JoinTokenEvidence(secret))
        for csr in (CSR, CSR + b"\x00", b"")
        for secret in (b"\x01" * 32, b"\x02" * 32, b"")
    }
    assert len(challenges) == 9
    assert all(c.startswith(b"fltrust-node-key-challenge-v1\x00") for c in challenges)
    assert not any(EVIDENCE.secret in c for c in challenges)


def test_a_proof_by_the_node_key_over_this_request_is_accepted_and_no_other() -> None:
    node, other = generate(), generate()
    proof = node.sign(node_key_challenge(CSR, EVIDENCE))
    key = spki_der(node.public_key)
    check_node_key_proof(node_key=key, proof=proof, csr_der=CSR, evidence=EVIDENCE)
    for changes in (
        {"csr_der": b"another"},
        {"evidence": JoinTokenEvidence(b"\x02" * 32)},
        {"proof": other.sign(node_key_challenge(CSR, EVIDENCE))},
        {"proof": node.sign(CSR)},
        {"proof": b""},
        {"node_key": spki_der(other.public_key)},
    ):
        with pytest.raises(SignatureInvalid):
            check_node_key_proof(
                **({"node_key": key, "proof": proof, "csr_der": CSR, "evidence": EVIDENCE} | changes)
            )


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"", Malformed),
        (b"\x30" * 91, Malformed),
        (b"\x30" * 257, Oversized),
        (
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            Malformed,
        ),
        (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            Malformed,
        ),
        (spki_der(generate().public_key) + b"\x00", Malformed),
    ],
    # The keys are made anew in every process: names made of their bytes would differ between workers.
    ids=["none", "not DER", "too long", "Ed25519", "P-384", "bytes after it"],
)
def test_a_node_key_of_another_kind_or_encoding_is_refused(key: bytes, error: type[FltrustError]) -> None:
    with pytest.raises(error):
        check_node_key_proof(node_key=key, proof=b"\x30" * 70, csr_der=CSR, evidence=EVIDENCE)
