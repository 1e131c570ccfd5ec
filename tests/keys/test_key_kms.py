"""AWS KMS as its documentation has it, where moto does otherwise: answers written down, and what we ask."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from fltrust.errors import FltrustError, Malformed
from fltrust.keys import generate

boto3 = pytest.importorskip("boto3", reason="not here; the clients' tests run this where it is")
stub = pytest.importorskip("botocore.stub")

from fltrust.keys.awskms import KmsUri, open_signer  # noqa: E402 - needs what is looked for above

URI = KmsUri.parse("awskms:///alias/issuing?region=eu-central-1")
KEY = generate()
FOUND = {
    "KeyId": "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "PublicKey": KEY.public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "KeySpec": "ECC_NIST_P256",
    "KeyUsage": "SIGN_VERIFY",
    "SigningAlgorithms": ["ECDSA_SHA_256"],
}


class Kms:
    """Signs as AWS documents it: a message is hashed, a digest is not."""

    def __init__(self, found: dict[str, Any] | None = None) -> None:
        self.found = found or FOUND
        self.asked: list[dict[str, Any]] = []

    def get_public_key(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        return self.found

    def sign(self, **asked: Any) -> dict[str, Any]:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
        from cryptography.hazmat.primitives.hashes import SHA256

        self.asked.append(asked)
        message = asked["Message"]
        digest = message if asked["MessageType"] == "DIGEST" else sha256(message).digest()
        return {"Signature": KEY._private_key.sign(digest, ec.ECDSA(Prehashed(SHA256())))}


def client() -> Any:
    return boto3.client("kms", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.mark.parametrize(("size", "kind"), [(4096, "RAW"), (4097, "DIGEST"), (100_000, "DIGEST")])
def test_what_kms_takes_goes_whole_and_of_the_rest_the_digest(size: int, kind: str) -> None:
    kms = Kms()
    signer = open_signer(URI, client=kms)
    signer.sign(bytes(size))  # verified before it leaves
    asked = kms.asked[-1]
    assert (asked["MessageType"], asked["SigningAlgorithm"]) == (kind, "ECDSA_SHA_256")
    assert asked["Message"] == (bytes(size) if kind == "RAW" else sha256(bytes(size)).digest())


def test_the_shape_of_what_we_ask_is_boto3_s_own() -> None:
    kms = client()
    with stub.Stubber(kms) as answers:
        answers.add_response("get_public_key", FOUND, {"KeyId": "alias/issuing"})
        answers.add_response(
            "sign",
            {"Signature": b"not a signature", "SigningAlgorithm": "ECDSA_SHA_256"},
            {
                "KeyId": "alias/issuing",
                "Message": stub.ANY,
                "MessageType": "RAW",
                "SigningAlgorithm": "ECDSA_SHA_256",
            },
        )
        with pytest.raises(FltrustError) as refused:  # the trial does not verify
            open_signer(URI, client=kms)
    assert refused.value.reason == "key-unavailable"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("NotFoundException", "key-gone"),
        ("KMSInvalidStateException", "key-gone"),
        ("DisabledException", "key-gone"),
        ("AccessDeniedException", "key-denied"),
        ("ExpiredTokenException", "key-denied"),
        ("KMSInternalException", "key-unavailable"),
        ("ThrottlingException", "key-unavailable"),
        ("SomethingNew", "key-unavailable"),
    ],
)
def test_what_kms_refuses_has_one_word_here(code: str, reason: str) -> None:
    kms = client()
    with stub.Stubber(kms) as answers:
        for _ in range(3):
            answers.add_client_error("get_public_key", code)
        with pytest.raises(FltrustError) as refused:
            open_signer(URI, client=kms)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "change",
    [{"KeyUsage": "ENCRYPT_DECRYPT"}, {"SigningAlgorithms": ["ECDSA_SHA_384"]}, {"PublicKey": b"\x30\x00"}],
)
def test_a_key_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        open_signer(URI, client=Kms({**FOUND, **change}))


@pytest.mark.parametrize(
    "text",
    [
        "awskms:///",
        "awskms://host/alias/x",
        "awskms:///alias/x?profile=root",
        "awskms:///alias/x?region=eu-central-1&region=eu-west-1",
        "awskms:///alias/x?endpoint=http://kms.example",
        "awskms:///alias/x?endpoint=https://user:secret@kms.example",
        "awskms:///alias/x?region=../../etc",
        "awskms:///arn:aws:s3:::bucket/key",
    ],
)
def test_a_uri_that_says_something_else_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        KmsUri.parse(text)
