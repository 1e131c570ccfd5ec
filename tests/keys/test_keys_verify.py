"""Signatures: only the right one passes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fltrust.errors import SignatureInvalid
from fltrust.keys import generate, is_p256, verify_signature

SIGNER = generate()
GOOD = SIGNER.sign(b"data")


def test_a_signature_by_the_key_over_the_data_passes() -> None:
    verify_signature(SIGNER.public_key, GOOD, b"data")


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        pytest.param(GOOD, b"Data", id="other data"),
        pytest.param(GOOD, b"", id="no data"),
        pytest.param(generate().sign(b"data"), b"data", id="another key's"),
        pytest.param(b"", b"data", id="empty"),
        pytest.param(GOOD[:-1], b"data", id="cut short"),
        pytest.param(GOOD + b"\0", b"data", id="trailing byte"),
        pytest.param(GOOD + b"\0" * 100_000, b"data", id="oversized"),
        pytest.param(encode_dss_signature(0, 0), b"data", id="zeros"),
        pytest.param(encode_dss_signature(1, decode_dss_signature(GOOD)[1]), b"data", id="other r"),
    ],
)
def test_any_other_signature_is_refused(signature: bytes, data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify_signature(SIGNER.public_key, signature, data)


def test_a_signature_by_a_key_on_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(SignatureInvalid, match="P-256"):
        verify_signature(key.public_key(), key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data")


def test_only_p256_public_keys_are_p256() -> None:
    assert is_p256(SIGNER.public_key)
    assert not is_p256(ec.generate_private_key(ec.SECP256K1()).public_key())
    assert not is_p256(ed25519.Ed25519PrivateKey.generate().public_key())
    assert not is_p256(None)
