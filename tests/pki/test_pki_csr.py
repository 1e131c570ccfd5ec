"""Certificate requests: the key and its proof, nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fltrust.errors import FltrustError, Malformed, Oversized, SignatureInvalid
from fltrust.keys import generate, spki_der
from fltrust.pki import create_csr, parse_csr

EMPTY = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))


def test_a_request_of_ours_gives_its_key() -> None:
    signer = generate()
    assert parse_csr(create_csr(signer)) == signer.public_key


def test_a_request_made_by_openssl_gives_its_key_whatever_else_it_says(tmp_path: Path) -> None:
    key, request = tmp_path / "key", tmp_path / "request"
    subprocess.run(
        [
            *("openssl", "req", "-new", "-nodes", "-sha256", "-outform", "DER"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", "/CN=coordinator", "-keyout", key, "-out", request),
            *("-addext", "subjectAltName=URI:spiffe://hospitals.example/coordinator,DNS:evil"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
        ],
        check=True,
        capture_output=True,
    )
    pub = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], capture_output=True)
    assert spki_der(parse_csr(request.read_bytes())) == pub.stdout


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    # The key of one request in the body of another: what a thief of a public key would send.
    mine, theirs = generate(), generate()
    der, wanted = create_csr(mine), create_csr(theirs)
    point = x509.load_der_x509_csr(wanted).public_key().public_numbers()
    own = x509.load_der_x509_csr(der).public_key().public_numbers()
    swap = [n.x.to_bytes(32, "big") + n.y.to_bytes(32, "big") for n in (own, point)]
    assert swap[0] in der
    with pytest.raises(SignatureInvalid):
        parse_csr(der.replace(*swap))


def test_a_request_with_another_kind_of_key_is_malformed() -> None:
    for key in (
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        with pytest.raises(Malformed, match="P-256"):
            parse_csr(EMPTY.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def test_a_request_signed_with_another_hash_is_malformed() -> None:
    request = EMPTY.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA512())
    with pytest.raises(Malformed, match="SHA-256"):
        parse_csr(request.public_bytes(Encoding.DER))


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", b"junk", b"\x30\x84\xff\xff\xff\xff", b"\0" * 1000])
def test_junk_is_malformed(junk: bytes) -> None:
    with pytest.raises(Malformed):
        parse_csr(junk)


def test_pem_and_trailing_bytes_are_malformed() -> None:
    der = create_csr(generate())
    for data in (der + b"\0", x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)):
        with pytest.raises(Malformed):
            parse_csr(data)


def test_a_huge_request_is_refused_before_it_is_parsed() -> None:
    request = EMPTY.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(f"{n}.example") for n in range(2000)]), critical=False
    ).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    with pytest.raises(Oversized):
        parse_csr(request.public_bytes(Encoding.DER))


def test_every_flipped_byte_of_a_request_is_refused_or_is_the_same_key() -> None:
    signer = generate()
    der = create_csr(signer)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 0x55
        try:
            assert parse_csr(bytes(changed)) == signer.public_key
        except FltrustError:
            continue


def test_a_name_in_the_request_is_never_read() -> None:
    # A subject that cannot even be decoded does no harm, because nobody looks.
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator/root")])
    request = x509.CertificateSigningRequestBuilder().subject_name(named).sign(key, hashes.SHA256())
    assert parse_csr(request.public_bytes(Encoding.DER)) == key.public_key()
