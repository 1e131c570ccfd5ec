"""Signatures: only the right one passes."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x448
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from fltrust.errors import SignatureInvalid
from fltrust.keys import generate, is_p256, is_public_key, verify_signature, verify_with

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


def _signed(key: object, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        hashes_of = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
        return key.sign(data, ec.ECDSA(hashes_of[key.curve.name]))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(data)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "p521", "ed25519", "rsa"],
)
def test_signatures_of_strangers_verify_by_the_kind_of_key(key: Any) -> None:
    signature = _signed(key, b"data")
    verify_with(key.public_key(), signature, b"data")
    for data, found in ((b"other", signature), (b"data", signature[:-1]), (b"data", b"")):
        with pytest.raises(SignatureInvalid):
            verify_with(key.public_key(), found, data)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
        x448.X448PrivateKey.generate(),
    ],
    ids=["secp256k1", "short rsa", "no signing key"],
)
def test_a_key_of_a_kind_that_is_not_known_verifies_nothing(key: Any) -> None:
    assert not is_public_key(key.public_key())
    with pytest.raises(SignatureInvalid, match="known kind"):
        verify_with(key.public_key(), b"x" * 64, b"data")


def test_a_signature_that_is_too_long_is_not_tried() -> None:
    with pytest.raises(SignatureInvalid, match="at most"):
        verify_with(generate().public_key, b"x" * 2000, b"data")
